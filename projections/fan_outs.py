"""`fan_outs`: one row per `map`, with how many of its items stand how."""

from bisect import bisect_left
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w
from .ends import END_TAGS
from .fan_out_rows import FanOutRow
from .projection import Events, Key, Look, Scope, Table, Value, table
from .reading import utc
from .run_waits import FAILED
from .vocabulary import events

PENDING, RUNNING, COMPLETED, FAILED_, SKIPPED, CANCELLED, UNBEGUN = b"prcfsxu"
"""How an item stands; the last: not begun when the map ended."""
_COUNTED = ("pending", "running", "completed", "failed", "skipped", "cancelled")
ITEM_TAGS = (
    "step.completed", "step.failed", "step.skipped", "step.cancelled", "child.ended", "child.cancelled",
)  # fmt: skip
"""Events that end an item, when they are about one."""
EVENTS: Events = events(
    *END_TAGS,
    "fan_out.opened",
    "fan_out.closed",
    "step.scheduled",
    "child.started",
    "run.rewound",
    *ITEM_TAGS,
)
"""What maps and their items follow from."""


def state_of(tag: str, event: Any) -> int:
    """How an item stands after one of these."""
    if tag == "child.ended":
        return COMPLETED if event.status == "completed" else FAILED_ if event.status in FAILED else CANCELLED
    return _AFTER[tag]


_AFTER = {
    "step.completed": COMPLETED, "step.failed": FAILED_, "step.skipped": SKIPPED,
    "step.cancelled": CANCELLED, "child.cancelled": CANCELLED,
}  # fmt: skip


class _Row(FanOutRow, gc=False):
    live: bytearray = msgspec.field(default_factory=bytearray)
    """A letter per item: an event changes one of 10,000 without touching the others."""


def _load(values: Sequence[Any]) -> _Row:
    row = _Row(*values)
    row.live = bytearray(row.states)
    return row


def _dump(row: _Row) -> tuple[Value, ...]:
    states = row.states = bytes(row.live)
    for letter, name in zip(b"prcfsx", _COUNTED, strict=True):
        setattr(row, name, states.count(letter))
    row.cancelled += states.count(UNBEGUN)
    return msgspec.structs.astuple(row)[:-1]


# ---- which rows ------------------------------------------------------------------------------------------


def number_of(event: Any) -> int:
    """The number that an event of a step or a child is about."""
    return event.child if isinstance(event, w.ChildEnded | w.ChildCancelled) else int(event.step)


def _of_run(look: Look, run_id: str) -> list[int]:
    """Numbers of a run's fan-outs, in order."""
    known: list[int] | None = look.notes.get(run_id)
    if known is None:
        known = look.notes[run_id] = [key[1] for key in look.keys(run_id)]
    return known


def _opened(look: Look, entry: Entry, event: w.FanOutOpened) -> Sequence[Key]:
    _of_run(look, entry.stream).append(event.fan_out)
    return ((entry.stream, event.fan_out),)


def _of_an_item(look: Look, entry: Entry, event: Any) -> Sequence[Key]:
    known = look.notes.get(entry.stream)
    if known is None:
        known = _of_run(look, entry.stream)
    if not known:
        return ()
    number = number_of(event)
    place = bisect_left(known, number) - 1
    if place < 0:
        return ()
    key = (entry.stream, known[place])
    row = look.row(key)
    return (key,) if row is not None and number <= known[place] + row.total else ()


def _ended(look: Look, entry: Entry, event: r.RunEnded) -> Sequence[Key]:
    keys = [(entry.stream, number) for number in _of_run(look, entry.stream)]
    return [key for key in keys if look.row(key).closed_at is None]


def _rewound(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    known = _of_run(look, entry.stream)
    keys = [(entry.stream, number) for number in known]
    known[:] = [number for number in known if number not in event.dropped]
    return keys


# ---- what becomes of them --------------------------------------------------------------------------------


def _new(entry: Entry, event: w.FanOutOpened) -> _Row:
    row = _Row(entry.stream, event.fan_out, event.name, event.count, at_once=event.limit)
    row.opened_at, row.task, row.site = utc(event.at), event.task, event.site
    row.live = bytearray([PENDING]) * event.count
    for place in event.skipped:
        row.live[place] = SKIPPED
    _close_when_done(row, entry, event)
    return row


def _close_when_done(row: _Row, entry: Entry, event: r.Seen) -> None:
    """A map whose items have all ended says nothing more."""
    if PENDING not in row.live and RUNNING not in row.live:
        row.closed_at, row.closed_version = utc(event.at), entry.version


def _close(row: _Row, entry: Entry, event: r.Seen) -> None:
    if row.closed_at is None:
        row.closed_at, row.closed_version = utc(event.at), entry.version
    row.live = row.live.replace(b"p", b"u").replace(b"r", b"x")


def _take_back(row: _Row, event: r.RunRewound) -> _Row | None:
    if row.fan_out in event.dropped:
        return None
    if row.closed_version > event.to:
        row.closed_at, row.closed_version = None, 0
        row.live = row.live.replace(b"u", b"p")
    for numbers, letter in ((event.dropped, PENDING), (event.steps, RUNNING), (event.children, RUNNING)):
        for number in numbers:
            if row.fan_out < number <= row.fan_out + row.total:
                row.live[number - row.fan_out - 1] = letter
    return row


class FanOuts:
    """`fan_outs`: its totals are counts of `fan_out_items`, kept as a letter per item."""

    name = "fan_outs"
    version = 1
    scope: Scope = "runs"
    creates = first = frozenset({"fan_out.opened"})
    events: Events = EVENTS
    finds = MappingProxyType(
        {
            "fan_out.opened": _opened,
            "run.rewound": _rewound,
            **dict.fromkeys(ITEM_TAGS, _of_an_item),
            **dict.fromkeys(END_TAGS, _ended),
        }
    )
    table: Table = table("fan_outs", FanOutRow, key=("run_id", "fan_out"), load=_load, dump=_dump)

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        return ((entry.stream, event.fan_out),) if event.fan_out else ()

    def fold(self, rows: list[_Row | None], entry: Entry, event: Any) -> Sequence[_Row | None]:
        if isinstance(event, w.FanOutOpened):
            return (_new(entry, event),)
        if isinstance(event, r.RunRewound):
            return [None if row is None else _take_back(row, event) for row in rows]
        row = rows[0]
        assert row is not None
        if isinstance(event, w.FanOutClosed | r.RunEnded):
            for open_row in rows:
                if open_row is not None:
                    _close(open_row, entry, event)
        elif isinstance(event, r.StepScheduled | w.ChildStarted):
            row.live[event.item] = RUNNING
        else:
            row.live[number_of(event) - row.fan_out - 1] = state_of(entry.tag, event)
            _close_when_done(row, entry, event)
        return rows


FAN_OUTS = FanOuts()
