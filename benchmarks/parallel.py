"""1,000 steps at once in one run (W5)."""

import statistics

from refold import Engine

from .harness import Figure, Scale, at_least, run_async
from .step import timed
from .workloads import WORKFLOWS, parallel


async def measure(scale: Scale) -> list[Figure]:
    steps = scale.pick(1000, 20)
    spans = []
    async with Engine(f"sqlite:///{scale.path('parallel')}", workflows=WORKFLOWS) as engine:
        await timed(engine, parallel, scale.pick(200, 3))
        for _ in range(scale.pick(9, 2)):
            spans.append(await timed(engine, parallel, steps))
    return [at_least("1,000 parallel steps in one run", 1 / statistics.median(spans), "steps/s", 5_000)]


def run(scale: Scale) -> list[Figure]:
    """Parallel steps."""
    return run_async(measure(scale))
