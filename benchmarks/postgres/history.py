"""One run's history of 10,000 events, read and decoded."""

import statistics
import time

from refold import Engine
from refold.events.store import Append, Unit, read_rows
from refold.events.stream import Tail, chain

from ..bare import STREAM, step_events
from ..harness import Figure, Scale, at_most, run_async
from ..workloads import WORKFLOWS
from .place import log_url


async def measure(scale: Scale, dsn: str) -> list[Figure]:
    events = scale.pick(10_000, 30)
    async with Engine(log_url(dsn, "history"), workflows=WORKFLOWS, execute=False) as engine:
        tail = Tail()
        while tail.version < events:
            expected = tail.version
            rows, tail = chain(STREAM, tail, step_events() * 5)
            engine.store.commit([Unit((Append(STREAM, expected, rows),))])
        read, decoded = [], []
        read_rows(engine.store, STREAM)
        for _ in range(scale.pick(15, 2)):
            began = time.perf_counter()
            read_rows(engine.store, STREAM, 0, events)
            read.append(time.perf_counter() - began)
            began = time.perf_counter()
            engine.events(STREAM)
            decoded.append(time.perf_counter() - began)
    return [
        at_most("history of 10,000 events, read", statistics.median(read) * 1000, "ms", 50.0),
        Figure("the same, decoded to events", statistics.median(decoded) * 1000, "ms"),
    ]


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Reading one run."""
    return run_async(measure(scale, dsn))
