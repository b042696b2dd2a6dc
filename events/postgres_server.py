"""Connections to one log on a PostgreSQL server: the URL, the schema and its upgrades, typed errors."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import Connection, errors

from .errors import ConfigurationError, SchemaMismatch, StoreCorrupt, StoreError, StoreFull, StoreReadOnly

SCHEMA_VERSION = 1
OLDEST_SERVER = 150_000
DEFAULT_SCHEMA = "refold"
FROZEN_MS = 5_000
"""How long a transaction may wait for its process."""

_SQL = Path(__file__).with_name("sql")
_log = logging.getLogger("refold.postgres")


class Address:
    """Where a log is: what libpq is told, and which schema. Shown without the password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.schema = options.pop("schema", DEFAULT_SCHEMA)
        if not (self.schema.isidentifier() and self.schema.isascii() and len(self.schema) <= 63):
            raise ConfigurationError(
                f"schema={self.schema!r} in the URL: expected a name of ASCII letters, digits and underscores"
            )
        prepare = options.pop("prepare", "yes")
        if prepare not in ("yes", "no"):
            raise ConfigurationError(f"prepare={prepare!r} in the URL: expected yes or no")
        self.prepare = prepare == "yes"
        """No: behind a pooler that gives each transaction another connection."""
        rest = urlencode(options, quote_via=quote)
        self.dsn = urlunsplit(("postgresql", parts.netloc, parts.path, rest, ""))
        user, _, hosts = parts.netloc.rpartition("@")
        shown = f"{user.partition(':')[0]}@{hosts}" if user else hosts
        kept = {key: value for key, value in options.items() if key not in ("password", "passfile", "sslkey")}
        kept |= {"schema": self.schema} if self.schema != DEFAULT_SCHEMA else {}
        self.url = urlunsplit(("postgresql", shown, parts.path, urlencode(kept, quote_via=quote), ""))

    def key(self, what: str) -> int:
        """A number for an advisory lock of this schema."""
        return int.from_bytes(
            sha256(f"refold/{self.schema}/{what}".encode()).digest()[:8], "big", signed=True
        )


def named_queries(schema: str) -> dict[str, bytes]:
    """The statements of `sql/postgres.sql` by name, for this schema."""
    blocks = (block.split("\n", 1) for block in (_SQL / "postgres.sql").read_text().split("-- name: ")[1:])
    return {name.strip(): in_schema(body, schema) for name, body in blocks}


def in_schema(sql: str, schema: str) -> bytes:
    """The SQL without comments, its tables in this schema."""
    lines = (line.strip() for line in sql.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(line for line in lines if line).replace("refold.", f'"{schema}".').encode()


class Server:
    """One writing connection, and as many reading ones as threads read at once."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.address = Address(url)
        self.lock = threading.Lock()
        """Held by whoever uses the writer."""
        self._closed = False
        self._writer: Connection[Any] | None = None
        self._readers: list[Connection[Any]] = []
        try:
            with self.lock:
                self._open(self.writer(), create)
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise self.typed(error, "open") from error
            raise

    # ---- connections

    def writer(self) -> Connection[Any]:
        """The writing connection; only while holding `lock`."""
        if self._writer is None or self._writer.closed:
            self._writer = self.connect()
        return self._writer

    def drop_writer(self) -> None:
        """Give up the writing connection after an error that leaves its state in doubt."""
        connection, self._writer = self._writer, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def connect(self) -> Connection[Any]:
        """A new connection; each statement is a transaction unless one is begun."""
        if self._closed:
            raise StoreError(f"{self.address.url} is closed: open it again")
        connection = Connection.connect(
            self.address.dsn,
            autocommit=True,
            prepare_threshold=0 if self.address.prepare else None,
            application_name="refold",
        )
        if self.address.prepare:
            # Arrays make PostgreSQL plan anew every time: 0.83 ms an append instead of 0.46 (fsync off).
            connection.execute("SET plan_cache_mode = force_generic_plan")
            # A process that freezes in the middle of a transaction must not hold up the others for ever.
            connection.execute(f"SET idle_in_transaction_session_timeout = {FROZEN_MS}".encode())
        return connection

    @contextmanager
    def reading(self, *, fresh: bool = False) -> Iterator[Connection[Any]]:
        """A reading connection, of a small stock or a fresh one. After an error it is not put back."""
        try:
            connection = self.connect() if fresh else self._readers.pop()
        except IndexError:
            connection = self.connect()
        try:
            yield connection
        except BaseException:
            with suppress(psycopg.Error):
                connection.close()
            raise
        if self._closed or connection.closed:
            connection.close()
        else:
            self._readers.append(connection)

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        with self.lock:
            self.drop_writer()

    # ---- opening

    def _open(self, connection: Connection[Any], create: bool) -> None:
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            raise StoreError(
                f"{self.address.url} is PostgreSQL {version // 10_000}; Refold needs "
                f"{OLDEST_SERVER // 10_000} or newer"
            )
        (durable,) = _one(connection, b"SHOW synchronous_commit")
        if durable == "off":
            raise ConfigurationError(
                f"{self.address.url}: synchronous_commit is off for this user or database, so a crash of "
                "the server loses events that were acknowledged: "
                "ALTER ROLE … SET synchronous_commit = on"
            )
        (encoding,) = _one(connection, b"SHOW server_encoding")
        if encoding != "UTF8":
            raise ConfigurationError(
                f"{self.address.url}: the database's encoding is {encoding}; make one with ENCODING 'UTF8'"
            )
        found = self._schema(connection)
        if found == 0 and not create:
            raise StoreError(
                f"no store at {self.address.url} (schema {self.address.schema}); give an existing one"
            )
        if found != SCHEMA_VERSION:
            self._migrate(connection)

    def _schema(self, connection: Connection[Any]) -> int:
        """Version of the schema; 0 when there is none."""
        schema = self.address.schema
        (meta, tables) = _one(
            connection,
            b"SELECT to_regclass(%s) IS NOT NULL, (SELECT COUNT(*) FROM pg_tables WHERE schemaname = %s)",
            (f'"{schema}".meta', schema),
        )
        if not meta:
            if tables:
                raise SchemaMismatch(
                    f"schema {schema!r} of {self.address.url} has {tables} tables of another application; "
                    "name another schema: …?schema=NAME"
                )
            return 0
        row = connection.execute(
            in_schema("SELECT value FROM refold.meta WHERE key = 'schema_version'", schema)
        ).fetchone()
        if row is None or not str(row[0]).isdecimal():
            raise StoreCorrupt(
                f"{self.address.url} does not say which schema version it has; restore a backup"
            )
        version = int(row[0])
        if version > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{self.address.url} has schema version {version}, this Refold knows versions up to "
                f"{SCHEMA_VERSION}: it was written by a newer one; upgrade this process"
            )
        return version

    def _migrate(self, connection: Connection[Any]) -> None:
        """Bring the schema up to date, once, whoever of several starting processes comes first."""
        schema = self.address.schema
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (self.address.key("schema"),))
            found = self._schema(connection)
            if found == 0:
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'.encode())
                table = "CREATE TABLE refold.meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
                connection.execute(in_schema(table, schema))
            for version in range(found + 1, SCHEMA_VERSION + 1):
                for statement in self.migration(version):
                    connection.execute(statement)
                connection.execute(
                    in_schema(
                        "INSERT INTO refold.meta (key, value) VALUES ('schema_version', %s) "
                        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        schema,
                    ),
                    (str(version),),
                )

    def migration(self, version: int) -> list[bytes]:
        """The statements that lead to this version of the schema from the one before."""
        script = in_schema((_SQL / f"postgres_{version}.sql").read_text(), self.address.schema)
        # Not within the body of a function: that is between two `$$`.
        return re.split(rb";\n(?=(?:[^$]|\$\$[^$]*\$\$)*\Z)", script)

    # ---- errors

    def typed(self, error: Exception, verb: str) -> StoreError:
        """The error of ours that says what an error of PostgreSQL's means."""
        text = " ".join(str(error).split())
        what = f"cannot {verb} {self.address.url}: {text}"
        if isinstance(error, errors.ReadOnlySqlTransaction | errors.InsufficientPrivilege):
            return StoreReadOnly(f"{what}; connect to the primary, as a user who may write there")
        if isinstance(error, errors.DiskFull | errors.OutOfMemory):
            return StoreFull(f"{what}; free some space on the server (nothing was stored, nothing was lost)")
        if isinstance(error, errors.DataCorrupted | errors.IndexCorrupted):
            return StoreCorrupt(f"{what}; the database is damaged: restore a backup")
        if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
            return StoreError(f"{what}; somebody has dropped the tables: restore a backup")
        return StoreError(f"{what}; look at the server, and at the network between")


def _one(connection: Connection[Any], query: bytes, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return tuple(row)
