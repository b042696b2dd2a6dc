"""`timers`: one row per timer, a sleep or a deadline."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w
from .ends import END_TAGS, left_open
from .projection import Events, Index, Key, Scope, Table, column, table
from .reading import utc
from .vocabulary import events


class TimerRow(Struct, gc=False):
    """A row of `timers`."""

    run_id: Annotated[str, column("The run.")]
    timer: Annotated[int, column("Its number among the commands of the run.")]
    due_at: Annotated[str, column("When it is, or was, due.")] = ""
    status: Annotated[
        str,
        column(
            "`open`, `fired`, `cancelled` (what it was a deadline for ended before) or `ended` (the run did)."
        ),
    ] = "open"
    started_at: Annotated[str, column("When it was started.")] = ""
    closed_at: Annotated[str | None, column("When it was no longer open.")] = None


class Timers:
    """`timers`: the open ones that are due are one indexed query."""

    name = "timers"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"timer.started"})
    events: Events = events(*END_TAGS, "timer.started", "timer.fired", "timer.cancelled", "run.rewound")
    table: Table = table(
        "timers",
        TimerRow,
        key=("run_id", "timer"),
        indexes=(Index(("due_at", "run_id", "timer"), "status = 'open'"),),
        narrow=True,
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        if isinstance(event, w.TimerStarted | w.TimerEnded):
            return ((entry.stream, event.timer),)
        if isinstance(event, r.RunRewound):
            return [(entry.stream, number) for number in (*event.dropped, *event.timers)]
        return left_open(entry, event)

    def fold(self, rows: list[TimerRow | None], entry: Entry, event: Any) -> Sequence[TimerRow | None]:
        if isinstance(event, w.TimerStarted):
            return (TimerRow(entry.stream, event.timer, utc(event.due_at), "open", utc(event.at)),)
        if isinstance(event, r.RunRewound):
            return [_rewound(row, event) for row in rows]
        word = _WORDS.get(entry.tag, "ended")
        for row in rows:
            if row is not None:
                row.status, row.closed_at = word, utc(event.at)
        return rows


_WORDS = MappingProxyType({"timer.fired": "fired", "timer.cancelled": "cancelled"})


def _rewound(row: TimerRow | None, event: r.RunRewound) -> TimerRow | None:
    """One that never was is gone; the others are open again."""
    if row is None or row.timer not in event.timers:
        return None
    row.status, row.closed_at, row.due_at = "open", None, utc(event.timers[row.timer])
    return row


TIMERS = Timers()
