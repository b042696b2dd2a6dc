"""`context`: what the handlers of a run share, by key, with all that was there before."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w
from .projection import Events, Key, Look, Scope, Table, column, table
from .reading import text, utc
from .vocabulary import events


class ContextRow(Struct, gc=False):
    """A row of `context`."""

    run_id: Annotated[str, column("The run.")]
    key: Annotated[str, column("The key.")]
    superseded: Annotated[
        int,
        column(
            "0 for the value that stands; for an earlier one, `version`. `superseded = 0` is a row per key."
        ),
    ]
    version: Annotated[
        int, column("Version of the run's stream at which it was set; 0: only ever refused.")
    ] = 0
    value: Annotated[str, column("The value: JSON.", "json")] = "null"
    writer: Annotated[str, column("Path of the task that set it; `m` is the handler itself.")] = ""
    at: Annotated[str, column("When.")] = ""
    conflict: Annotated[
        str,
        column("Path of the task beside that one whose value it replaced, or empty: both had set the key."),
    ] = ""
    conflicts: Annotated[int, column("How often that happened to this key so far.")] = 0
    refused: Annotated[str, column("Why the last value for this key that was refused was, or empty.")] = ""
    refusals: Annotated[int, column("How many were, so far.")] = 0


def _set(look: Look, entry: Entry, event: w.ContextSet) -> Sequence[Key]:
    now = look.row((entry.stream, event.key, 0))
    if now is None or not now.version or event.refused:
        return ((entry.stream, event.key, 0),)
    return ((entry.stream, event.key, 0), (entry.stream, event.key, now.version))


def _rewound(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    """Of each key that was set since then: the value that stands, and the latest one of before."""
    found: list[Key] = []
    for key in look.keys(entry.stream):
        standing = look.row((*key[:2], 0))
        if key[2] > event.to or standing.version > event.to:
            found.append(key)
    return found


def _restored(rows: list[ContextRow | None], event: r.RunRewound) -> list[ContextRow | None]:
    """For each key, which comes with its 0 first, the last value of before stands again."""
    before: dict[str, ContextRow] = {}
    for row in rows:
        if row is not None and 0 < row.superseded <= event.to:
            before[row.key] = row
    now: list[ContextRow | None] = []
    for row in rows:
        assert row is not None
        last = before.get(row.key)
        if row.superseded == 0:
            now.append(None if last is None else msgspec.structs.replace(last, superseded=0))
        else:
            now.append(None if row is last or row.superseded > event.to else row)
    return now


class Context:
    """`context`: a fold of `context.set` events, so parallel writers of different keys never meet."""

    name = "context"
    version = 1
    scope: Scope = "runs"
    creates: frozenset[str] = frozenset()
    events: Events = events("context.set", "run.rewound")
    finds = MappingProxyType({"context.set": _set, "run.rewound": _rewound})
    table: Table = table("context", ContextRow, key=("run_id", "key", "superseded"))

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        return ()

    def fold(self, rows: list[ContextRow | None], entry: Entry, event: Any) -> Sequence[ContextRow | None]:
        if isinstance(event, r.RunRewound):
            return _restored(rows, event)
        row = rows[0] or ContextRow(entry.stream, event.key, 0)
        if event.refused:
            row.refused, row.refusals = event.refused, row.refusals + 1
            return (row,)
        if len(rows) > 1:
            rows[1] = msgspec.structs.replace(row, superseded=row.version)
        row.version, row.value, row.writer = entry.version, text(event.value), event.task
        row.at, row.conflict = utc(event.at), event.conflict
        row.conflicts += bool(event.conflict)
        return (row, *rows[1:])


CONTEXT = Context()
