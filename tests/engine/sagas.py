"""Runs whose process is killed while they are undone, or in mid-effect.

`python -m tests.engine.sagas (trip|payment) URL FOLDER [CHEAT]`
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from refold import Context, Engine, Happened, NotHappened, step, workflow
from refold.engine import compensation
from tests.engine.children import SETTINGS, appears, mark, say
from tests.engine.kit import waiting

STOPS_AT = "unb"


@step
async def unact(folder: str, name: str) -> None:
    """Leaves a mark; one of them then waits until the test lets go."""
    mark(folder, f"un{name}")
    if f"un{name}" == STOPS_AT:
        await appears(folder, f"go-{STOPS_AT}")


@step(compensate=unact)
async def act(folder: str, name: str) -> None:
    mark(folder, name)


@workflow
async def trip(ctx: Context, folder: str) -> Any:
    for name in "abc":
        await act(folder, name)
    return await ctx.wait_for_event("never")


async def paid(folder: str) -> Any:
    return Happened("paid before") if (Path(folder) / "effects").exists() else NotHappened()


@step(execution="at_most_once", probe=paid)
async def pay(folder: str) -> str:
    mark(folder, "pay")
    await appears(folder, "go-pay")
    return "paid"


@workflow
async def payment(ctx: Context, folder: str) -> str:
    return await pay(folder)


WORKFLOWS = (trip, payment)


def effects(folder: Path) -> list[str]:
    """Every mark, in order."""
    return [line.split()[1] for line in (folder / "effects").read_text().splitlines()]


def undo_forwards() -> None:
    """Sabotage: the first one done is undone first."""
    compensation.left = lambda run: [undo for undo in run.undos if not undo.done]


async def main(name: str, url: str, folder: str, cheat: str = "") -> None:
    """Start the run, and execute it for ever."""
    if cheat:
        undo_forwards()
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as engine:
        handle = await engine.start({"trip": trip, "payment": payment}[name], folder, id="r")
        if name == "trip":
            await waiting(engine, "r")
            say("waiting")
        await engine.end_of(handle.id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
