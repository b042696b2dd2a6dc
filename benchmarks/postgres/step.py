"""One step after another in one run on PostgreSQL, as multiples of a bare INSERT with its COMMIT."""

import statistics

from refold import Engine, Settings

from ..harness import Figure, Scale, at_most, median_ratio, run_async
from ..step import timed
from ..workloads import WORKFLOWS, sequential, sequential_pure
from .place import Bare, Split, log_url

WITHOUT_VIEWS = Settings(projections=False)


async def measure(scale: Scale, dsn: str) -> list[Figure]:
    bare = Bare(scale, dsn)
    bases: list[float] = []
    effectful: list[float] = []
    pure: list[float] = []
    split = Split(dsn)
    steps, rounds = scale.pick(500, 5), scale.pick(9, 2)
    async with Engine(log_url(dsn, "step"), workflows=WORKFLOWS, settings=WITHOUT_VIEWS) as engine:
        await timed(engine, sequential, scale.pick(300, 3))
        for _ in range(rounds):
            bases.append(bare.commits(scale.pick(300, 5)))
            with split.counted():
                effectful.append(await timed(engine, sequential, steps))
            bases.append(bare.commits(scale.pick(300, 5)))
            pure.append(await timed(engine, sequential_pure, scale.pick(2000, 5)))
    bare.close()
    base = statistics.median(bases) * 1000
    return [
        at_most("sequential step", statistics.median(effectful) * 1000, "ms", 2.0,
                ratio=median_ratio(effectful, bases[::2]), of="bare",
                note=f"bare INSERT and COMMIT of the same bytes: {base:.3f} ms; stretch 1.3; "
                f"processor: {split.text(rounds * steps)} a step"),
        at_most("sequential pure step", statistics.median(pure) * 1000, "ms", 0.25,
                ratio=median_ratio(pure, bases[1::2]), of="bare"),
    ]  # fmt: skip


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Sequential steps."""
    return run_async(measure(scale, dsn))
