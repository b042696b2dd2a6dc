"""D13. Which runs of queues may begin: every store against a model of a few lines."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.postgres import PostgresStore
from refold.events.postgres_address import in_schema
from refold.events.queues import Held, Turns
from refold.events.sqlite import SQLiteStore
from refold.events.store import Append, Unit
from refold.events.stream import QUEUES, chain
from refold.events.work import Work

NOW = 1_000.0
TAGS = ("", "gpu")


@dataclass(frozen=True)
class Limits:
    """Of one queue."""

    concurrency: int | None = None
    per_key: int | None = None
    rate: int | None = None
    period_s: float = 0.0


Claim = Callable[[float, int, Sequence[str]], list[str]]
"""Gives places at a time to at most so many runs, none of some; what it gave before is still held."""


def configured(store: MemoryStore | SQLiteStore | PostgresStore, queue: str, limits: Limits) -> None:
    tail = store.tail(QUEUES + queue)
    said = {name: getattr(limits, name) for name in ("concurrency", "per_key", "rate", "period_s")}
    event = t.QueueConfigured(**said, id=f"{queue}-{tail.version}", at=datetime.now(UTC))
    rows, _ = chain(QUEUES + queue, tail, [event])
    assert store.commit([Unit((Append(QUEUES + queue, tail.version, rows, tail.hash),))]) == [None]


# ---- the model ------------------------------------------------------------------------------------------


class Model:
    """Gives one place after the other, each time looking at everything."""

    def __init__(self, works: dict[str, Work], limits: dict[str, Limits]) -> None:
        self.works, self.limits = works, limits
        self.held: list[str] = []
        self.last: dict[str, str] = {}

    def claim(self, now: float, room: int, skip: Sequence[str]) -> list[str]:
        found: list[str] = []
        for queue in sorted(self.limits):
            while len(found) < room and (run := self._next(queue, now, skip)) is not None:
                found.append(run)
                self.held.append(run)
                self.last[queue] = self.works[run].queue_key
        return found

    def _next(self, queue: str, now: float, skip: Sequence[str]) -> str | None:
        limits, works = self.limits[queue], [w for w in self.works.values() if w.queue == queue]
        taken = [w for w in works if w.state in ("running", "waiting") or w.run_id in self.held]
        begun = [w for w in works if w.begun_at is not None and w.begun_at > now - limits.period_s]
        held = [w for w in works if w.run_id in self.held and w.begun_at is None]
        if limits.concurrency is not None and len(taken) >= limits.concurrency:
            return None
        if limits.rate is not None and len(begun) + len(held) >= limits.rate:
            return None

        def full(key: str) -> bool:
            return limits.per_key is not None and sum(w.queue_key == key for w in taken) >= limits.per_key

        ready = [
            w for w in works
            if w.state == "pending" and w.run_id not in (*self.held, *skip) and w.run_on in TAGS
            and w.due_at is not None and w.due_at <= now and not full(w.queue_key)
        ]  # fmt: skip
        last = self.last.get(queue)

        def turn(w: Work) -> tuple[object, ...]:
            behind = last is not None and w.queue_key <= last
            return (w.priority, behind, w.queue_key, w.due_at, w.run_id)

        return min(ready, key=turn).run_id if ready else None


# ---- the stores -----------------------------------------------------------------------------------------


def alone(store: MemoryStore | SQLiteStore) -> Claim:
    turns, held = Turns(store, store.queued), dict[str, Held]()

    def claim(now: float, room: int, skip: Sequence[str]) -> list[str]:
        places = turns.next(now, room, held, skip, TAGS)
        held.update(places.runs)
        return list(places.runs)

    return claim


def shared(store: PostgresStore) -> Claim:
    def claim(now: float, room: int, skip: Sequence[str]) -> list[str]:
        asked = {"now": now, "limit": room, "skip": list(skip), "tags": list(TAGS), "owner": "us"}
        given = store.leases._write("claim_queued", **asked)
        return [run for run, _ in given if run is not None]

    return claim


# ---- examples -------------------------------------------------------------------------------------------

limits_of_queues = st.builds(
    lambda concurrency, per_key, rate: Limits(concurrency, per_key, rate, 10.0 if rate else 0.0),
    st.sampled_from([None, None, 0, 1, 3, 6, 9]),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([None, None, 1, 3, 5]),
)
works_of_queues = st.lists(
    st.tuples(
        st.sampled_from(["a", "a", "b\\", "c"]),
        st.sampled_from([0, 0, 0, -1, 1]),
        st.sampled_from(["", "k", "l", "m"]),
        st.sampled_from(["", "", "", "", "gpu", "tpu"]),
        st.sampled_from([NOW - 9, NOW - 9, NOW - 1, NOW, NOW + 5, None]),
        st.sampled_from([*["pending"] * 12, "running", "waiting", "done"]),
        st.sampled_from([NOW - 20, NOW - 10, NOW - 9.5, NOW - 1, NOW]),
    ),
    min_size=12,
    max_size=24,
)
steps = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 5.0, 20.0]), st.integers(1, 8)), min_size=2, max_size=4)


def rows_of(shapes: list[tuple[str, int, str, str, float | None, str, float]]) -> dict[str, Work]:
    works = {}
    for number, (queue, priority, key, tag, due, state, begun) in enumerate(shapes):
        run, pending = f"run-{number:02}", state == "pending"
        works[run] = Work(
            run, "job", "1", state, due if pending else None, 0, 0, "completed" if state == "done" else "",
            queue, priority, key, tag, None if pending else begun,
        )  # fmt: skip
    return works


def agrees(
    store: MemoryStore | SQLiteStore | PostgresStore, claim: Claim, works: dict[str, Work],
    limits: dict[str, Limits], moments: list[tuple[float, int]],
) -> None:  # fmt: skip
    for queue, said in limits.items():
        configured(store, queue, said)
    store.rebuild_work([(work, 0) for work in works.values()])
    model, now = Model(works, limits), NOW
    for later, room in moments:
        now += later
        assert sorted(claim(now, room, ["run-00"])) == sorted(model.claim(now, room, ["run-00"])), now


Shapes = list[tuple[str, int, str, str, float | None, str, float]]
Moments = list[tuple[float, int]]
NAMES = ["a", "b\\", "c"]
queues = st.lists(limits_of_queues, min_size=3, max_size=3)
slow_to_make = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@settings(max_examples=40, deadline=None)
@given(shapes=works_of_queues, said=queues, declared=st.integers(2, 3), moments=steps)
def test_places_are_given_as_the_model_gives_them(
    shapes: Shapes, said: list[Limits], declared: int, moments: Moments
) -> None:
    store = MemoryStore()
    limits = dict(zip(NAMES[:declared], said, strict=False))  # nobody has declared the third, at times
    agrees(store, alone(store), rows_of(shapes), limits, moments)


@slow_to_make
@given(shapes=works_of_queues, said=queues, moments=steps)
def test_a_file_gives_them_in_the_same_way(
    file: SQLiteStore, shapes: Shapes, said: list[Limits], moments: Moments
) -> None:
    agrees(file, alone(file), rows_of(shapes), dict(zip(NAMES, said, strict=True)), moments)


@slow_to_make
@given(shapes=works_of_queues, said=queues, moments=steps)
def test_the_database_gives_them_in_the_same_way(
    database: PostgresStore, shapes: Shapes, said: list[Limits], moments: Moments
) -> None:
    server = database._server
    with server.lock:  # whose turn it was in the example before
        server.writer().execute(in_schema("DELETE FROM refold.turns", server.address.schema))
    agrees(database, shared(database), rows_of(shapes), dict(zip(NAMES, said, strict=True)), moments)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "log.db")
    yield store
    store.close()


@pytest.fixture
def database(postgres: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres)
    try:
        store.leases.join("us", 600.0)
        yield store
    finally:
        store.close()
