"""All read models folded anew from the log."""

import statistics
import time

from refold import Engine

from .harness import Figure, Scale, at_least, run_async
from .step import timed
from .workloads import WORKFLOWS, sequential_pure


async def measure(scale: Scale) -> list[Figure]:
    async with Engine(f"sqlite:///{scale.path('rebuild')}", workflows=WORKFLOWS) as engine:
        for _ in range(scale.pick(70, 2)):
            await timed(engine, sequential_pure, scale.pick(500, 5))
        spans: list[float] = []
        events = 0
        for _ in range(scale.pick(5, 1)):
            began = time.perf_counter()
            events = engine.projections.rebuild()
            spans.append(time.perf_counter() - began)
    return [
        at_least("projection rebuild, all read models", events / statistics.median(spans), "events/s", 50_000,
                 note=f"{events:,} events"),
    ]  # fmt: skip


def run(scale: Scale) -> list[Figure]:
    """Rebuild."""
    return run_async(measure(scale))
