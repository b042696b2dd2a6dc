"""All read models folded anew from a log on a server, and what that costs without writing them."""

import statistics
import time

from refold import Engine
from refold.projections.core import CORE
from refold.projections.runner import Runner
from refold.projections.views_sqlite import SqliteViews

from ..harness import Figure, Scale, at_least, run_async
from ..step import timed
from ..workloads import WORKFLOWS, sequential_pure
from .place import log_url


async def measure(scale: Scale, dsn: str) -> list[Figure]:
    async with Engine(log_url(dsn, "rebuild"), workflows=WORKFLOWS) as engine:
        for _ in range(scale.pick(70, 2)):
            await timed(engine, sequential_pure, scale.pick(500, 5))
        there: list[float] = []
        here: list[float] = []
        events = 0
        for _ in range(scale.pick(3, 1)):
            began = time.perf_counter()
            events = engine.projections.rebuild()
            between = time.perf_counter()
            views = SqliteViews(None)
            runner = Runner(engine.store, views, CORE)
            while runner.catch_up(5_000):
                pass
            views.close()
            there.append(between - began)
            here.append(time.perf_counter() - between)
    return [
        at_least("projection rebuild, all read models", events / statistics.median(there), "events/s", 40_000,
                 note=f"{events:,} events"),
        Figure("the same log into SQLite in memory", events / statistics.median(here), "events/s"),
    ]  # fmt: skip


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Rebuild."""
    return run_async(measure(scale, dsn))
