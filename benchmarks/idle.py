"""10,000 sleeping runs: how long a fresh process takes to start, and what it burns while idle."""

import asyncio
import os
import time

from refold import Engine

from .harness import Figure, Scale, at_most, fresh, run_async
from .workloads import WORKFLOWS, sleeper, suspended

DAY_S = 86_400.0


async def prepare(url: str, runs: int) -> None:
    """Runs that all sleep for a day."""
    async with Engine(url, workflows=WORKFLOWS) as engine:
        handles = await asyncio.gather(*(engine.start(sleeper, DAY_S) for _ in range(runs)))
        await suspended(engine, [handle.id for handle in handles])
        await engine.projections.wait()


def child(url: str, seconds: float) -> dict[str, float]:
    """Seconds to open the engine; then the share of one core used while idle."""

    async def rest() -> dict[str, float]:
        began = time.perf_counter()
        async with Engine(url, workflows=WORKFLOWS):
            opened = time.perf_counter() - began
            await asyncio.sleep(min(1.0, seconds))
            before, cpu = time.perf_counter(), sum(os.times()[:4])
            await asyncio.sleep(seconds)
            burnt = sum(os.times()[:4]) - cpu
            return {"start": opened, "cpu": burnt / (time.perf_counter() - before)}

    return asyncio.run(rest())


def run(scale: Scale) -> list[Figure]:
    """Start-up and idle CPU."""
    url = f"sqlite:///{scale.path('idle')}"
    run_async(prepare(url, scale.pick(10_000, 30)))
    answer = fresh("benchmarks.idle", url=url, seconds=scale.pick(15, 0))
    return [
        at_most("start-up with 10,000 sleeping runs", answer["start"], "s", 1.0),
        at_most("idle CPU with 10,000 sleeping runs", answer["cpu"] * 100, "%", 1.0),
    ]
