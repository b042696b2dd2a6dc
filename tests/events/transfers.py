"""A small log with all that a log can have, for the tests of moving logs."""

from datetime import UTC, datetime
from hashlib import sha256

from msgspec import Raw

from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.store import Append, Store, Unit
from refold.events.stream import Row, chain
from refold.events.transfer import export_log
from refold.events.types import Event
from refold.events.work import Work, WorkFold

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
BIG = b'"' + b"x" * 300_000 + b'"'
DIGEST = sha256(BIG).hexdigest()


def started(id: str = "s", key: str = "") -> Event:
    return t.RunStarted(
        id=id, at=AT, workflow="shop", workflow_version="1", args=Raw(b"[1]"), seed=1, key=key
    )


def scheduled(step: int, args: bytes = b"[]") -> Event:
    return t.StepScheduled(id=f"s{step}", at=AT, step=step, name="pay", key=f"pay#{step}", args=Raw(args))


def put(store: Store, stream: str, *events: Event) -> None:
    """Append events, and the row of `work` that they come to when it is a run's stream."""
    tail = store.tail(stream)
    works: tuple[Work, ...] = ()
    if "/" not in stream:
        fold = WorkFold(stream)
        for event in [*(row.event() for row in store.read(stream)), *events]:
            fold.apply(event)
        works = (fold.row(),)
    unit = Unit((Append(stream, tail.version, chain(stream, tail, events)[0]),), works)
    assert store.commit([unit]) == [None]


def mail(n: int) -> Event:
    return t.SignalSent(id=f"m{n}", at=AT, name="word", payload=Raw(b"%d" % n))


def sample() -> MemoryStore:
    """Two runs whose events alternate, one of them a child; an inbox, a start key, a large value."""
    store = MemoryStore()
    put(store, "a", started(key="k"))
    put(store, "key/k", t.KeyTaken(id="k1", at=AT, run_id="a", digest="d"))
    put(store, "a/inbox", mail(1))
    child = t.ChildStarted(id="c", at=AT, child=1, run_id="b", workflow="shop", version="1", args=Raw(b"[]"))
    put(store, "a", scheduled(1), child)
    put(store, "b", started())
    put(store, "a", scheduled(2, b'{"$blob":"%b","size":%d}' % (DIGEST.encode(), len(BIG))))
    put(store, "b", scheduled(1))
    store.commit([Unit(blobs=((DIGEST, BIG),))])
    return store


def exported(store: Store, runs: list[str] | None = None) -> list[bytes]:
    return [line.encode() for line in export_log(store, runs)]


def contents(store: Store) -> tuple[list[Row], list[object], dict[str, bytes]]:
    """All there is."""
    return store.scan(0, 10_000), [*store.all_work()], {d: store.blob(d) for d in store.blobs()}
