"""What a suspended run keeps in memory, and an evicted one."""

import asyncio
import gc

from refold import Engine

from .harness import Figure, Scale, at_most, fresh, resident_bytes
from .workloads import WORKFLOWS, suspended, then_wait


async def suspend(engine: Engine, first: int, last: int) -> None:
    """Start runs and leave them waiting."""
    handles = [await engine.start(then_wait, 1, id=f"run-{number}") for number in range(first, last)]
    for handle in handles:
        await suspended(handle, "event")
    await engine.projections.wait()


def child(url: str, runs: int, budget: int | None) -> dict[str, float]:
    """Bytes of resident memory a run adds, over `runs` runs, after a tenth of as many to warm up."""

    async def grow() -> float:
        options = {} if budget is None else {"cache_bytes": budget}
        async with Engine(url, workflows=WORKFLOWS, **options) as engine:
            warm = runs // 10
            await suspend(engine, 0, warm)
            gc.collect()
            before = resident_bytes()
            await suspend(engine, warm, warm + runs)
            gc.collect()
            return (resident_bytes() - before) / runs

    return {"bytes": asyncio.run(grow())}


def run(scale: Scale) -> list[Figure]:
    """Suspended and evicted runs."""
    runs = scale.pick(10_000, 30)
    live = fresh("benchmarks.memory", url=f"sqlite:///{scale.path('live')}", runs=runs, budget=1 << 30)
    gone = fresh("benchmarks.memory", url=f"sqlite:///{scale.path('gone')}", runs=runs, budget=0)
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
