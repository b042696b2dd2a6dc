"""What a suspended run keeps in memory, and an evicted one."""

import asyncio
import gc

from refold import Engine, Settings

from .harness import Figure, Scale, at_most, fresh, resident_bytes
from .workloads import WORKFLOWS, suspended, then_wait


async def suspend(engine: Engine, runs: int) -> None:
    """Start runs and leave them waiting."""
    handles = [await engine.start(then_wait, 1) for _ in range(runs)]
    await suspended(engine, [handle.id for handle in handles])
    await engine.projections.wait()


def child(url: str, runs: int, memory_bytes: int) -> dict[str, float]:
    """Bytes of resident memory a run adds, over `runs` runs, after as many again to warm up.

    The first ones grow what is not a run's: arenas, caches, the page cache of SQLite.
    """

    async def grow() -> float:
        async with Engine(url, workflows=WORKFLOWS, settings=Settings(memory_bytes=memory_bytes)) as engine:
            await suspend(engine, runs)
            gc.collect()
            before = resident_bytes()
            await suspend(engine, runs)
            gc.collect()
            return (resident_bytes() - before) / runs

    return {"bytes": asyncio.run(grow())}


def run(scale: Scale) -> list[Figure]:
    """Suspended and evicted runs."""
    runs = scale.pick(10_000, 30)
    live = fresh("benchmarks.memory", url=f"sqlite:///{scale.path('live')}", runs=runs, memory_bytes=1 << 32)
    gone = fresh("benchmarks.memory", url=f"sqlite:///{scale.path('gone')}", runs=runs, memory_bytes=0)
    return [
        at_most("suspended run in memory", live["bytes"] / 1024, "KiB", 12),
        at_most(
            "evicted run in memory",
            gone["bytes"] / 1024,
            "KiB",
            0.1,
            note="the bar is 0: nothing kept per run",
        ),
    ]
