"""Workflows that use what goes beyond steps, timers and events: each other, people, repairs, undoing."""

import asyncio
from typing import Any

import anyio

from refold import Context, NonRetryable, StepFailed, Workflow, step, workflow
from refold.engine.parallel import Branch
from refold.events.errors import ChildFailed
from tests.crash import flows
from tests.crash.flows import BRIEFLY, add, began, double, ended, flaky, forever, hopeless, paid
from tests.crash.scene import here

MENDED = "mended"
"""File that says that whatever was broken is mended."""


@step
async def shaky(number: int) -> int:
    """Fails until somebody has mended it."""
    began()
    if not here().heard(MENDED):
        raise NonRetryable("broken")
    ended()
    return number


@step
async def lengthy(number: int) -> int:
    """Takes as long as it takes the owner to notice that others have written."""
    began()
    await asyncio.sleep(0.02)
    ended()
    return number


@step
async def unmake(what: str, *, result: str) -> str:
    began()
    ended()
    return f"un{result}"


@step(compensate=unmake)
async def make(what: str) -> str:
    began()
    ended()
    return f"made {what}"


# ---- children, branches, maps, data


@workflow
async def leaf(ctx: Context, number: int) -> int:
    return await add(number, 1) + await paid(number)


@workflow
async def barren(ctx: Context) -> None:
    await paid(2)
    await hopeless()


@workflow
async def family(ctx: Context) -> dict[str, Any]:
    """Children that end well, badly, one after the other and unattended; branches, a map, a decision."""
    ctx.set("stage", "begun")
    ctx.checkpoint("begun", {"at": 1})
    newer = ctx.patched("newer")
    first = await ctx.child(leaf, 3)
    large = ctx.condition("large", first > 100, skips=[flows.slow], first=first)
    pair = await ctx.parallel([add(1, 2), double(3), Branch(add, when=large)])
    items = await ctx.map(paid, [1, 2, 3, 4, 5], limit=2)
    children = await ctx.map(leaf, [6, 7], limit=1)
    try:
        await ctx.child(barren)
    except ChildFailed as failed:
        problem = failed.status
    unattended = await ctx.child(leaf, 9, wait=False)
    ctx.set_attributes(stage="done")
    return {
        "newer": newer, "first": first, "large": large, "pair": list(pair), "items": list(items),
        "children": list(children), "problem": problem, "unattended": unattended, "stage": ctx.get("stage"),
    }  # fmt: skip


@workflow
async def clan(ctx: Context, number: int) -> list[int]:
    """Children and items at once, in whatever order they end."""
    children, items = await asyncio.gather(
        ctx.map(leaf, [number, number + 1, number + 2], limit=2), ctx.map(paid, range(number), limit=2)
    )
    return [*children, *items]


@workflow
async def dynasty(ctx: Context, left: int, total: int) -> int:
    """Long enough to be killed many times: run after run, each with a clan."""
    total += sum(await ctx.child(clan, left + 3))
    await asyncio.sleep(0.002)
    total += await add(left, left)
    if left:
        ctx.continue_as_new(left - 1, total)
    return total


# ---- people, and who else is outside


@workflow
async def board(ctx: Context) -> dict[str, Any]:
    """A gate and a question, in a child of a child."""
    return await ctx.child(meeting)  # type: ignore[no-any-return]


@workflow
async def meeting(ctx: Context) -> dict[str, Any]:
    return await ctx.child(agenda)  # type: ignore[no-any-return]


@workflow
async def agenda(ctx: Context) -> dict[str, Any]:
    async def beside() -> int:
        return await add(await add(1, 2), await add(3, 4))

    decision, total = await asyncio.gather(
        ctx.approval("ship it?", options=["now", "later"], approvers=2, voters=["ana", "bob"]), beside()
    )
    count = await ctx.wait_for_input(int, name="count")
    return {"approvals": decision.approvals, "when": decision.selections, "sum": await add(total, count)}


@workflow
async def relay(ctx: Context, left: int, heard: list[int]) -> list[int]:
    """Takes one event a run, and goes on as a new one."""
    await add(left, 0)
    word = await ctx.wait_for_event("word")
    heard = [*heard, word["number"]]
    await double(left)
    if left > 1:
        ctx.continue_as_new(left - 1, heard)
    return heard


@workflow
async def steady(ctx: Context) -> int:
    """Goes its way, and may be held up anywhere."""
    total = await add(1, 1)
    await asyncio.sleep(BRIEFLY)
    total += sum(await asyncio.gather(lengthy(total), double(2), ctx.child(leaf, 1)))
    await flaky("steady")
    return await add(total, 1)


@workflow
async def endless(ctx: Context) -> None:
    await add(2, 2)
    try:
        await forever()
    finally:
        with anyio.CancelScope(shield=True):
            await paid(4)


@workflow
async def doomed(ctx: Context) -> None:
    """Waits for ever, and so does its child; ended from outside, one way or the other."""
    await add(1, 1)
    try:
        await asyncio.gather(ctx.child(endless), ctx.wait_for_event("never"))
    finally:
        with anyio.CancelScope(shield=True):
            await add(9, 9)


# ---- undoing, and repairs


async def last_words(ctx: Context, status: str) -> None:
    await add(len(status), 0)


@workflow(always=last_words)
async def saga(ctx: Context) -> None:
    """Does three things it can undo, and one it registers itself; then it fails."""
    await make("a")
    ctx.compensate(paid, 1)
    await asyncio.gather(make("b"), make("c"))
    await hopeless()


@workflow
async def fragile(ctx: Context) -> int:
    return await paid(3) + await shaky(1)


@workflow
async def workshop(ctx: Context) -> int:
    return await paid(5) + await ctx.child(fragile)  # type: ignore[no-any-return]


@workflow
async def mended(ctx: Context) -> list[Any]:
    """Fails, three times below one another, until somebody mends it and has it retried."""
    first = await add(1, 1)
    try:
        results = await ctx.parallel([shaky(2), ctx.child(workshop), double(4), paid(6)], fail_fast=False)
    except StepFailed:
        await add(7, 7)
        raise
    return [first, *results, await add(first, 1)]


MODEL: list[Workflow[Any, Any]] = [
    leaf, barren, family, clan, dynasty, board, meeting, agenda, relay, steady, endless, doomed, saga,
    fragile, workshop, mended,
]  # fmt: skip
ALL = [*flows.ALL, *MODEL]
BY_NAME = {flow.name: flow for flow in ALL}
ARGS: dict[str, tuple[Any, ...]] = {
    **flows.ARGS, "clan": (3,), "dynasty": (5, 0), "relay": (3, []),
}  # fmt: skip
