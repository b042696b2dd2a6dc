"""A fresh process takes up a run of many completed steps: load, decode, check, replay (W4)."""

import asyncio
import statistics
import time

from refold import Engine

from .harness import Figure, Scale, at_least, fresh, run_async
from .workloads import WORKFLOWS, suspended, then_wait


async def prepare(url: str, steps: int) -> None:
    """A run with that many completed steps, waiting for `go`."""
    async with Engine(url, workflows=WORKFLOWS) as engine:
        handle = await engine.start(then_wait, steps, id="long")
        await suspended(engine, [handle.id])
        await engine.projections.wait()


def child(url: str) -> dict[str, float]:
    """Seconds from opening the store to the run's result: claim, replay, one signal, two commits."""

    async def take_up() -> float:
        began = time.perf_counter()
        async with Engine(url, workflows=WORKFLOWS) as engine:
            handle = await engine.get("long")
            await handle.signal("go", None)
            await handle.result()
            return time.perf_counter() - began

    return {"seconds": asyncio.run(take_up())}


def run(scale: Scale) -> list[Figure]:
    """Replay of 10,000 and of 100,000 steps."""
    rates: dict[int, float] = {}
    for steps, times in ((scale.pick(10_000, 50), 5), (scale.pick(100_000, 100), 3)):
        spans = []
        for _ in range(scale.pick(times, 1)):
            url = f"sqlite:///{scale.path('replay')}"
            run_async(prepare(url, steps))
            spans.append(fresh("benchmarks.replay", url=url)["seconds"])
        rates[steps] = steps / statistics.median(spans)
    short, long = rates.values()
    return [
        at_least("replay of 10,000 steps, fresh process, loading included", short, "steps/s", 50_000),
        at_least("replay of 100,000 steps: linear", long, "steps/s", 0.8, ratio=long / short, of="10,000"),
    ]
