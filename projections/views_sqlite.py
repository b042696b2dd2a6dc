"""The file of the read models, `X.db.views`: a second SQLite database that may be lost at any time.

WAL and NORMAL: a power cut may take back the last rows, together with the position they stand at, and
the runner folds those events again. It is never attached to the log's transaction: WAL files attached to
each other are not crash-atomic, and cost 1.6 to 2.9 times as much a commit.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..events.errors import (
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from .projection import Table
from .views import BUSY_S, Changes, Views, Write, create_indexes, create_table

APPLICATION_ID = 0x5246_4C56
"""`RFLV`: tells these files from the log's."""
SCHEMA_VERSION = 1
SUFFIX = ".views"
OPEN_TRIES = 50
VALUE_ERRORS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)

# Without an adapter of its own, sqlite3 asks every None it binds for a `__conform__`, at the price of an
# exception raised and swallowed: 0.65 µs each on 3.11, half the time of writing a row of `steps`. The `get`
# of an empty dict also gives None for None, and is called without a frame of Python's.
_NOTHING: dict[None, None] = {}
sqlite3.register_adapter(type(None), _NOTHING.get)

_SCHEMA = Path(__file__).with_name("sql") / "views.sql"


class SqliteViews(Views):
    """One connection to the read models; used by one thread at a time."""

    may_vote = (
        "(voters = '[]' OR EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(voters) THEN voters END) "
        "WHERE value = ?)) "
        "AND NOT EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(excluded) THEN excluded END) "
        "WHERE value = ?) "
        "AND NOT EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(votes) THEN votes END) "
        "WHERE json_extract(value, '$.by') = ?)"
    )

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
    def of(cls, url: str, *, busy_s: float = BUSY_S) -> "SqliteViews":
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
    def writing(self) -> Iterator[None]:
        """IMMEDIATE, so that what is read inside is what the last writer left."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        if self._pid != os.getpid():
            raise StoreError(f"{self.place} was opened before this process was forked; open it again here")
        connection = self.connection
        try:
            connection.execute(begin)
            try:
                yield
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
        try:
            return self.connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._typed(error) from error

    def rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        return self.connection.execute(sql)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self.connection.execute(sql, parameters).rowcount

    def writer_of(self, table: Table, name: str) -> Write:
        short, rows = _upsert(name, table.usual), _upsert(name, table.names)
        gone = f"DELETE FROM {name} WHERE {' AND '.join(f'{key} = ?' for key in table.key)}"

        def write(changes: Changes) -> None:
            for statement, many in ((short, changes.short), (rows, changes.rows), (gone, changes.gone)):
                if many:
                    self.connection.executemany(statement, many)

        return write

    @contextmanager
    def filling(self) -> Iterator[None]:
        """64 MiB for pages instead of 2 while a table grows from nothing: a sixth less time per row."""
        run = self.connection.execute
        (usual,) = run("PRAGMA cache_size").fetchone()
        run("PRAGMA cache_size = -65536")
        try:
            yield
        finally:
            run(f"PRAGMA cache_size = {usual}")
            run("PRAGMA shrink_memory")

    def notice(self, events: Iterable[bytes]) -> None:
        """SQLite takes every text."""

    # ---- tables

    def has(self, *tables: str) -> bool:
        known = {name for (name,) in self.query("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        return known.issuperset(tables)

    def create(self, table: Table, name: str, *, indexes: bool) -> None:
        self.run(create_table(table, name))
        if indexes:
            self._create_indexes(table)

    def put_live(self, table: Table, built: str) -> None:
        self.run(f"DROP TABLE IF EXISTS {table.name}")  # its indexes have the names that the new ones get
        self.run(f"ALTER TABLE {built} RENAME TO {table.name}")
        self._create_indexes(table)

    def _create_indexes(self, table: Table) -> None:
        for statement in create_indexes(table):
            self.run(statement)

    def source(self, table: str, alias: str = "", *, index: str = "") -> str:
        return f"{table} {alias}" + (f" INDEXED BY {index}" if index else "")

    # ---- errors

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


def _upsert(table: str, names: Sequence[str]) -> str:
    marks = ", ".join("?" * len(names))
    return f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})"
