"""Workflows that use everything the kernel has, and the steps they are made of.

Every body leaves two lines in the file `effects` (began, ended), passes a moment after each, and looks
with a connection of its own whether its intent is durable: an effect before its intent is a violation.
The main ones have one schedule only, so that their events can be compared with those of a run that was
never killed; `storm` has many and is compared by its result.
"""

import asyncio
from typing import Any

import anyio

from refold import (
    Context,
    NonRetryable,
    Retry,
    StepFailed,
    WaitTimeout,
    Workflow,
    current_step,
    record_cost,
    step,
    workflow,
)
from refold.errors import StepInterrupted, StepTimedOut
from tests.crash.scene import here

BRIEFLY = 0.004
"""Seconds of a deadline that is meant to pass."""
LONG = 3_600.0
LAPS = 24


# ---- what every body does ---------------------------------------------------------------------


def began(*, pure: bool = False) -> None:
    info, scene = current_step(), here()
    scene.say("effects", "began", info.idempotency_key, info.attempt, pure)
    if not pure and not scene.count(info.run_id, info.key, "step.started", info.attempt):
        scene.say("violations", f"{info.key} has begun before attempt {info.attempt} was durable")
    scene.moment(f"{info.key} has begun")


def ended() -> None:
    info, scene = current_step(), here()
    scene.say("effects", "ended", info.idempotency_key, info.attempt)
    scene.moment(f"{info.key} is about to return")


# ---- steps ------------------------------------------------------------------------------------


@step
async def add(a: int, b: int) -> int:
    began()
    ended()
    return a + b


@step(pure=True)
async def double(a: int) -> int:
    began(pure=True)
    ended()
    return 2 * a


@step
def in_thread(text: str) -> tuple[str, int]:
    began()
    ended()
    return text.upper(), len(text)


@step(retry=Retry(max_attempts=3, initial_interval=0.003, backoff=1.5, jitter=0.0))
async def flaky(text: str) -> str:
    """Fails until two failures of it are in the log: crashes in between change nothing."""
    began()
    info = current_step()
    if here().count(info.run_id, info.key, "step.attempt_failed") < 2:
        raise ConnectionError(text)
    ended()
    return text + "!"


@step(retry=Retry(max_attempts=5))
async def hopeless() -> None:
    began()
    raise NonRetryable("never")


@step(timeout=BRIEFLY)
async def slow() -> None:
    began()
    await asyncio.Event().wait()


@step
async def forever() -> int:
    began()
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


@step
async def paid(cents: int) -> int:
    began()
    record_cost(f"0.{cents:02}", model="m", input_tokens=cents)
    current_step().debug({"cents": cents})
    ended()
    return cents


@step(execution="at_most_once", on_unknown="fail")
async def charge(amount: int) -> str:
    began()
    ended()
    return f"charged {amount}"


async def plain(a: int, b: int) -> int:
    began()
    ended()
    return a * b


class Parcel:
    """An operation of the user's own."""

    kind = "parcel"

    def __init__(self, to: str) -> None:
        self.input = {"to": to}

    async def run(self) -> str:
        began()
        ended()
        return f"sent to {self.input['to']}"


# ---- workflows --------------------------------------------------------------------------------


@workflow
async def order(ctx: Context, start: int) -> dict[str, Any]:
    """One after the other: every kind of step, sleeps, events before, after and never."""
    first = ctx.now()
    total = await add(start, 1)
    for _ in range(3):
        total = await double(total)
    loud = await in_thread("abc")
    retried = await flaky(f"{ctx.random.randrange(10**6)}")
    outcomes: list[str] = []
    try:
        await slow()
    except StepTimedOut as error:
        outcomes.append(error.type)
    try:
        await hopeless()
    except StepFailed as error:
        outcomes.append(error.type)
    await asyncio.sleep(BRIEFLY)
    early = await ctx.wait_for_event("early")
    await ctx.sleep(BRIEFLY)
    try:
        await ctx.wait_for_event("never", timeout=BRIEFLY)
    except WaitTimeout:
        outcomes.append("WaitTimeout")
    late = [await ctx.wait_for_event("late"), await ctx.wait_for_event("late")]
    product = await ctx.call(plain, 6, 7, name="times")
    sent = await ctx.operation(Parcel(str(ctx.uuid4())))
    cost = await paid(7)
    return {
        "total": total, "loud": loud, "retried": retried, "outcomes": outcomes, "early": early,
        "late": late, "product": product, "sent": sent, "cost": cost, "forward": ctx.now() >= first,
    }  # fmt: skip


@workflow
async def branches(ctx: Context) -> dict[str, Any]:
    """Many at once: gather, task groups of both libraries, deadlines of both, a race."""
    gathered = await asyncio.gather(*(add(i, 1) for i in range(3)), return_exceptions=True)
    found: dict[int, int] = {}

    async def work(i: int) -> None:
        found[i] = await add(await double(i), 100)

    async with anyio.create_task_group() as group:
        for i in range(2):
            group.start_soon(work, i)
    async with asyncio.TaskGroup() as tasks:
        pair = [tasks.create_task(paid(i)) for i in (3, 4)]
    outcomes: list[str] = []
    with anyio.move_on_after(BRIEFLY) as scope:
        await forever()
    outcomes.append(f"moved on: {scope.cancelled_caught}")
    try:
        with anyio.fail_after(BRIEFLY):
            await anyio.sleep(LONG)
    except TimeoutError:
        outcomes.append("fail_after")
    try:
        async with asyncio.timeout(BRIEFLY):
            await asyncio.gather(forever(), forever())
    except TimeoutError:
        outcomes.append("asyncio.timeout")
    racers: list[asyncio.Task[int]] = [asyncio.create_task(forever()), asyncio.create_task(add(20, 22))]
    done, losers = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    await asyncio.wait(losers)
    winner = done.pop().result()
    last = await add(winner, sum(task.result() for task in pair))
    return {"gathered": gathered, "found": sorted(found.items()), "outcomes": outcomes, "last": last}


@workflow
async def tidied(ctx: Context) -> None:
    """Waits for ever; when it is cancelled it cleans up, shielded, and lets the cancellation through."""
    total = await add(1, 2)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(forever)
            await ctx.wait_for_event("never")
    finally:
        with anyio.CancelScope(shield=True):
            await add(total, 10)
            await anyio.sleep(BRIEFLY)
            await flaky("cleanup")


@workflow
async def careful(ctx: Context) -> dict[str, Any]:
    """Steps that may be attempted once only, and one that says so with `on_unknown`."""
    said: list[str] = []
    for amount in (1, 2):
        try:
            said.append(await charge(amount))
        except StepInterrupted:
            said.append(f"unknown {amount}")
        await add(amount, 0)
    return {"said": said}


@workflow
async def listener(ctx: Context) -> list[Any]:
    """Takes two events of one name while it works."""
    await add(1, 1)
    first, _ = await asyncio.gather(ctx.wait_for_event("word"), add(2, 2))
    await asyncio.sleep(BRIEFLY)
    await double(3)
    second = await ctx.wait_for_event("word")
    await add(4, 4)
    return [first, second]


@workflow
async def storm(ctx: Context, seed: int) -> list[int]:
    """Everything at once; the result does not depend on who is first."""

    async def lane(i: int) -> int:
        total = 0
        for j in range(4):
            total += await (add(i, j) if (i + j) % 2 else double(i + j))
            if i % 3 == 0:
                await asyncio.sleep(0.001 * (j + 1))
            if i % 3 == 1:
                with anyio.move_on_after(0.002):
                    await forever()
        return total + await paid(i)

    results = await asyncio.gather(*(lane(i) for i in range(seed, seed + 6)))
    loud = await in_thread("storm")
    await flaky(str(seed))
    return [*results, loud[1]]


@workflow
async def marathon(ctx: Context) -> int:
    """Long enough to be killed many times: rounds of everything that is quick."""
    total = 0
    for lap in range(LAPS):
        total += await add(lap, 1)
        total = sum(await asyncio.gather(*(double(i) for i in range(3)), add(total, 0)))
        if lap % 5 == 0:
            await asyncio.sleep(0.002)
        if lap % 8 == 0:
            with anyio.move_on_after(0.002):
                await forever()
        if lap % 10 == 0:
            total += await paid(lap)
            await flaky(str(lap))
            await in_thread(str(lap))
    return total


@workflow
async def idle(ctx: Context) -> int:
    """Ends in its first activation."""
    return 7


ALL: list[Workflow[Any, Any]] = [order, branches, tidied, careful, listener, storm, marathon, idle]
BY_NAME = {flow.name: flow for flow in ALL}
ARGS: dict[str, tuple[Any, ...]] = {"order": (5,), "storm": (10,)}
