"""The tables that `refold sql` can be asked about, with what their columns hold."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from ..projections.core import CORE
from ..projections.projection import Projection
from .screen import Screen
from .text import as_json, visible

EVENTS = (
    "SELECT rowid AS position, originator_id AS stream, originator_version AS version, topic AS tag, "
    "CAST(state AS TEXT) AS event, lower(hex(hash)) AS hash FROM log.stored_events"
)
"""The log with the words of this project, and events as text: SQLite's JSON functions take no bytes."""

_LOG = {
    "events": (
        "The log: a row per event, with the words of this project.",
        {
            "position": "Place in the whole log.",
            "stream": "A run's id; `RUN/inbox` for what others say to it; `key/KEY` for a start key.",
            "version": "Place in the stream: 1, 2, 3 …",
            "tag": "What happened: `step.completed`. The reference lists them all.",
            "event": "The event as JSON: json_extract(event, '$.at').",
            "hash": "Chains it to the event before it.",
        },
    ),
    "stored_events": (
        "The same as it is stored, with the column names of the eventsourcing library.",
        {
            "rowid": "Place in the whole log.",
            "originator_id": "The stream.",
            "originator_version": "Place in the stream.",
            "topic": "The tag.",
            "state": "The event: JSON, as bytes.",
            "hash": "32 bytes.",
        },
    ),
    "work": (
        "What of each run is due, and when: what dispatches runs.",
        {
            "run_id": "The run.",
            "workflow": "Name of its workflow.",
            "version": "Version of the workflow.",
            "state": "`pending`, `running`, `waiting` or `done`.",
            "due_at": "When it wants attention by itself: seconds since 1970.",
            "seen": "Version of the last inbox message that it has received.",
            "generation": "Of its last owner.",
            "status": "How it ended.",
            "mail": "Version of the last message in its inbox.",
        },
    ),
    "blobs": (
        "Values too large for their events.",
        {"digest": "SHA-256 of the content.", "data": "The content."},
    ),
    "meta": ("What the file says of itself.", {"key": "What.", "value": "Its value."}),
}


class Described(Struct, frozen=True):
    """A table."""

    kind: str
    """`read model` or `log`."""
    doc: str
    columns: dict[str, tuple[str, str]]
    """By name: type and what it holds."""


def tables(connection: sqlite3.Connection) -> dict[str, Described]:
    """Those that are there: the read models, those of a user's own among them, then the log."""
    core = {projection.table.name: projection for projection in CORE}
    names = [
        str(name)
        for (name,) in connection.execute(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY name"
        )
        if not name.startswith("sqlite_") and not name.endswith("_building")
    ]
    found = {name: _read_model(core[name]) for name in core if name in names}
    for name in names:
        if name not in found:
            found[name] = Described("read model", "", _stored(connection, "main", name))
    for name, (doc, columns) in _LOG.items():
        types = _stored(connection, "temp" if name == "events" else "log", name)
        found[name] = Described(
            "log",
            doc,
            {column: (types.get(column, ("INTEGER", ""))[0], text) for column, text in columns.items()},
        )
    return found


def of_catalogue(columns: Iterable[tuple[str, str, str]], models: set[str]) -> dict[str, Described]:
    """The same of a server, from names of tables and columns with their types."""
    stored: dict[str, dict[str, tuple[str, str]]] = {}
    for table, column, kind in columns:
        if not table.endswith("_building"):
            stored.setdefault(table, {})[column] = (_SHORT.get(kind, kind.upper()), "")
    found = {p.table.name: _read_model(p) for p in CORE if p.table.name in stored}
    for name in sorted(stored.keys() - found.keys() & models):
        found[name] = Described("read model", "", stored[name])
    for name in [*(name for name in _LOG if name in stored), *sorted(stored)]:
        if name not in found:
            doc, told = _LOG.get(name, ("", {}))
            kinds = {column: (kind, told.get(column, "")) for column, (kind, _) in stored[name].items()}
            found[name] = Described("log", doc, kinds)
    return found


_SHORT = {"bigint": "INTEGER", "double precision": "REAL", "bytea": "BLOB"}


def _read_model(projection: Projection) -> Described:
    first = (type(projection).__doc__ or "").strip().split("\n")[0]
    doc = first.removeprefix(f"`{projection.table.name}`: ")
    columns = {c.name: (c.type.split()[0], c.doc) for c in projection.table.columns if c.form != "hidden"}
    return Described("read model", doc[:1].upper() + doc[1:], columns)


def _stored(connection: sqlite3.Connection, schema: str, name: str) -> dict[str, tuple[str, str]]:
    quoted = name.replace('"', '""')
    rows = connection.execute(f'PRAGMA {schema}.table_info("{quoted}")').fetchall()
    return {str(column): (str(kind).split(" ")[0], "") for _, column, kind, *_ in rows}


def describe(found: Mapping[str, Described], screen: Screen, *, json: bool) -> None:
    """List tables with their columns."""
    if json:
        screen.raw(as_json([_as_json(name, table) for name, table in found.items()]))
        return
    for name, table in found.items():
        screen.print((visible(name), "bold"), (f"  {visible(table.doc)}", "dim"))
        left = max(len(visible(column)) for column in table.columns) if table.columns else 0
        for column, (kind, doc) in table.columns.items():
            screen.print(f"  {visible(column).ljust(left)}  ", (f"{kind:7}  ", "dim"), visible(doc))


def _as_json(name: str, table: Described) -> dict[str, Any]:
    columns = [{"name": column, "type": kind, "doc": doc} for column, (kind, doc) in table.columns.items()]
    return {"table": name, "kind": table.kind, "doc": table.doc, "columns": columns}
