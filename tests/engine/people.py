"""Programs that tests of gates, children and continued runs start as processes of their own.

`python -m tests.engine.people NAME …`; see `tests.engine.children`, which runs them.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from refold import Context, Engine, workflow
from refold.events.errors import VoteRefused
from tests.engine.children import SETTINGS, say, single
from tests.engine.kit import Place, engine as open_engine, waiting


@workflow
async def asks_people(ctx: Context, needed: int) -> list[str]:
    return (await ctx.approval("?", approvers=needed)).approvals


@workflow
async def collects(ctx: Context, expected: int, at_once: int, so_far: list[str]) -> list[str]:
    """So many letters, a few of them by each run."""
    for _ in range(at_once):
        so_far.append(await ctx.wait_for_event("letter"))
    if len(so_far) < expected:
        ctx.continue_as_new(expected, at_once, so_far)
    return so_far


WAYS = ("here", "evicted", "outside")
"""Where the voter is: beside the handler, beside one that was let go, in an engine that only talks."""


@asynccontextmanager
async def voter(way: str, place: Place, e: Engine) -> AsyncIterator[Engine]:
    """An engine to vote with."""
    if way != "outside":
        yield e
        return
    async with open_engine(
        place if isinstance(place, str) else e.store, execute=False, clock=e.clock
    ) as door:
        yield door


def memory(way: str) -> dict[str, Any]:
    return {"memory_bytes": 0} if way == "evicted" else {}


@workflow
async def parent_of_marks(ctx: Context, folder: str) -> str:
    return f"above: {await ctx.child(single, folder)}"


WORKFLOWS = (asks_people, collects, parent_of_marks)


async def asks(url: str) -> None:
    """Execute run `r`, which waits for two people; then wait to be killed."""
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as engine:
        handle = await engine.start(asks_people, 2, id="r")
        await waiting(engine, "r")
        say("asking")
        await handle.result()
        await asyncio.Event().wait()


async def votes(url: str, by: str, gates: str) -> None:
    """Vote once for each of runs `r0`, `r1` …"""
    async with Engine(url, execute=False) as engine:
        for number in range(int(gates)):
            try:
                await engine.approve(f"r{number}", by=by)
                say("accepted", f"r{number}")
            except VoteRefused as refused:
                say("refused", refused)
    say("done")


async def writes(url: str, run_id: str, name: str, count: str) -> None:
    """Send a run so many letters."""
    async with Engine(url, execute=False) as engine:
        for number in range(int(count)):
            await engine.signal(run_id, "letter", f"{name}{number}", by=f"process {name}")
    say("sent")


async def works_below(url: str, folder: str) -> None:
    """Execute run `r`, whose child leaves a mark and waits."""
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as engine:
        handle = await engine.start(parent_of_marks, folder, id="r")
        say("started")
        await handle.result()


async def serves(url: str) -> None:
    """Execute whatever there is until it is killed."""
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS):
        say("serving")
        await asyncio.Event().wait()


PROGRAMS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    program.__name__: program for program in (asks, votes, writes, works_below, serves)
}

if __name__ == "__main__":
    asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))
