"""1,000 children of one run."""

import statistics
import time

from refold import Engine

from .harness import Figure, Scale, at_least, run_async
from .workloads import WORKFLOWS, family


async def timed(engine: Engine, children: int) -> float:
    """Seconds a child, from the parent's start to its result, the read models caught up at the end."""
    began = time.perf_counter()
    handle = await engine.start(family, children)
    await handle.result()
    await engine.projections.wait()
    return (time.perf_counter() - began) / children


async def measure(scale: Scale) -> list[Figure]:
    children = scale.pick(1_000, 10)
    async with Engine(f"sqlite:///{scale.path('children')}", workflows=WORKFLOWS) as engine:
        await timed(engine, scale.pick(200, 3))
        spans = [await timed(engine, children) for _ in range(scale.pick(9, 2))]
    return [
        at_least("1,000 children of one run, projections on", 1 / statistics.median(spans), "runs/s", 3_000)
    ]


def run(scale: Scale) -> list[Figure]:
    """Children."""
    return run_async(measure(scale))
