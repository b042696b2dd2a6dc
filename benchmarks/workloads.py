"""The workflows that benches run: as little body as possible, so that what is left is the engine."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from refold import Context, Engine, Workflow, step, workflow


@step
async def nothing(number: int) -> int:
    """A step with a possible effect: its intent is durable before it starts."""
    return number


@step(pure=True)
async def pure_nothing(number: int) -> int:
    """A step without effects: may run ahead of its own append."""
    return number


@workflow
async def sequential(ctx: Context, steps: int) -> int:
    """One step after another."""
    for number in range(steps):
        await nothing(number)
    return steps


@workflow
async def sequential_pure(ctx: Context, steps: int) -> int:
    """One pure step after another."""
    for number in range(steps):
        await pure_nothing(number)
    return steps


@workflow
async def parallel(ctx: Context, steps: int) -> int:
    """All steps at once."""
    return len(await asyncio.gather(*(nothing(number) for number in range(steps))))


@workflow
async def mapped(ctx: Context, items: int, limit: int) -> int:
    """A step for each item, so many at a time."""
    return len(await ctx.map(nothing, range(items), limit=limit))


@workflow
async def leaf(ctx: Context, number: int) -> int:
    """A run that does nothing."""
    return number


@workflow
async def family(ctx: Context, children: int) -> int:
    """So many children at once."""
    return len(await ctx.map(leaf, range(children), limit=None))


@workflow
async def then_wait(ctx: Context, steps: int) -> int:
    """Some steps, then a wait for the event `go`: a run to suspend, to evict, to replay."""
    for number in range(steps):
        await pure_nothing(number)
    await ctx.wait_for_event("go")
    return steps


@workflow
async def sleeper(ctx: Context, seconds: float) -> None:
    """Sleeps durably."""
    await ctx.sleep(seconds)


@step
async def look_at_clock() -> float:
    """Seconds on a clock that all processes of a machine share (Linux)."""
    return time.monotonic()


@workflow
async def clock(ctx: Context) -> float:
    """When its first step began."""
    return await look_at_clock()


WORKFLOWS: list[Workflow[Any, Any]] = [
    sequential, sequential_pure, parallel, mapped, leaf, family, then_wait, sleeper, clock,
]  # fmt: skip


async def suspended(engine: Engine, run_ids: Iterable[str]) -> None:
    """Wait, outside of everything that is timed, until all these runs wait for a timer or a message."""
    for run_id in run_ids:
        while (work := engine.store.work(run_id)) is None or work.state != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
