"""Runs that have ended, and what cannot be made of them any more."""

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

from refold import Context, Engine, step, workflow
from refold.errors import AppendRefused
from refold.events import types as t
from tests.engine.kit import engine, seen, until, waiting
from tests.errors.cases import meets


@step
async def undo(what: str) -> None: ...


@step(compensate=undo)
async def book(what: str) -> str:
    return what


@step(execution="at_most_once")
async def wire() -> None:
    await asyncio.get_running_loop().create_future()


@workflow
async def books(ctx: Context) -> None:
    await book("a")
    raise ValueError("no")


@workflow(compensate_on=())
async def fails(ctx: Context) -> None:
    await ctx.call(len, "x")
    raise ValueError("no")


@workflow
async def done(ctx: Context) -> int:
    return 1


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("go")


@workflow
async def parent(ctx: Context) -> None:
    await ctx.child(waits)


@workflow
async def wires(ctx: Context) -> None:
    first = await ctx.call(len, "x")
    await asyncio.gather(wire(), ctx.call(len, "y" * first))


FLOWS = (books, fails, done, waits, parent, wires)


def ended(e: Engine, run_id: str = "r") -> bool:
    work = e.store.work(run_id)
    return work is not None and work.state == "done"


async def after(flow: Any, *what: Any) -> None:
    """Ask this of a run that has ended, or (`waits`, `parent`) that waits."""
    async with engine("memory://", *FLOWS, grace=0) as e:
        await e.start(flow, id="r")
        await (waiting(e, "r") if flow in (waits, parent) else until(lambda: ended(e)))
        for ask in what:
            await ask(e)


OF_AN_END: dict[str, tuple[Any, ...]] = {
    "run … is …: only runs that are … are retried": (done, lambda e: e.retry("r")),
    "run … has not ended: cancel or …": (waits, lambda e: e.retry("r")),
    "workflow … has … runs to resume …": (done, lambda e: e.resume_one("done")),
    "run … is …: there is nothing to undo": (books, lambda e: e.compensate("r")),
    "run … has nothing to undo: no step …": (done, lambda e: e.compensate("r")),
    "run … is terminated: retry it first, …": (
        waits,
        lambda e: e.terminate("r"),
        lambda e: until(lambda: ended(e)),
        lambda e: e.compensate("r"),
    ),
    "run … has events 1 to …": (fails, lambda e: e.retry("r", at=1_000)),
    "run … waits there for its child …, which is not forked: …": (parent, lambda e: e.fork("r")),
}
for _message, _after in OF_AN_END.items():
    meets("ActRefused", _message)(lambda folder, of=_after: after(*of))


@meets("ActRefused", "run …: step … runs and may not be repeated: …")
async def reset_beside_what_may_run_once(folder: Path) -> None:
    async with engine("memory://", wires, grace=0) as e:
        run = await e.start(wires, id="r")
        await seen(run, t.StepCompleted, 2)
        await e.reset_step("r", "len#1")


@meets("ActRefused", "run …: somebody else has just repaired it; …")
async def repair_at_the_same_time(folder: Path) -> None:
    async def beaten(e: Engine) -> None:
        with mock.patch.object(Engine, "_append", side_effect=AppendRefused("r", 5, 6)):
            await e.retry("r")

    await after(fails, beaten)
