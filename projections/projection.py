"""What a read model is: a table, the events it reads, and a fold from those events to its rows.

A projection is a value that satisfies `Projection`; there is nothing to subclass. Its rows are instances
of a `msgspec.Struct` whose fields are the columns, in order, those of the key first.
"""

import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from ..events.errors import ConfigurationError
from ..events.stream import Row as Entry

Value = None | int | float | str | bytes
"""What SQLite and PostgreSQL both keep as it is."""
Key = tuple[Any, ...]
"""Values of a row's key columns, in the table's order."""
Events = Mapping[str, type[Struct]]
"""Tags, and what to decode the events under each into."""
Form = Literal["", "json", "money", "flag", "run_status", "step_status", "attention", "hidden"]
"""How the read API shows a column: parsed JSON, `Decimal`, `bool`, an enum, or not at all."""
Scope = Literal["runs", "all"]
"""Streams that are folded: those of runs, or also inboxes (`RUN/inbox`) and start keys (`key/KEY`)."""

_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER", bytes: "BLOB"}
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


def column(doc: str, form: Form = "") -> Meta:
    """Documents a field of a row: `status: Annotated[str, column("How it stands.")]`."""
    return Meta(description=doc, extra={"form": form})


class Column(Struct, frozen=True):
    """One column, as the schema and the reference show it."""

    name: str
    type: str
    """`TEXT`, `INTEGER`, `REAL` or `BLOB`, with ` NOT NULL` where it always has a value."""
    doc: str
    form: Form = ""
    default: Value = None
    """Of a row that says nothing else."""


class Index(Struct, frozen=True):
    """An index on some columns; `where` makes it a partial one."""

    columns: tuple[str, ...]
    where: str = ""


class Table(Struct, frozen=True):
    """A table, and how its rows go in and out; make one with `table`."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """The first columns: the primary key."""
    indexes: tuple[Index, ...]
    load: Callable[[Sequence[Any]], Any]
    """Stored values, in column order, to the row that `fold` sees."""
    dump: Callable[[Any], tuple[Value, ...]]
    """The row to the values to store. What only depends on the row may be worked out here: it runs
    once per batch, `fold` once per event."""
    narrow: bool = False
    """Rows of a few short values: kept in the key's own B-tree (`WITHOUT ROWID`)."""
    rare: tuple[str, ...] = ()
    """Columns that most rows have at their default: these are not bound when all of them are, which takes
    a third off the price of writing a row of `steps`."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def usual(self) -> tuple[str, ...]:
        """Columns that are not rare."""
        return tuple(name for name in self.names if name not in self.rare)


def table(
    name: str,
    row: type[Struct],
    *,
    key: tuple[str, ...],
    indexes: tuple[Index, ...] = (),
    load: Callable[[Sequence[Any]], Any] | None = None,
    dump: Callable[[Any], tuple[Value, ...]] | None = None,
    narrow: bool = False,
    rare: tuple[str, ...] = (),
) -> Table:
    """The table whose columns are the fields of `row`.

    Raises `ConfigurationError` for names that are no SQL names, fields without `column(…)` or of a type
    that no column has, keys that are not the first fields, and rare columns without a default.
    """
    columns = tuple(_column(row, field) for field in msgspec.structs.fields(row))
    for text in (name, *(c.name for c in columns)):
        if not _NAME.match(text):
            raise ConfigurationError(f"{text!r} cannot name a table or column: use a-z, 0-9 and _")
    if not key or key != tuple(c.name for c in columns[: len(key)]):
        raise ConfigurationError(f"table {name}: its key {key} must be the first fields of {row.__name__}")
    optional = {field.name for field in msgspec.structs.fields(row) if not field.required}
    if not optional.issuperset(rare):
        raise ConfigurationError(f"table {name}: rare columns need a default in {row.__name__}")
    return Table(
        name,
        columns,
        key,
        indexes,
        load or (lambda values: row(*values)),
        dump or msgspec.structs.astuple,
        narrow,
        rare,
    )


def _column(row: type[Struct], field: msgspec.structs.FieldInfo) -> Column:
    place = f"{row.__name__}.{field.name}"
    if typing.get_origin(field.type) is not typing.Annotated:
        raise ConfigurationError(f'{place}: annotate it as Annotated[…, column("what it says")]')
    kind, *notes = typing.get_args(field.type)
    meta = next((note for note in notes if isinstance(note, Meta) and note.description), None)
    if meta is None:
        raise ConfigurationError(f'{place}: say what it holds, with column("…")')
    options = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    plain = [option for option in options if option is not types.NoneType]
    if len(plain) != 1 or plain[0] not in _SQL_TYPES:
        raise ConfigurationError(f"{place}: {kind} is none of str, int, float, bool, bytes (or None)")
    required = "" if len(options) > len(plain) else " NOT NULL"
    form: Form = (meta.extra or {}).get("form", "")
    default = None if field.default is msgspec.NODEFAULT else field.default
    return Column(field.name, _SQL_TYPES[plain[0]] + required, str(meta.description), form, default)


class Look(Protocol):
    """What the projection's own table holds, for the few events that do not name all of their rows."""

    notes: dict[str, Any]
    """What the projection has worked out from its rows; lost whenever the rows in memory are."""

    def row(self, key: Key) -> Any:
        """The row of a key, or None. Not to be changed."""
        ...

    def keys(self, first: Value) -> list[Key]:
        """Keys of all rows that begin with this value, in order."""
        ...


Find = Callable[[Look, Entry, Any], Sequence[Key]]
Finds = Mapping[str, Find]
"""By tag: in the place of `keys`, once per event, for a projection that has to look which rows it touches."""


class Projection(Protocol):
    """A read model. Its answers depend on their arguments alone: no clock, no chance, no other table.

    It may also have `finds: Finds`, and `first: frozenset[str]`: tags of the only events after which a run
    has rows. The events of a run that is known to have none are then passed over at once: two projections
    that look which of their rows a step is about cost one without such rows 40 ns and not 1.4 µs.
    With `per_run = True` its one row is always that of the event's stream, and `keys` is not called.
    """

    @property
    def name(self) -> str:
        """Unique; also the name of its table."""
        ...

    @property
    def version(self) -> int:
        """Raise it when the table or the fold changes: the table is then built anew."""
        ...

    @property
    def table(self) -> Table: ...

    @property
    def events(self) -> Events:
        """The tags it reads, and what to decode each into: a type of `events.types`, or a Struct of its
        own with only the fields it needs (msgspec skips the others)."""
        ...

    @property
    def scope(self) -> Scope: ...

    @property
    def creates(self) -> frozenset[str]:
        """Tags of events whose rows cannot be there yet: `fold` gets None without looking. It saves a
        step 12 µs, a fifth of what it may cost a rebuild; when in doubt, leave it empty."""
        ...

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        """The rows that this event touches: those `fold` has to see."""
        ...

    def fold(self, rows: list[Any], entry: Entry, event: Any) -> Sequence[Any]:
        """What those rows become, in the order of `keys`: None for a row that is not there.

        The rows given may be changed and returned. When it raises, the event is parked and its rows
        stay as they were.
        """
        ...
