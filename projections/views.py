"""Where the read models stand: tables, how far each has come, and transactions over both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from msgspec import Struct

from .projection import Column, Key, Projection, Table, Value

BUSY_S = 5.0
"""How long to wait for another process that writes."""


class Standing(Struct, frozen=True):
    """How far one projection has come."""

    version: int
    schema: str
    position: int
    anchor: bytes


class Parked(Struct, frozen=True):
    """An event that a projection could not fold; its rows stayed as they were."""

    projection: str
    position: int
    stream: str
    version: int
    tag: str
    error: str


class UnknownEvents(Struct, frozen=True):
    """Events of a type that this code does not know."""

    projection: str
    tag: str
    events: int
    first_position: int


class Changes(NamedTuple):
    """What has become of the rows of a table."""

    rows: list[tuple[Value, ...]]
    short: list[tuple[Value, ...]]
    """Rows whose rare columns are all at their defaults, without these."""
    gone: list[Key]
    stored: list[Key]
    """Of all these rows, those that may be in the table already."""


Write = Callable[[Changes], None]


class Views(ABC):
    """The read models, in a file or in the schema of a log on PostgreSQL.

    The SQL given to it is what SQLite and PostgreSQL both understand, with `?` for parameters and no other
    question mark; what they do not share has a method here.
    """

    shared = False
    """Whether any number of processes fold into these tables, so that one of them is enough."""
    may_vote: str
    """Condition on `gates`, with three times the name of somebody: that they may vote."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where they are, for people."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""

    # ---- transactions

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """One writer at a time over all processes; rolled back on any error.

        What is read inside is what the last writer left. Raises `StoreBusy` when another one takes long.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """Everything read inside is of one moment."""

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""

    @abstractmethod
    def rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a SELECT one by one, inside `reading`."""

    @abstractmethod
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """A statement inside `writing`; returns how many rows it has changed."""

    @abstractmethod
    def writer_of(self, table: Table, name: str) -> Write:
        """What stores changes of a table under this name, inside `writing`."""

    def filling(self) -> AbstractContextManager[None]:
        """While tables grow from nothing."""
        return nullcontext()

    @abstractmethod
    def notice(self, events: Iterable[bytes]) -> None:
        """Events whose rows are about to be written."""

    # ---- tables

    @abstractmethod
    def has(self, *tables: str) -> bool:
        """Whether these tables are there: none is before the first event is folded."""

    @abstractmethod
    def create(self, table: Table, name: str, *, indexes: bool) -> None:
        """Make a table, inside `writing`; without indexes while it is being built."""

    @abstractmethod
    def put_live(self, table: Table, built: str) -> None:
        """Give a table that was built its indexes, and the place of the live one, inside `writing`."""

    @abstractmethod
    def source(self, table: str, alias: str = "", *, index: str = "") -> str:
        """The table as it stands after FROM; `index` is the one to walk along, where one may say so."""

    # ---- standing of each projection (inside a transaction, where it matters)

    def standings(self, slot: str = "live") -> dict[str, Standing]:
        """Version, schema, position and anchor of each projection by name."""
        rows = self.query(
            "SELECT name, version, schema, position, anchor FROM projections WHERE slot = ?", (slot,)
        )
        return {row[0]: Standing(*row[1:]) for row in rows}

    def parked(self) -> list[Parked]:
        """Events that live projections could not fold."""
        return [
            Parked(*row)
            for row in self.query(
                "SELECT projection, position, stream, version, tag, error FROM parked_events "
                "WHERE slot = 'live' ORDER BY position, projection"
            )
        ]

    def unknown(self) -> list[UnknownEvents]:
        """Types of events that this code does not know, as live projections met them."""
        return [
            UnknownEvents(*row)
            for row in self.query(
                "SELECT projection, tag, events, first_position FROM unknown_events "
                "WHERE slot = 'live' ORDER BY tag, projection"
            )
        ]


# ---- the SQL of a table ---------------------------------------------------------------------------


def table_name(projection: Projection, slot: str, version: int | None = None) -> str:
    """`runs`, or `runs__v2_building` for one that is being built beside it."""
    name = projection.table.name
    return name if slot == "live" else f"{name}__v{version or projection.version}_building"


def create_table(table: Table, name: str) -> str:
    """The CREATE TABLE statement."""
    columns = ", ".join(_definition(table, c) for c in table.columns)
    tail = " WITHOUT ROWID" if table.narrow else ""
    return f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(table.key)})){tail}"


def _definition(table: Table, column: Column) -> str:
    if column.name not in table.rare or column.default is None:
        return f"{column.name} {column.type}"
    default = column.default
    literal = f"'{default}'" if isinstance(default, str) else str(default)
    return f"{column.name} {column.type} DEFAULT {literal}"


def create_indexes(table: Table) -> list[str]:
    """The CREATE INDEX statements of the live table; one that is being built gets them at the swap."""
    return [
        f"CREATE INDEX {table.name}_{number} ON {table.name} ({', '.join(index.columns)})"
        + (f" WHERE {index.where}" if index.where else "")
        for number, index in enumerate(table.indexes, 1)
    ]


def schema_of(table: Table) -> str:
    """What tells whether a stored table is shaped as this code expects."""
    return ";\n".join([create_table(table, table.name), *create_indexes(table)])
