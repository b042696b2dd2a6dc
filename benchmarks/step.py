"""One step after another in one run (W1), effectful and pure, as multiples of a bare commit."""

import statistics
import time

from refold import Engine, Workflow

from .bare import Bare, step_bytes
from .harness import Figure, Scale, at_most, median_ratio, run_async
from .workloads import WORKFLOWS, sequential, sequential_pure


async def timed(engine: Engine, program: Workflow[..., int], steps: int) -> float:
    """Seconds a step, from start to result, the read models caught up at the end."""
    began = time.perf_counter()
    handle = await engine.start(program, steps)
    await handle.result()
    await engine.projections.wait()
    return (time.perf_counter() - began) / steps


async def measure(scale: Scale) -> list[Figure]:
    size = step_bytes()
    bare = Bare(scale.path("bare"), size)
    bare.warm_up(scale)
    bases: list[float] = []
    effectful: list[float] = []
    pure: list[float] = []
    async with Engine(f"sqlite:///{scale.path('step')}", workflows=WORKFLOWS) as engine:
        await timed(engine, sequential, scale.pick(500, 3))
        for _ in range(scale.pick(9, 2)):
            bases.append(bare.commits(scale.pick(500, 5)))
            effectful.append(await timed(engine, sequential, scale.pick(1000, 5)))
            bases.append(bare.commits(scale.pick(500, 5)))
            pure.append(await timed(engine, sequential_pure, scale.pick(4000, 5)))
    bare.close()
    base = statistics.median(bases) * 1000
    return [
        at_most("sequential step, projections on", statistics.median(effectful) * 1000, "ms", 2.0,
                ratio=median_ratio(effectful, bases[::2]), of="bare",
                note=f"bare commit of the same {size} bytes: {base:.3f} ms; stretch 1.3"),
        at_most("sequential pure step, projections on", statistics.median(pure) * 1000, "ms", 0.25,
                ratio=median_ratio(pure, bases[1::2]), of="bare"),
    ]  # fmt: skip


def run(scale: Scale) -> list[Figure]:
    """Sequential steps."""
    return run_async(measure(scale))
