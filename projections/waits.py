"""`waits`: one row per wait for an event, and what came before anybody waited for it."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w
from .ends import END_TAGS
from .kept import Kept
from .projection import Events, Index, Key, Look, Scope, Table, Value, column, table
from .reading import utc
from .vocabulary import events

EARLY = 0
"""The wait of the row that says what came early."""


class WaitRow(Struct, gc=False):
    """A row of `waits`."""

    run_id: Annotated[str, column("The run.")]
    wait: Annotated[
        int, column("Its number among the commands of the run; 0 for the row `early`, if there is one.")
    ]
    name: Annotated[str, column("What it waits for, or empty.")] = ""
    status: Annotated[
        str,
        column(
            "`open`, `received`, `cancelled` (the handler gave it up), `ended` (the run did), or `early`: "
            "not a wait, "
            "but signals that nobody has waited for yet."
        ),
    ] = "open"
    opened_at: Annotated[str, column("When it was opened.")] = ""
    closed_at: Annotated[str | None, column("When it was no longer open.")] = None
    received_by: Annotated[str, column("Who sent what it received, or empty.")] = ""
    signal_id: Annotated[str, column("The sender's id of that, or empty.")] = ""
    early: Annotated[
        str | None, column("In the row `early`: names of signals, and how many of each.", "json")
    ] = None
    memory: Annotated[str | None, column("Memory of the fold, not for users; may change.", "hidden")] = None


class _Row(WaitRow, gc=False):
    kept: Kept = msgspec.field(default_factory=Kept)


_decode_kept = msgspec.json.Decoder(Kept).decode
_encode = msgspec.json.Encoder().encode


def _load(values: Sequence[Any]) -> _Row:
    row = _Row(*values)
    if row.memory:
        row.kept = _decode_kept(row.memory)
    return row


def _dump(row: _Row) -> tuple[Value, ...]:
    if row.wait == EARLY:
        row.early, row.memory = _encode(row.kept.counts).decode(), _encode(row.kept).decode()
    return msgspec.structs.astuple(row)[:-1]


# ---- which rows: the first open wait of a name takes the signal ---------------------------------------


def _open(look: Look, run_id: str) -> dict[int, str]:
    """The open waits of a run, in order, and their names; kept up to date by the functions below."""
    known: dict[int, str] | None = look.notes.get(run_id)
    if known is None:
        rows = [look.row(key) for key in look.keys(run_id)]
        known = look.notes[run_id] = {row.wait: row.name for row in rows if row.status == "open"}
    return known


def _opened(look: Look, entry: Entry, event: w.WaitOpened) -> Sequence[Key]:
    opened = _open(look, entry.stream)
    early = look.row((entry.stream, EARLY))
    if early is None or not early.kept.counts.get(event.name):
        opened[event.wait] = event.name
        return ((entry.stream, event.wait),)
    return ((entry.stream, event.wait), (entry.stream, EARLY))


def _cancelled(look: Look, entry: Entry, event: w.WaitCancelled) -> Sequence[Key]:
    _open(look, entry.stream).pop(event.wait, None)
    return ((entry.stream, event.wait),)


def _received(look: Look, entry: Entry, event: w.SignalReceived) -> Sequence[Key]:
    opened = _open(look, entry.stream)
    taker = next((wait for wait, name in opened.items() if name == event.name), EARLY)
    opened.pop(taker, None)
    return ((entry.stream, taker),)


def _ended(look: Look, entry: Entry, event: r.RunEnded) -> Sequence[Key]:
    if event.open:
        look.notes.pop(entry.stream, None)
    return [(entry.stream, number) for number in event.open]


def _rewound(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    look.notes.pop(entry.stream, None)
    return [(entry.stream, number) for number in dict.fromkeys((EARLY, *event.dropped, *event.waits))]


# ---- what becomes of them -----------------------------------------------------------------------------


def _fold_opened(rows: list[_Row | None], entry: Entry, event: w.WaitOpened) -> Sequence[_Row | None]:
    now = utc(event.at)
    row = rows[0] = _Row(entry.stream, event.wait, event.name, opened_at=now)
    if len(rows) > 1 and rows[1] is not None and rows[1].kept.take(event.name, event.wait):
        row.status, row.closed_at = "received", now
    return rows


def _fold_received(rows: list[_Row | None], entry: Entry, event: w.SignalReceived) -> Sequence[_Row | None]:
    row = rows[0]
    if row is not None and row.wait != EARLY:
        row.status, row.closed_at = "received", utc(event.at)
        row.received_by, row.signal_id = event.by, event.signal_id
        return rows
    if row is None:
        row = rows[0] = _Row(entry.stream, EARLY, status="early", opened_at=utc(event.at))
    row.kept.add(event.name, entry.version)
    return rows


def _fold_rewound(rows: list[_Row | None], entry: Entry, event: r.RunRewound) -> Sequence[_Row | None]:
    now: list[_Row | None] = []
    for row in rows:
        if row is not None and row.wait == EARLY:
            row.kept.rewind(event.to, event.dropped)
            now.append(row)
        elif row is not None and row.wait in event.waits:
            row.status, row.closed_at, row.received_by, row.signal_id = "open", None, "", ""
            now.append(row)
        else:
            now.append(None)  # it never was
    return now


class Waits:
    """`waits`: for events from outside; those for people are `gates`."""

    name = "waits"
    version = 1
    scope: Scope = "runs"
    creates: frozenset[str] = frozenset()
    events: Events = events(
        *END_TAGS,
        "run.started",
        "wait.opened",
        "wait.cancelled",
        "signal.received",
        "run.rewound",
    )
    finds = MappingProxyType(
        {
            "wait.opened": _opened,
            "wait.cancelled": _cancelled,
            "signal.received": _received,
            "run.rewound": _rewound,
            **dict.fromkeys(END_TAGS, _ended),
        }
    )
    table: Table = table(
        "waits",
        WaitRow,
        key=("run_id", "wait"),
        indexes=(Index(("name", "opened_at", "run_id"), "status = 'open'"),),
        load=_load,
        dump=_dump,
    )

    def keys(self, entry: Entry, event: r.RunStarted) -> Sequence[Key]:
        return ((entry.stream, EARLY),) if event.carried else ()

    def fold(self, rows: list[_Row | None], entry: Entry, event: Any) -> Sequence[_Row | None]:
        if isinstance(event, w.WaitOpened):
            return _fold_opened(rows, entry, event)
        if isinstance(event, w.SignalReceived):
            return _fold_received(rows, entry, event)
        if isinstance(event, r.RunRewound):
            return _fold_rewound(rows, entry, event)
        if isinstance(event, r.RunStarted):
            row = _Row(entry.stream, EARLY, status="early", opened_at=utc(event.at))
            row.kept.carry(signal.name for signal in event.carried)
            return (row,)
        word = "cancelled" if isinstance(event, w.WaitCancelled) else "ended"
        for open_row in rows:
            if open_row is not None and open_row.status == "open":
                open_row.status, open_row.closed_at = word, utc(event.at)
        return rows


WAITS = Waits()
