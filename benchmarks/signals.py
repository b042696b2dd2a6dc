"""From a signal in one process to the handler of an idle run in another."""

import asyncio
import statistics
import sys
import time

from refold import Context, Engine, step, workflow

from .harness import Figure, Scale, at_most, run_async

PAUSE_S = 0.05
"""Between two signals: the run and its engine are idle again."""


@step(pure=True)
async def note(sent_s: float) -> float:
    """Seconds since the signal was sent, on the clock that all processes of a machine share."""
    return time.monotonic() - sent_s


@workflow
async def listens(ctx: Context, count: int) -> list[float]:
    return [await note(await ctx.wait_for_event("ping")) for _ in range(count)]


async def send(url: str, count: int) -> None:
    """The other process."""
    async with Engine(url, execute=False) as engine:
        for number in range(count):
            # Not in step with the poll of the other process: that would measure one phase of it.
            await asyncio.sleep(PAUSE_S + 0.001 * (number * 7 % 40))
            await engine.signal("run", "ping", time.monotonic())


async def measure(scale: Scale) -> list[Figure]:
    url, count = f"sqlite:///{scale.path('signals')}", scale.pick(150, 3)
    async with Engine(url, workflows=[listens]) as engine:
        handle = await engine.start(listens, count, id="run")
        command = [sys.executable, "-m", "benchmarks.signals", url, str(count)]
        sender = await asyncio.create_subprocess_exec(*command)
        spans = await handle.result(120)
        await sender.wait()
    p50 = statistics.median(spans) * 1000
    p95 = statistics.quantiles(spans, n=20)[-1] * 1000
    return [at_most("signal from another process → handler of an idle run, p50", p50, "ms", 25.0,
                  note=f"p95 {p95:.1f} ms; the result of a first step is in it")]  # fmt: skip


def run(scale: Scale) -> list[Figure]:
    """Signal to handler."""
    return run_async(measure(scale))


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], int(sys.argv[2])))
