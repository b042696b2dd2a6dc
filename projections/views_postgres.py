"""The read models of a log on PostgreSQL: tables in its schema, one set for all processes.

Whoever folds holds an advisory lock of its transaction; rows and positions are written in it, and it does
not wait for the disk: a crash of the server takes back its last rows together with the position they
stand at. No setting outlives a transaction, so a pooler may give each one another connection.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, errors

from ..events.errors import ConfigurationError, StoreBusy, StoreError
from ..events.postgres_connect import Patient, unhurried
from ..events.postgres_server import FROZEN_MS, Server
from .projection import Table, Value
from .views import Changes, Views, Write

BUSY_S = 60.0
"""How long to wait for another process that writes: it may be putting indexes on a million rows."""
BUSY_TIMES, LONG_TIMES = 10, 360
"""How many times as long as usual the server may be silent: while one waits for a turn, or for indexes."""
SWAP_S = 2.0
"""How long those who read wait for a swap that waits for somebody who has been reading all the time."""
VALUE_ERRORS = (psycopg.DataError, psycopg.IntegrityError, UnicodeError)
_TYPES = {"TEXT": 'TEXT COLLATE "C"', "INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA"}
_ARRAYS = {"TEXT": "text[]", "INTEGER": "bigint[]", "REAL": "float8[]", "BLOB": "bytea[]"}
_SCHEMA = Path(__file__).with_name("sql") / "views_postgres.sql"
_BEGIN = (
    "SELECT set_config('search_path', %s, true), set_config('synchronous_commit', 'off', true), "
    "set_config('lock_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)"
)
_ASK = "SELECT set_config('search_path', %s, true), set_config('plan_cache_mode', 'force_custom_plan', true)"


class PostgresViews(Views):
    """Used by any number of threads; those that write take turns."""

    shared = True
    # Characters of JSON are those of its text: an array has a name when it has it as one of its elements.
    may_vote = (
        "(voters = '[]' OR voters::jsonb @> to_jsonb(?::text)) "
        "AND NOT excluded::jsonb @> to_jsonb(?::text) "
        # No jsonb holds a NUL, and what people said with their votes may: it goes, and with it, lest half of
        # one stays behind, every backslash.
        r"AND NOT replace(replace(votes, '\\', ''), '\u0000', '')::jsonb "
        r"@> jsonb_build_array(jsonb_build_object('by', replace(?::text, '\', '')))"
    )

    def __init__(self, server: Server, *, busy_s: float = BUSY_S) -> None:
        """Raises a `StoreError`; `StoreReadOnly` where there are no read models and none can be made."""
        self._server = server
        self._busy_ms = max(int(busy_s * 1000), 1)
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._writer: Patient | None = None
        self._mine = threading.local()
        self._there: frozenset[str] = frozenset()
        self._odd = False
        """Whether there are texts with characters that PostgreSQL cannot keep."""
        if not self.has("projections", "parked_events", "unknown_events"):
            with self.writing():
                self._execute(_SCHEMA.read_text())

    @property
    def place(self) -> str:
        return f"schema {self._server.address.schema} of {self._server.address.url}"

    def close(self) -> None:
        if self._pid == os.getpid():
            with self._turn:
                self._drop_writer()

    def _drop_writer(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    # ---- transactions

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._check_process()
        with self._turn, self._typing("write"):
            try:
                if self._writer is None or self._writer.closed:
                    self._writer = self._server.connect()
                connection = self._writer
                with unhurried(connection, BUSY_TIMES), connection.pipeline():
                    connection.execute("BEGIN")
                    wait, frozen = f"{self._busy_ms}ms", f"{FROZEN_MS}ms"
                    connection.execute(_BEGIN, (self._path, wait, frozen))
                    key = self._server.address.key("read models")
                    connection.execute("SELECT pg_advisory_xact_lock(%s::bigint)", (key,))
                self._mine.connection = connection
                yield
                connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back(error)
                raise
            finally:
                self._mine.connection = None

    def _roll_back(self, error: BaseException) -> None:
        try:
            if self._writer is None or not isinstance(error, Exception):
                self._drop_writer()  # interrupted anywhere: nobody knows what the connection expects
            else:
                self._writer.execute("ROLLBACK")
        except psycopg.Error:
            self._drop_writer()

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._typing("read"):
            connection = self._server.connect()
            try:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # It holds nobody up who appends or folds, and whoever compares takes as long as it takes.
                connection.execute(_BEGIN, (self._path, f"{self._busy_ms}ms", "0"))
                self._mine.connection = connection
                yield
            finally:
                self._mine.connection = None
                connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        mine = getattr(self._mine, "connection", None)
        if mine is not None:
            return self._read(mine.execute(_marked(sql), [*map(_fitted, parameters)]).fetchall())
        self._check_process()
        with self._typing("read"):
            try:
                with self._server.reading() as connection:
                    return self._ask(connection, sql, parameters)
            except (psycopg.OperationalError, errors.FeatureNotSupported):
                # The server was restarted, a connection was cut, or a prepared query knows other columns.
                with self._server.reading(fresh=True) as connection:
                    return self._ask(connection, sql, parameters)

    def _ask(self, connection: Connection[Any], sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with connection.pipeline():
            connection.execute("BEGIN READ ONLY")
            # A page of common labels: 0.4 ms when the label is known, 600 under a plan for any.
            connection.execute(_ASK, (self._path,))
            found = connection.execute(_marked(sql), [*map(_fitted, parameters)])
            connection.execute("COMMIT")
            return self._read(found.fetchall())

    def rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        with self._mine.connection.cursor(name="rows") as cursor:
            cursor.itersize = 1_000
            cursor.execute(_marked(sql))
            for row in cursor:
                yield from self._read([row])

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        count: int = self._mine.connection.execute(_marked(sql), [*map(_fitted, parameters)]).rowcount
        return count

    def _execute(self, sql: str) -> None:
        """Several statements at once, which cannot be prepared: of those that may take long."""
        with unhurried(self._mine.connection, LONG_TIMES):
            self._mine.connection.execute(sql.encode(), prepare=False)

    @property
    def _path(self) -> str:
        return f'"{self._server.address.schema}"'

    # ---- rows

    def writer_of(self, table: Table, name: str) -> Write:
        short, rows = (
            f"COPY {name} ({', '.join(names)}) FROM STDIN".encode() for names in (table.usual, table.names)
        )
        delete = _delete(table, name)

        def write(changes: Changes) -> None:
            connection = self._mine.connection
            if changes.stored:
                keys = self._fit(changes.stored)
                connection.execute(delete, [list(part) for part in zip(*keys, strict=True)])
            for statement, many in ((short, changes.short), (rows, changes.rows)):
                if many:
                    with connection.cursor().copy(statement) as copy:
                        for row in self._fit(many):
                            copy.write_row(row)

        return write

    def notice(self, events: Iterable[bytes]) -> None:
        self._odd = self._odd or any(b"\\u000" in event for event in events)

    def _fit(self, rows: Iterable[Sequence[Value]]) -> Iterable[Sequence[Value]]:
        """PostgreSQL's texts have no NUL: it becomes two characters, in an order that stays the same."""
        return [tuple(map(_fitted, row)) for row in rows] if self._odd else rows

    def _read(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        for place, row in enumerate(rows):
            for value in row:
                if type(value) is str and "\1" in value:
                    self._odd = True
                    rows[place] = tuple(map(_unfitted, row))
                    break
        return rows

    # ---- tables

    def has(self, *tables: str) -> bool:
        if not self._there.issuperset(tables):
            found = self.query("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()")
            self._there = frozenset(name for (name,) in found)
        return self._there.issuperset(tables)

    def create(self, table: Table, name: str, *, indexes: bool) -> None:
        try:
            self._execute(_create(table, name) + (_indexes(table, name) if indexes else ""))
        except errors.DuplicateTable as error:
            raise ConfigurationError(
                f"the projection's table {name!r} is there already, and it is no read model: the log uses "
                f"that name in {self.place}; give the projection, and its table, another one"
            ) from error

    def put_live(self, table: Table, built: str) -> None:
        # Readers wait from the DROP on, so what takes its time comes before.
        self._execute(_indexes(table, built))
        self._execute(f"ANALYZE {built}; SET LOCAL lock_timeout = '{SWAP_S}s'")
        self._execute(f"DROP TABLE IF EXISTS {table.name}; ALTER TABLE {built} RENAME TO {table.name}")
        self._execute(f"SET LOCAL lock_timeout = '{self._busy_ms}ms'")

    def source(self, table: str, alias: str = "", *, index: str = "") -> str:
        return f"{table} {alias}"

    # ---- errors

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise StoreError(f"{self.place} was opened before this process was forked; open it again here")

    @contextmanager
    def _typing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            raise StoreBusy(f"{self.place}; another process is writing read models; try again") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise StoreError(
                f"{self.place}: {error}; somebody has dropped read models: refold rebuild"
            ) from error
        except (*VALUE_ERRORS, psycopg.ProgrammingError) as error:
            of_a_row = isinstance(error, VALUE_ERRORS) or type(error) is psycopg.ProgrammingError
            if verb == "write" and of_a_row:
                raise  # a row does not fit its table: the fault of a fold, not of the server
            raise self._server.typed(error, verb) from error
        except psycopg.Error as error:
            raise self._server.typed(error, verb) from error


@cache
def _marked(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


def _create(table: Table, name: str) -> str:
    columns = []
    for column in table.columns:
        kind, *null = column.type.split(" ", 1)
        default = ""
        if column.name in table.rare and column.default is not None:
            literal = f"'{column.default}'" if isinstance(column.default, str) else str(column.default)
            default = f" DEFAULT {literal}"
        columns.append(" ".join([column.name, _TYPES[kind], *null]) + default)
    return f"CREATE TABLE {name} ({', '.join(columns)}, PRIMARY KEY ({', '.join(table.key)}));\n"


def _indexes(table: Table, name: str) -> str:
    """Under names that the server chooses: those of the live table are still taken."""
    return ";\n".join(
        f"CREATE INDEX ON {name} ({', '.join(index.columns)})"
        + (f" WHERE {index.where}" if index.where else "")
        for index in table.indexes
    )


def _delete(table: Table, name: str) -> bytes:
    """A scalar subquery is always a look into the index, whatever the plan was made for."""
    kinds = {column.name: column.type.split(" ")[0] for column in table.columns}
    arrays = ", ".join(f"%s::{_ARRAYS[kinds[key]]}" for key in table.key)
    same = " AND ".join(f"old.{key} = wanted.{key}" for key in table.key)
    return (
        f"DELETE FROM {name} WHERE ctid = ANY(ARRAY(SELECT (SELECT old.ctid FROM {name} AS old WHERE {same}) "
        f"FROM unnest({arrays}) AS wanted ({', '.join(table.key)})))"
    ).encode()


def _fitted(value: Value) -> Value:
    if type(value) is bool:
        return int(value)
    if type(value) is str and ("\0" in value or "\1" in value):
        return value.replace("\1", "\1\2").replace("\0", "\1\1")
    return value


def _unfitted(value: Any) -> Any:
    if type(value) is str and "\1" in value:
        return value.replace("\1\1", "\0").replace("\1\2", "\1")
    return value
