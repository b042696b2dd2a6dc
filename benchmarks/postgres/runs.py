"""Many short runs in one process on PostgreSQL: 2,000 of five steps, 200 in flight."""

import asyncio
import statistics
import time

from refold import Engine, Settings

from ..harness import Figure, Scale, at_least, run_async
from ..workloads import WORKFLOWS, sequential
from .place import Split, log_url

STEPS = 5
IN_FLIGHT = 200


async def many_runs(url: str, runs: int, split: Split, *, views: bool) -> float:
    """Steps a second from the first start to the last result."""
    async with Engine(url, workflows=WORKFLOWS, settings=Settings(projections=views)) as engine:
        numbers = iter(range(runs))

        async def client() -> None:
            for number in numbers:
                handle = await engine.start(sequential, STEPS, id=f"run-{number}")
                await handle.result()

        await (await engine.start(sequential, 1, id="warm-up")).result()
        with split.counted():
            began = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
            if views:
                await engine.projections.wait()
            return runs * STEPS / (time.perf_counter() - began)


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Throughput of many short runs, with and without the read models."""
    runs, rounds = scale.pick(2000, 20), scale.pick(3, 1)
    figures = []
    for views in (False, True):
        split, rates = Split(dsn), []
        for number in range(rounds):
            url = log_url(dsn, f"runs_{number}_{'with' if views else 'without'}")
            rates.append(run_async(many_runs(url, runs, split, views=views)))
        figures.append(
            at_least(
                f"2,000 runs of {STEPS} steps, {IN_FLIGHT} in flight, read models {'on' if views else 'off'}",
                statistics.median(rates), "steps/s", 4_000,
                note=f"processor: {split.text(rounds * runs * STEPS)} a step",
            )
        )  # fmt: skip
    return figures
