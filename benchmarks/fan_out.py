"""A map over 10,000 items, and what it keeps in memory for each."""

import asyncio
import gc
import statistics
import time
import tracemalloc

from refold import Engine, Settings

from .harness import Figure, Scale, at_least, at_most, fresh, run_async
from .workloads import WORKFLOWS, mapped

LIMIT = 8
"""The default of `ctx.map`."""


async def timed(engine: Engine, items: int, limit: int) -> float:
    """Seconds an item, from start to result, the read models caught up at the end."""
    began = time.perf_counter()
    handle = await engine.start(mapped, items, limit)
    await handle.result()
    await engine.projections.wait()
    return (time.perf_counter() - began) / items


async def measure(scale: Scale) -> list[Figure]:
    items, rounds = scale.pick(10_000, 20), scale.pick(3, 1)
    figures = []
    async with Engine(f"sqlite:///{scale.path('map')}", workflows=WORKFLOWS) as engine:
        await timed(engine, scale.pick(500, 3), LIMIT)
        narrow = [await timed(engine, items, LIMIT) for _ in range(rounds)]
        wide = [await timed(engine, items, 100) for _ in range(rounds)]
    note = f"100 at a time: {1 / statistics.median(wide):,.0f} items/s"
    figures.append(
        at_least(f"map over 10,000 items, {LIMIT} at a time, projections on", 1 / statistics.median(narrow),
                 "items/s", 3_000, note=note)
    )  # fmt: skip
    return figures


async def peak(url: str, items: int) -> float:
    """Bytes an item at the worst moment of a map."""
    async with Engine(url, workflows=WORKFLOWS, settings=Settings(projections=False)) as engine:
        await (await engine.start(mapped, 100, LIMIT)).result()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await (await engine.start(mapped, items, LIMIT)).result()
        return (tracemalloc.get_traced_memory()[1] - before) / items


def child(url: str, items: int) -> dict[str, float]:
    """See `peak`; in a process of its own, where nothing else allocates."""
    return {"bytes": asyncio.run(peak(url, items))}


def run(scale: Scale) -> list[Figure]:
    """Fan-out."""
    figures = run_async(measure(scale))
    sizes = scale.pick(2_500, 10), scale.pick(10_000, 40)
    small, large = (
        fresh("benchmarks.fan_out", url=f"sqlite:///{scale.path('memory')}", items=size)["bytes"]
        for size in sizes
    )
    figures.append(
        at_most("memory of a map of 10,000 items at its peak, for each", large / 1024, "KiB", 1.2,
                ratio=large / small, of="that of 2,500 items")
    )  # fmt: skip
    return figures
