"""The file of the read models, `X.db.views`: a second SQLite database that may be lost at any time.

WAL and NORMAL: a power cut may take back the last rows, together with the position they stand at, and
the runner folds those events again. It is never attached to the log's transaction: WAL files attached to
each other are not crash-atomic, and cost 1.6 to 2.9 times as much a commit.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..events.errors import (
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from .projection import Column, Projection, Table

APPLICATION_ID = 0x5246_4C56
"""`RFLV`: tells these files from the log's."""
SCHEMA_VERSION = 1
BUSY_S = 5.0
"""How long to wait for another process that writes."""
SUFFIX = ".views"
OPEN_TRIES = 50
VALUE_ERRORS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)

# Without an adapter of its own, sqlite3 asks every None it binds for a `__conform__`, at the price of an
# exception raised and swallowed: 0.65 µs each on 3.11, half the time of writing a row of `steps`. The `get`
# of an empty dict also gives None for None, and is called without a frame of Python's.
_NOTHING: dict[None, None] = {}
sqlite3.register_adapter(type(None), _NOTHING.get)

_SCHEMA = Path(__file__).with_name("sql") / "views.sql"


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


class Views:
    """One connection to the read models; used by one thread at a time."""

    def __init__(
        self, path: str | os.PathLike[str] | None, *, busy_s: float = BUSY_S, scratch: bool = False
    ) -> None:
        """Open or make the file; None keeps the read models in memory, or, with `scratch`, in a
        temporary file when they grow.

        Raises `SchemaMismatch` for a file of a newer Refold or of something else, `StoreCorrupt` for a
        damaged one (delete it: everything in it can be built again).
        """
        self.path = None if path is None else Path(path)
        self._pid = os.getpid()
        try:
            self.connection = sqlite3.connect(
                str(self.path) if self.path is not None else "" if scratch else ":memory:",
                timeout=busy_s,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=128,
            )
        except sqlite3.Error as error:
            raise self._typed(error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.connection.close()
            raise self._typed(error) from error
        except BaseException:
            self.connection.close()
            raise

    @classmethod
    def of(cls, url: str, *, busy_s: float = BUSY_S) -> "Views":
        """The read models that belong to the store of this URL (or path)."""
        scheme, separator, rest = url.partition("://")
        if not separator:
            return cls(f"{url}{SUFFIX}", busy_s=busy_s)
        if scheme != "sqlite":  # in memory, as a user's own store may be anywhere: folded anew each time
            return cls(None)
        return cls(f"{rest.removeprefix('/')}{SUFFIX}", busy_s=busy_s)

    def _prepare(self) -> None:
        run = self.connection.execute
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA journal_size_limit = 67108864")
        with self.reading():
            (application,) = run("PRAGMA application_id").fetchone()
            (version,) = run("PRAGMA user_version").fetchone()
            (tables,) = run("SELECT COUNT(*) FROM sqlite_schema").fetchone()
        if application == APPLICATION_ID and version == SCHEMA_VERSION:
            return
        if application == APPLICATION_ID:
            raise SchemaMismatch(
                f"{self.place} has version {version}, this Refold knows version {SCHEMA_VERSION}: upgrade "
                "this process, or delete the file (it is built again from the log)"
            )
        if application or tables:
            raise SchemaMismatch(
                f"{self.place} is a SQLite file, but not one of Refold's read models: move it away"
            )
        self._turn_wal_on()
        with self.writing():
            for statement in _SCHEMA.read_text().split(";\n"):
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _turn_wal_on(self) -> None:
        """Switching fails at once, whatever the timeout, while another process does the same: queue up."""
        for _ in range(OPEN_TRIES):
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                self.connection.execute("BEGIN IMMEDIATE")  # waits for its turn
                self.connection.execute("COMMIT")
        self.connection.execute("PRAGMA journal_mode = WAL")

    @property
    def place(self) -> str:
        return "the read models in memory" if self.path is None else str(self.path)

    def close(self) -> None:
        """Idempotent."""
        if self._pid == os.getpid():
            self.connection.close()

    # ---- transactions

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time over all processes; rolled back on any error.

        IMMEDIATE, so that what is read inside is what the last writer left.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Everything read inside is of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            raise StoreError(f"{self.place} was opened before this process was forked; open it again here")
        connection = self.connection
        try:
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except VALUE_ERRORS:
            raise  # a row does not fit its table: the fault of a fold, not of the file
        except sqlite3.Error as error:
            raise self._typed(error) from error

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        try:
            return self.connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._typed(error) from error

    def _typed(self, error: sqlite3.Error) -> StoreError:
        code = int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
        what = f"{self.place}: {error}"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreBusy(f"{what}; another process is writing read models; try again")
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"{what}; free some space (the log is not affected)")
        if code == sqlite3.SQLITE_READONLY or (
            code == sqlite3.SQLITE_CANTOPEN and self._in_a_closed_folder()
        ):
            return StoreReadOnly(f"{what}; the file or its folder is not writable for this user")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return StoreCorrupt(f"{what}; delete it with its -wal file: it is built again from the log")
        return StoreError(f"{what}; look at the disk; the file may be deleted, the log is enough to build it")

    def _in_a_closed_folder(self) -> bool:
        effective = os.access in os.supports_effective_ids
        return self.path is not None and not os.access(self.path.parent, os.W_OK, effective_ids=effective)

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
