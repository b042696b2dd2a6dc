"""From `start()` in one process to the beginning of the first step in another, both idle before."""

import asyncio
import statistics
import time

from refold import Engine

from ..harness import Figure, Scale, at_most, run_async
from ..latency import IDLE_S
from ..workloads import WORKFLOWS, clock
from .place import Bare, log_url
from .workers import Crew, refold_worker


async def measure(scale: Scale, dsn: str) -> list[Figure]:
    url = log_url(dsn, "latency")
    bare = Bare(scale, dsn)
    spans: list[float] = []
    bases: list[float] = []
    async with Engine(url, workflows=WORKFLOWS, execute=False) as engine:
        with Crew(refold_worker(url, views=True), 1) as crew:
            crew.begin()
            await (await engine.start(clock)).result()
            for number in range(scale.pick(110, 4)):
                await asyncio.sleep(IDLE_S)
                base = bare.commits(1)
                await asyncio.sleep(IDLE_S)
                began = time.monotonic()
                handle = await engine.start(clock)
                first_step = await handle.result()
                if number >= scale.pick(10, 1):
                    spans.append(first_step - began)
                    bases.append(base)
            crew.stop()
    bare.close()
    p50, base = statistics.median(spans) * 1000, statistics.median(bases) * 1000
    p95 = statistics.quantiles(spans, n=20)[-1] * 1000
    return [
        at_most("start in one process → first step in another, idle, p50", p50, "ms", 15.0,
                note=f"p95 {p95:.2f} ms; {p50 / base:.1f} bare commits after the same pause ({base:.3f} ms)"),
    ]  # fmt: skip


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Latency between processes."""
    return run_async(measure(scale, dsn))
