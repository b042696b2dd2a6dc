"""Runs that went on as others: what is said to the first of them reaches the last."""

from collections.abc import Iterable
from typing import Any

from msgspec import structs

from ..events import types as t
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.registry import decode_event
from ..events.store import Append, Post, Store, Unit
from ..events.stream import INBOX, Row, Tail, chain
from ..events.types import Event
from ..events.work import Work

PAGE = 50
"""Rows at the end of a stream among which its end is looked for first: few facts follow it."""
ABOUT_THE_RUN = frozenset({"terminate", "pause", "resume", "compensate", "attributes"})
"""Acts that mean the run, whichever it is by now; the others mean a step of the one they were sent to."""


def posts(rows: Iterable[Row], next_run: str) -> tuple[Post, ...]:
    """Of the messages that a run has not received, those that go along to the run that continues it.

    Not votes, nor ends of children: their numbers mean something else there.
    """
    return tuple(Post(next_run, row.tag, row.state) for row in rows if _goes_along(row))


def _goes_along(row: Row) -> bool:
    if row.tag == t.RequestSent.TAG:
        request = decode_event(row.tag, row.state, row)
        return isinstance(request, t.RequestSent) and request.verb in ABOUT_THE_RUN
    return row.tag in (t.SignalSent.TAG, t.CancelSent.TAG)


def left_behind(store: Store, clock: Clock, work: Work) -> Unit | None:
    """What brings messages that came just after a run had gone on to where it is now; None: there are none.

    Any process may store it; of two at once one is refused, so that no message arrives twice.
    """
    rows = store.read(work.run_id + INBOX, work.seen)
    if not rows:
        return None
    end, tail, last = _end_of(store, work.run_id)
    at = max(to_datetime(clock.now()), last.at)
    note = t.InboxSkipped(
        inbox=rows[-1].version,
        reason=f"went along to {end.next_run}",
        id=new_event_id(),
        at=at,
        trace=end.trace,
    )
    noted, _ = chain(work.run_id, tail, [note])
    append = Append(work.run_id, tail.version, noted, tail.hash)
    return Unit((append,), (structs.replace(work, seen=rows[-1].version),), posts(rows, end.next_run))


def next_run(store: Store, run_id: str) -> str:
    """The run that continues this one, which has ended so."""
    return _end_of(store, run_id)[0].next_run


def _end_of(store: Store, run_id: str) -> tuple[t.RunContinued, Tail, Event]:
    """The end of a run that went on, its stream's tail and its last event."""
    version = store.tail(run_id).version
    for first in (max(0, version - PAGE), 0):
        rows = store.read(run_id, first)
        for row in reversed(rows):
            if row.tag == t.RunContinued.TAG:
                end: Any = decode_event(row.tag, row.state, row)
                last = decode_event(rows[-1].tag, rows[-1].state, rows[-1])
                return end, Tail(rows[-1].version, rows[-1].hash), last
    raise AssertionError(f"run {run_id} has not gone on as another one")
