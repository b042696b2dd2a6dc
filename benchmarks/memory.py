"""What a suspended run keeps in memory, and an evicted one.

Without the read models: their cache of rows is bounded by itself and has nothing to do with a run's being
in memory.
"""

import asyncio
import gc
import tracemalloc

from refold import Engine, Settings

from .harness import Figure, Scale, at_most, fresh, resident_bytes
from .workloads import WORKFLOWS, suspended, then_wait

TOGETHER = 250


async def suspend(engine: Engine, runs: int) -> None:
    """Start runs and leave them waiting."""
    for _ in range(max(runs // TOGETHER, 1)):
        handles = await asyncio.gather(*(engine.start(then_wait, 1) for _ in range(min(runs, TOGETHER))))
        await suspended(engine, [handle.id for handle in handles])


async def grow(url: str, runs: int, memory_bytes: int, traced: bool) -> float:
    """Bytes a run adds, over `runs` runs, after half as many to warm up.

    Those grow what is not a run's: arenas, caches, the pages of SQLite.
    """
    settings = Settings(memory_bytes=memory_bytes, projections=False)
    async with Engine(url, workflows=WORKFLOWS, settings=settings) as engine:
        await suspend(engine, runs // 2)
        gc.collect()
        if traced:
            tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0] if traced else resident_bytes()
        await suspend(engine, runs)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0] if traced else resident_bytes()
        return (after - before) / runs


def child(url: str, runs: int, memory_bytes: int, traced: bool) -> dict[str, float]:
    """See `grow`; in a process of its own, where nothing else allocates."""
    return {"bytes": asyncio.run(grow(url, runs, memory_bytes, traced))}


def run(scale: Scale) -> list[Figure]:
    """Suspended runs by resident memory; evicted ones by what Python holds, for RSS never shrinks to 0."""
    runs = scale.pick(10_000, 30)
    live, gone = f"sqlite:///{scale.path('live')}", f"sqlite:///{scale.path('gone')}"
    kept = fresh("benchmarks.memory", url=live, runs=runs, memory_bytes=1 << 32, traced=False)["bytes"]
    left = fresh("benchmarks.memory", url=gone, runs=runs, memory_bytes=0, traced=True)["bytes"]
    return [
        at_most("suspended run in memory, RSS", kept / 1024, "KiB", 12),
        at_most("evicted run in memory, Python's allocations", left / 1024, "KiB", 0.1, note="the bar is 0"),
    ]
