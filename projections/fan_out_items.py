"""`fan_out_items`: one row per item of a `map`, from the moment it is opened."""

from bisect import bisect_left
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from msgspec import MsgspecError, Raw, Struct, json

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w
from .ends import END_TAGS
from .fan_out_rows import ItemRow
from .fan_outs import CANCELLED, COMPLETED, EVENTS, FAILED_, ITEM_TAGS, SKIPPED, number_of, state_of
from .projection import Events, Index, Key, Look, Scope, Table, table
from .reading import text, utc

_WORDS = {COMPLETED: "completed", FAILED_: "failed", SKIPPED: "skipped", CANCELLED: "cancelled"}
_decode = json.Decoder(list[Raw]).decode


class _Map(Struct, gc=False):
    """What a projection of items notes of one map."""

    fan_out: int
    total: int
    pending: int
    """Items that have not begun, at most."""
    closed: bool = False


# ---- which rows ------------------------------------------------------------------------------------------


def _of_run(look: Look, run_id: str) -> list[_Map]:
    """A run's maps, in order."""
    known: list[_Map] | None = look.notes.get(run_id)
    if known is None:
        totals: dict[int, int] = {}
        for key in look.keys(run_id):
            totals[key[1]] = key[2] + 1
        known = look.notes[run_id] = [_Map(fan_out, total, total) for fan_out, total in totals.items()]
    return known


def _opened(look: Look, entry: Entry, event: w.FanOutOpened) -> Sequence[Key]:
    pending = event.count - len(event.skipped)
    _of_run(look, entry.stream).append(_Map(event.fan_out, event.count, pending))
    return [(entry.stream, event.fan_out, item) for item in range(event.count)]


def _begun(look: Look, entry: Entry, event: r.StepScheduled | w.ChildStarted) -> Sequence[Key]:
    if not event.fan_out:
        return ()
    for known in _of_run(look, entry.stream):
        if known.fan_out == event.fan_out:
            known.pending -= 1
    return ((entry.stream, event.fan_out, event.item),)


def _over(look: Look, entry: Entry, event: Any) -> Sequence[Key]:
    known = look.notes.get(entry.stream)
    if known is None:
        known = _of_run(look, entry.stream)
    if not known:
        return ()
    number = number_of(event)
    place = bisect_left(known, number, key=_number) - 1
    if place < 0 or number > known[place].fan_out + known[place].total:
        return ()
    fan_out = known[place].fan_out
    return ((entry.stream, fan_out, number - fan_out - 1),)


def _number(known: _Map) -> int:
    return known.fan_out


def _open_items(look: Look, entry: Entry, known: _Map) -> list[Key]:
    keys = [(entry.stream, known.fan_out, item) for item in range(known.total)]
    return [key for key in keys if look.row(key).status in ("pending", "running")]


def _closed(look: Look, entry: Entry, event: w.FanOutClosed) -> Sequence[Key]:
    found: list[Key] = []
    for known in _of_run(look, entry.stream):
        if known.fan_out == event.fan_out:
            known.closed = True
            if known.pending > 0:
                found = _open_items(look, entry, known)
    return found


def _ended(look: Look, entry: Entry, event: r.RunEnded) -> Sequence[Key]:
    found: list[Key] = []
    for known in _of_run(look, entry.stream):
        if not known.closed:
            known.closed = True
            found += _open_items(look, entry, known)
    return found


def _rewound(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    look.notes.pop(entry.stream, None)
    dropped = set(event.dropped)
    found: list[Key] = []
    for key in look.keys(entry.stream):
        if key[1] in dropped:
            found.append(key)
        else:
            row = look.row(key)
            if row.begun_version > event.to or row.ended_version > event.to:
                found.append(key)
    return found


# ---- what becomes of them --------------------------------------------------------------------------------


def _new(entry: Entry, event: w.FanOutOpened) -> list[ItemRow]:
    run_id, fan_out, now = entry.stream, event.fan_out, utc(event.at)
    try:
        values: list[Any] = [text(value) for value in _decode(event.items)]
    except MsgspecError:  # a reference to a list that was put away
        values = [None] * event.count
    rows = [ItemRow(run_id, fan_out, item, fan_out + 1 + item, values[item]) for item in range(event.count)]
    for place in event.skipped:
        rows[place].status, rows[place].ended_at, rows[place].ended_version = "skipped", now, entry.version
    return rows


def _begin(row: ItemRow, entry: Entry, event: r.StepScheduled | w.ChildStarted) -> None:
    row.key = event.key if isinstance(event, r.StepScheduled) else event.run_id
    row.status, row.started_at, row.begun_version = "running", utc(event.at), entry.version


def _end(row: ItemRow, entry: Entry, event: Any, word: str) -> None:
    row.status, row.ended_at, row.ended_version = word, utc(event.at), entry.version
    error = getattr(event, "error", None)
    if error is not None:
        row.error_type, row.error_message = error.type, error.message


def _take_back(row: ItemRow, event: r.RunRewound) -> ItemRow | None:
    if row.fan_out in event.dropped:
        return None
    if row.ended_version > event.to:
        row.ended_at = row.error_type = row.error_message = None
        row.ended_version = 0
        row.status = "running" if row.begun_version else "pending"
    if row.begun_version > event.to:
        row.key, row.started_at, row.begun_version, row.status = "", None, 0, "pending"
    return row


class FanOutItems:
    """`fan_out_items`: what the items came to is in the rows of their steps and children."""

    name = "fan_out_items"
    version = 1
    scope: Scope = "runs"
    creates = first = frozenset({"fan_out.opened"})
    events: Events = EVENTS
    finds = MappingProxyType(
        {
            "fan_out.opened": _opened,
            "fan_out.closed": _closed,
            "step.scheduled": _begun,
            "child.started": _begun,
            "run.rewound": _rewound,
            **dict.fromkeys(ITEM_TAGS, _over),
            **dict.fromkeys(END_TAGS, _ended),
        }
    )
    table: Table = table(
        "fan_out_items",
        ItemRow,
        key=("run_id", "fan_out", "item"),
        indexes=(Index(("run_id", "fan_out", "status", "item")),),
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        return ()

    def fold(self, rows: list[ItemRow | None], entry: Entry, event: Any) -> Sequence[ItemRow | None]:
        if isinstance(event, w.FanOutOpened):
            return _new(entry, event)
        if isinstance(event, r.RunRewound):
            return [None if row is None else _take_back(row, event) for row in rows]
        for row in rows:
            if row is None:
                continue
            if isinstance(event, r.StepScheduled | w.ChildStarted):
                _begin(row, entry, event)
            elif isinstance(event, w.FanOutClosed | r.RunEnded):
                _end(row, entry, event, "cancelled")
            else:
                _end(row, entry, event, _WORDS[state_of(entry.tag, event)])
        return rows


FAN_OUT_ITEMS = FanOutItems()
