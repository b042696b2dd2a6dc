"""Concurrency keys as the log has them: who holds one, and the messages that take and free it.

A key is taken only at the version of its stream that was looked at. It is freed at any version: nobody but
its holder does that, in the append that ends the run. It is refused at any version, too, for else of many who
are refused at once all but one would have to look again. So a refusal may come to stand behind what happened
since its author looked. But a run that has a key holds it until it ends: if the run that a refusal names has
not ended, it is the holder, and a look costs one row, however often the key was refused.
"""

from datetime import datetime

from msgspec import Struct, structs

from . import types as t
from .clock import new_event_id
from .errors import StartConflict
from .event import Event
from .registry import decode_event, encode_event
from .store import Post, Reading
from .stream import LOCKS, Row

PAGE = 100
"""Rows of a stream that are looked through at a time for the last that is no refusal."""


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
    """How the key stands now, from the end of its stream."""
    version = before = store.tail(LOCKS + key).version
    gone: set[str] = set()
    while before:
        first = max(0, before - (PAGE if gone else 1))
        for row in reversed(store.read(LOCKS + key, first, before - first)):
            event = decode_event(row.tag, row.state, row)
            if not isinstance(event, t.LockRefused):
                return after(row, Lock(key, version=version))
            if event.holder in gone:
                continue
            work = store.work(event.holder)
            if work is not None and work.state != "done":
                return Lock(key, event.holder, event.since, event.holds, version)
            gone.add(
                event.holder
            )  # it was held when somebody looked; what has come since then is before that
        before = first
    return Lock(key, version=version)


def after(row: Row, lock: Lock) -> Lock:
    """How a key that stood so stands after a row of its stream."""
    event, version = decode_event(row.tag, row.state, row), max(row.version, lock.version)
    if isinstance(event, t.LockTaken):
        return Lock(lock.key, event.run_id, event.at, event.workflow, version)
    if isinstance(event, t.LockFreed):
        return Lock(lock.key, version=version)
    return structs.replace(lock, version=version)


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
    """Notes that a key could not be had when it was looked at."""
    assert lock.since is not None
    event = t.LockRefused(
        holder=lock.holder, since=lock.since, holds=lock.workflow, run_id=run_id, workflow=workflow,
        id=new_event_id(), at=at, by=by,
    )  # fmt: skip
    return _post(lock.key, event)


def _post(key: str, event: Event, expected: int = -1) -> Post:
    return Post(LOCKS + key, event.TAG, encode_event(event), expected)
