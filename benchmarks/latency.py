"""From `start` to the result of a one-step run, on an idle engine (W3)."""

import asyncio
import statistics
import time

from refold import Engine

from .bare import Bare, step_bytes
from .harness import Figure, Scale, at_most, run_async
from .workloads import WORKFLOWS, sequential

IDLE_S = 0.05
"""Pause before each start: long enough for the projections to have caught up and everything to rest."""


async def measure(scale: Scale) -> list[Figure]:
    bare = Bare(scale.path("bare"), step_bytes())
    bare.warm_up(scale)
    spans: list[float] = []
    bases: list[float] = []
    async with Engine(f"sqlite:///{scale.path('latency')}", workflows=WORKFLOWS) as engine:
        for number in range(scale.pick(110, 4)):
            await asyncio.sleep(IDLE_S)
            base = bare.commits(1)
            await asyncio.sleep(IDLE_S)
            began = time.perf_counter()
            handle = await engine.start(sequential, 1)
            await handle.result()
            if number >= scale.pick(10, 1):
                spans.append(time.perf_counter() - began)
                bases.append(base)
    bare.close()
    p50, base = statistics.median(spans) * 1000, statistics.median(bases) * 1000
    p95 = statistics.quantiles(spans, n=20)[-1] * 1000
    return [
        at_most("start → result of a one-step run, idle, p50", p50, "ms", 8.0, ratio=p50 / base, of="bare",
                note=f"p95 {p95:.2f} ms; a bare commit after the same pause: {base:.3f} ms"),
    ]  # fmt: skip


def run(scale: Scale) -> list[Figure]:
    """Start to result."""
    return run_async(measure(scale))
