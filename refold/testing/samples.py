"""Real events and rows of `work` to feed a store with."""

from datetime import UTC, datetime

from msgspec import Raw

from ..events.registry import encode_event
from ..events.store import Append, Post, Store
from ..events.stream import Row, Tail, chain
from ..events.types import SignalSent, StepStarted
from ..events.work import Work

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def sample_rows(stream: str, count: int, tail: Tail = Tail()) -> list[Row]:  # noqa: B008 - immutable
    """`count` real events for `stream`, following `tail`."""
    first = tail.version + 1
    events = [StepStarted(id=f"{stream}-{v}", at=_AT, step=v) for v in range(first, first + count)]
    return chain(stream, tail, events)[0]


def sample_append(store: Store, stream: str, count: int = 1) -> Append:
    """An append to `stream` as it stands now."""
    tail = store.tail(stream)
    return Append(stream, tail.version, sample_rows(stream, count, tail))


def sample_post(run_id: str, name: str = "word", expected: int = -1) -> Post:
    """A message for a run's inbox."""
    event = SignalSent(id=f"{run_id}-{name}", at=_AT, name=name, payload=Raw(b"1"))
    return Post(run_id, event.TAG, encode_event(event), expected)


def sample_work(run_id: str, state: str = "running", due_at: float | None = None, seen: int = 0) -> Work:
    """A row of `work`."""
    return Work(run_id, "shop", "2", state, due_at, seen, 1, "completed" if state == "done" else "")
