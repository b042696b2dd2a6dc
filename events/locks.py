"""Concurrency keys as the log has them: who holds one, and the messages that take and free it.

Each key is a stream whose last event alone says how it stands, so a look costs one row however often the
key was refused. That holds because a key is taken, or refused, only at the version that was looked at; it
is freed at any version, since nobody but its holder does that, in the append that ends the run.
"""

from datetime import datetime

from msgspec import Struct

from . import types as t
from .clock import new_event_id
from .errors import StartConflict
from .event import Event
from .registry import decode_event, encode_event
from .store import Post, Reading
from .stream import LOCKS, Row


class Lock(Struct, frozen=True):
    """How a concurrency key stands."""

    key: str
    holder: str = ""
    """The run that holds it; empty: nobody."""
    since: datetime | None = None
    """When that run took it."""
    workflow: str = ""
    """Of that run."""
    version: int = 0
    """Of its stream."""


def look_at(store: Reading, key: str) -> Lock:
    """How the key stands now."""
    version = store.tail(LOCKS + key).version
    return after(store.read(LOCKS + key, version - 1, 1)[0]) if version else Lock(key)


def after(row: Row) -> Lock:
    """How a key stands after this row of its stream."""
    key, event = row.stream.removeprefix(LOCKS), decode_event(row.tag, row.state, row)
    if isinstance(event, t.LockTaken):
        return Lock(key, event.run_id, event.at, event.workflow, row.version)
    if isinstance(event, t.LockRefused):
        return Lock(key, event.holder, event.since, event.holds, row.version)
    return Lock(key, version=row.version)


def taken(lock: Lock, run_id: str, started: t.RunStarted, cause: Event) -> Post:
    """Gives a free key to a run, unless anybody else has written to it since it was looked at."""
    event = t.LockTaken(
        run_id=run_id, workflow=started.workflow, id=new_event_id(), at=cause.at, by=cause.by, cause=cause.id,
        trace=started.trace,
    )  # fmt: skip
    return _post(lock.key, event, lock.version)


def freed(run_id: str, started: t.RunStarted, end: Event) -> tuple[Post, ...]:
    """What a run's last append says to the key that it held, if it held one."""
    if not started.lock:
        return ()
    event = t.LockFreed(
        run_id=run_id, id=new_event_id(), at=end.at, by=end.by, cause=end.id, trace=started.trace
    )
    return (_post(started.lock, event),)


def handed_on(run_id: str, next_run: str, started: t.RunStarted, end: Event) -> tuple[Post, ...]:
    """A run that goes on as another one leaves its key to that one, in one append."""
    free = freed(run_id, started, end)
    return free and (*free, taken(Lock(started.lock, version=-1), next_run, started, end))


def brought(lock: Lock, run_id: str, started: t.RunStarted, over: bool) -> tuple[Post, ...]:
    """What the key must be told of a run that came in from another log without the key's own stream.

    Raises `StartConflict` when another run holds the key here.
    """
    if over and lock.holder == run_id:
        return freed(run_id, started, started)
    if over or lock.holder == run_id:
        return ()
    if lock.holder:
        raise StartConflict(
            f"run {run_id!r} holds the lock {lock.key!r}, which run {lock.holder!r} holds here; nothing was "
            "stored: end one of the two first",
            lock.holder,
        )
    return (taken(lock, run_id, started, started),)


def refused(lock: Lock, run_id: str, workflow: str, at: datetime, by: str) -> Post:
    """Notes that a key could not be had, unless anybody has written to it since it was looked at."""
    assert lock.since is not None
    event = t.LockRefused(
        holder=lock.holder, since=lock.since, holds=lock.workflow, run_id=run_id, workflow=workflow,
        id=new_event_id(), at=at, by=by,
    )  # fmt: skip
    return _post(lock.key, event, lock.version)


def _post(key: str, event: Event, expected: int = -1) -> Post:
    return Post(LOCKS + key, event.TAG, encode_event(event), expected)
