"""Many short runs: 2,000 of five steps, 200 in flight, one process, projections caught up at the end (W2)."""

import asyncio
import statistics
import time

from refold import Engine

from .bare import Bare, step_bytes
from .harness import Figure, Scale, at_least, run_async
from .workloads import WORKFLOWS, sequential

STEPS = 5
IN_FLIGHT = 200


async def many_runs(url: str, runs: int, steps: int, in_flight: int) -> float:
    """Steps a second from the first start to the last result with the read models caught up."""
    async with Engine(url, workflows=WORKFLOWS) as engine:
        numbers = iter(range(runs))

        async def client() -> None:
            for number in numbers:
                handle = await engine.start(sequential, steps, id=f"run-{number}")
                await handle.result()

        await (await engine.start(sequential, 1, id="warm-up")).result()
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(in_flight)))
        await engine.projections.wait()
        return runs * steps / (time.perf_counter() - began)


async def measure(scale: Scale) -> list[Figure]:
    bare = Bare(scale.path("bare"), step_bytes())
    bare.warm_up(scale)
    rates, bases = [], []
    for _ in range(scale.pick(5, 1)):
        bases.append(bare.commits(scale.pick(300, 5)))
        rates.append(
            await many_runs(f"sqlite:///{scale.path('runs')}", scale.pick(2000, 20), STEPS, IN_FLIGHT)
        )
    bare.close()
    rate = statistics.median(rates)
    share = 1 / rate / statistics.median(bases)
    return [
        at_least("2,000 runs of 5 steps, 200 in flight", rate, "steps/s", 5_000,
                 note=f"one step = {share:.2f} bare commits; stretch 15,000"),
    ]  # fmt: skip


def run(scale: Scale) -> list[Figure]:
    """Throughput of many short runs."""
    return run_async(measure(scale))
