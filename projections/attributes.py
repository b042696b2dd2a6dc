"""`run_attributes`: the searchable labels of runs, one row per run and label."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Raw, Struct, json

from ..events.stream import Row as Entry
from . import reading as r
from .projection import Events, Index, Key, Look, Scope, Table, column, table
from .reading import text, utc
from .vocabulary import events

_decode = json.Decoder(dict[str, Raw]).decode
_decode_past = json.Decoder(list[tuple[int, str | None]]).decode
_encode = json.Encoder().encode
_NONE = b"{}"


class AttributeRow(Struct, gc=False):
    """A row of `run_attributes`."""

    run_id: Annotated[str, column("The run.")]
    key: Annotated[str, column("Name of the label.")]
    value: Annotated[str | None, column("Its value: JSON; empty once it was removed.", "json")] = None
    since: Annotated[
        str,
        column(
            "When the run was started; for one started without labels, when it got the first. Lists by label "
            "are in this order."
        ),
    ] = ""
    past: Annotated[str | None, column("Memory of the fold, not for users; may change.", "hidden")] = None


def _changed(look: Look, entry: Entry, event: r.AttributesSet) -> Sequence[Key]:
    """The labels that change, and one that is there already, for its `since`."""
    there = look.keys(entry.stream)[:1]
    return list(dict.fromkeys([*there, *((entry.stream, name) for name in event.attributes)]))


def _all(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    return look.keys(entry.stream)


def _rewound(row: AttributeRow, to: int) -> AttributeRow | None:
    if row.past is None:
        return row
    past = [stand for stand in _decode_past(row.past) if stand[0] <= to]
    if not past:
        return None
    row.value, row.past = past[-1][1], None if past[-1][0] == 1 else _encode(past).decode()
    return row


class RunAttributes:
    """`run_attributes`: labels given to `start`, and those set since."""

    name = "run_attributes"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"run.started"})
    events: Events = events("run.started", "attributes.set", "attributes.changed", "run.rewound")
    finds = MappingProxyType(
        {"attributes.set": _changed, "attributes.changed": _changed, "run.rewound": _all}
    )
    table: Table = table(
        "run_attributes",
        AttributeRow,
        key=("run_id", "key"),
        indexes=(Index(("key", "value", "since", "run_id"), "value IS NOT NULL"),),
        narrow=True,
    )

    def keys(self, entry: Entry, event: r.RunStarted) -> Sequence[Key]:
        if event.attributes == _NO_LABELS:
            return ()
        return [(entry.stream, name) for name in _decode(event.attributes)]

    def fold(
        self, rows: list[AttributeRow | None], entry: Entry, event: Any
    ) -> Sequence[AttributeRow | None]:
        if isinstance(event, r.RunStarted):
            now = utc(event.at)
            given = _decode(event.attributes).items()
            return [AttributeRow(entry.stream, name, text(value), now) for name, value in given]
        if isinstance(event, r.RunRewound):
            return [None if row is None else _rewound(row, event.to) for row in rows]
        since = rows[0].since if rows[0] is not None else utc(event.at)
        left = dict(event.attributes)
        for row in rows:
            if row is not None and row.key in left:
                past = [(1, row.value)] if row.past is None else _decode_past(row.past)
                value = left.pop(row.key)
                row.value = None if bytes(value) == b"null" else text(value)
                row.past = _encode([*past, (entry.version, row.value)]).decode()
        new = iter(left.items())
        return [row if row is not None else _new(entry, since, *next(new)) for row in rows]


def _new(entry: Entry, since: str, name: str, value: Raw) -> AttributeRow:
    stored = None if bytes(value) == b"null" else text(value)
    past = _encode([(entry.version, stored)]).decode()
    return AttributeRow(entry.stream, name, stored, since, past)


_NO_LABELS = Raw(_NONE)
RUN_ATTRIBUTES = RunAttributes()
