"""The bare store: what one durable commit costs on this disk; everything else is a multiple of it.

The table has one row per commit and no index beside its key: the least a log on SQLite can do. WAL and
`synchronous=FULL`, as the engine uses, so every commit is one fdatasync.
"""

import sqlite3
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Raw

from refold.events.sqlite import SQLiteStore
from refold.events.store import Append, Unit
from refold.events.stream import Row, Tail, chain
from refold.events.types import Event, StepCompleted, StepScheduled, StepStarted
from refold.events.work import Work

from .harness import Figure, Scale, median_ratio

STREAM = "0197f1c2-7a52-7b1e-9d0e-5a5f0c3f8a11"
"""A run id as the engine makes them."""

WARM_UP = 1_500
"""Commits before measuring: past the first checkpoint (1,000 pages), after which SQLite overwrites its
WAL file in place. While that file still grows, a commit costs 1.8 times as much (0.53 against 0.29 ms)."""

BATCHES = (10, 100, 1000)


class Bare:
    """A file with one table, committing rows of a given size."""

    def __init__(self, path: Path, size: int, synchronous: str = "full") -> None:
        self.body = b"x" * size
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._execute = self._connection.execute
        self._execute("pragma journal_mode = wal")
        self._execute(f"pragma synchronous = {synchronous}")
        self._execute("create table if not exists log (position integer primary key, body blob)")

    def commits(self, count: int, rows: int = 1) -> float:
        """Seconds one commit of `rows` rows took, mean over `count` of them."""
        bodies = [(self.body,)] * rows
        execute, many = self._execute, self._connection.executemany
        began = time.perf_counter()
        for _ in range(count):
            execute("begin immediate")
            many("insert into log (body) values (?)", bodies)
            execute("commit")
        return (time.perf_counter() - began) / count

    def warm_up(self, scale: Scale) -> None:
        """Bring the file into the state of one that has been in use."""
        self.commits(scale.pick(WARM_UP, 5))

    def close(self) -> None:
        self._connection.close()


def row_bytes(rows: list[Row]) -> int:
    """Bytes a store must keep of these rows: everything a row says, and its hash."""
    return sum(len(r.stream) + len(r.tag) + len(r.state) + len(r.hash) + 8 for r in rows)


def step_events() -> list[Event]:
    """What one sequential step appends: the last one's completion, the next one's schedule and start."""
    common: dict[str, Any] = {"id": "0123456789abcdef-1f4", "at": datetime(2025, 1, 1, 12, 0, 0, 123456, UTC)}
    return [
        StepCompleted(step=499, result=Raw(b"499"), **common),
        StepScheduled(
            step=500, name="nothing", key="nothing#500", args=Raw(b"[500]"), after=(499,), task="m",
            site="workloads.py:30", iteration=499, **common,
        ),
        StepStarted(step=500, **common),
    ]  # fmt: skip


def step_bytes() -> int:
    """Bytes of the rows of one sequential step's append."""
    return row_bytes(chain(STREAM, Tail(), step_events())[0])


class OwnStore:
    """The engine's store without the engine: appending a step's rows and its row of `work`."""

    def __init__(self, path: Path) -> None:
        self._store = SQLiteStore(path)
        self._tail = Tail()
        self._events = step_events()

    def commits(self, count: int) -> float:
        """Seconds one step's append took, encoding and hashing included, mean over `count` of them."""
        work = Work(STREAM, "sequential", "1", "running", generation=1)
        began = time.perf_counter()
        for _ in range(count):
            expected = self._tail.version
            rows, self._tail = chain(STREAM, self._tail, self._events)
            if self._store.commit([Unit((Append(STREAM, expected, rows),), (work,))]) != [None]:
                raise RuntimeError("the store refused an append that fits")
        return (time.perf_counter() - began) / count

    def close(self) -> None:
        self._store.close()


def rounds(scale: Scale) -> dict[str, list[float]]:
    """Seconds a commit (or row) by kind, one value a round, the kinds taking turns."""
    size = step_bytes()
    stores = {mode: Bare(scale.path(f"bare-{mode}"), size, mode) for mode in ("full", "normal", "off")}
    stores["16 KiB"] = Bare(scale.path("bare-big"), 16_384)
    own = OwnStore(scale.path("own"))
    own.commits(scale.pick(WARM_UP, 5))
    for store in stores.values():
        store.warm_up(scale)
    times: dict[str, list[float]] = {}
    for _ in range(scale.pick(9, 2)):
        for name, store in stores.items():
            times.setdefault(name, []).append(store.commits(scale.pick(200, 5)))
        times.setdefault("own", []).append(own.commits(scale.pick(200, 5)))
        for rows in BATCHES:
            spans = times.setdefault(f"{rows}", [])
            spans.append(stores["full"].commits(scale.pick(2000 // rows, 2), rows) / rows)
    own.close()
    for store in stores.values():
        store.close()
    return times


def run(scale: Scale) -> list[Figure]:
    """One-row commits of a step's bytes, batches, our own store, and what weaker settings would cost."""
    times = rounds(scale)

    def figure(name: str, key: str, *, per_second: bool = False) -> Figure:
        middle, ratio = statistics.median(times[key]), median_ratio(times[key], times["full"])
        return Figure(
            name, 1 / middle if per_second else middle * 1000, "rows/s" if per_second else "ms", ratio=ratio
        )

    return [
        figure(f"bare commit: one row, {step_bytes()} bytes, WAL, FULL", "full"),
        figure("bare commit: one row of 16 KiB", "16 KiB"),
        figure("our store alone: append of one step", "own"),
        *(figure(f"bare rows, {rows} a commit", f"{rows}", per_second=True) for rows in BATCHES),
        figure("bare commit, synchronous=NORMAL (loses data)", "normal"),
        figure("bare commit, synchronous=OFF (loses data)", "off"),
    ]
