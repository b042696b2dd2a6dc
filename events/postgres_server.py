"""Connections to one log on a PostgreSQL server: which one that is, the schema and its upgrades, errors."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import Connection, errors

from .errors import ConfigurationError, SchemaMismatch, StoreCorrupt, StoreError, StoreFull, StoreReadOnly
from .postgres_address import SQL, Address, in_schema
from .postgres_connect import FIRST_S, Dial, Patient, on_a_loop

SCHEMA_VERSION = 1
OLDEST_SERVER = 150_000
FROZEN_MS = 5_000
"""How long a transaction may wait for its process."""
_log = logging.getLogger("refold.postgres")


class Server:
    """One writing connection, and as many reading ones as threads read at once.

    With several hosts in the URL they are to the one that can be written; when that changes, what this
    process was told is stored must be there, too.
    """

    def __init__(self, url: str, *, create: bool = True, reading: bool = False) -> None:
        self.address = Address(url)
        self.lock = threading.Lock()
        """Held by whoever uses the writer."""
        self.acknowledged: tuple[str, int, bytes] | None = None
        """Stream, version and hash of the last row that was stored for us."""
        self.in_doubt = False
        """A commit ended without an answer: what can be read here may be on this server alone."""
        self.standby = False
        """Whether it is a copy that only follows; those who only read may use one."""
        self._reading = reading
        self._opened = self._closed = False
        self._hanging: tuple[str, int, int] | None = None
        """Host, port and process of the server's that was silent when we gave it up."""
        self._writer: Patient | None = None
        self._readers: list[Patient] = []
        self._era = 0
        """Counts the connections that were lost: older ones may lead to a server that is out of office."""
        self._dial = Dial(self._make)
        self._dial_directly = Dial(lambda: self._make(self.address.direct))
        try:
            with self.lock:
                self._writer = self._make()
                self._writer.patience_s = None  # an upgrade takes its time
                self._open(self._writer, create)
                self._writer.patience_s = self.address.patience_s
                self._opened = True
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise self.typed(error, "open") from error
            raise

    # ---- connections

    def writer(self) -> Patient:
        """The writing connection; only while holding `lock`."""
        writer, self._writer = self._writer, None
        if writer is not None and writer.era != self._era:  # others were cut: this one will be, too
            writer.close()
        if writer is None or writer.closed:
            writer = self.connect()
        self._writer = writer
        return writer

    @contextmanager
    def writing(self) -> Iterator[Patient]:
        """The same for who does not hold it. An event loop does not wait for a commit that hangs."""
        if not self.lock.acquire(timeout=FIRST_S if on_a_loop() else -1):
            hangs = f"cannot write {self.address.url}: a commit is under way that is not answered"
            raise StoreError(hangs).soon()
        try:
            yield self.writer()
        except psycopg.Error as error:
            self.drop_writer()
            raise self.typed(error, "write") from error
        finally:
            self.lock.release()

    def drop_writer(self) -> None:
        """Give up the writing connection after an error that leaves its state in doubt."""
        connection, self._writer = self._writer, None
        self.in_doubt = True
        if connection is not None:
            if connection.closed:
                self._lost(connection)
            with suppress(psycopg.Error):
                connection.close()

    def connect(self) -> Patient:
        """A new connection; each statement is a transaction unless one is begun."""
        return self._dial.connect()

    def connect_directly(self) -> Patient:
        """One that stays ours between transactions, past a pooler when there is one."""
        return self._dial_directly.connect()

    @property
    def direct(self) -> bool:
        """Whether there is a way to have such a one."""
        return self.address.prepare or bool(self.address.direct)

    def _make(self, dsn: str = "") -> Patient:
        if self._closed:
            raise StoreError(f"{self.address.url} is closed: open it again")
        connection = Patient.connect(
            dsn or self.address.dsn,
            autocommit=True,
            prepare_threshold=0 if self.address.prepare else None,
            application_name="refold",
        )
        connection.patience_s, connection.era = self.address.patience_s, self._era
        connection.seat = (connection.info.host, connection.info.port, connection.info.backend_pid)
        try:
            if self.address.prepare:
                # Arrays make PostgreSQL plan anew every time: 0.83 ms an append instead of 0.46 (fsync off).
                # What it takes for expensive it compiles: with 100,000 runs a look took 60 ms, not 0.6.
                # A process that freezes in the middle of a transaction must not hold up others for ever.
                connection.execute(
                    "SET plan_cache_mode = force_generic_plan; SET jit = off; "
                    f"SET idle_in_transaction_session_timeout = {FROZEN_MS}".encode(),
                    prepare=False,
                )
            self._check(connection)
        except ConfigurationError as error:
            connection.close()
            if self._opened:  # it was changed since: whoever executes waits until it is changed back
                raise StoreError(str(error)).soon() from error
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def reading(self, *, fresh: bool = False) -> Iterator[Patient]:
        """A reading connection, of a small stock or a fresh one. After an error it is not put back."""
        try:
            connection = self.connect() if fresh else self._readers.pop()
        except IndexError:
            connection = self.connect()
        try:
            yield connection
        except BaseException:
            if connection.closed:
                self._lost(connection)
            with suppress(psycopg.Error):
                connection.close()
            raise
        if connection.closed:
            self._lost(connection)
        elif self._closed or connection.era != self._era:
            connection.close()
        else:
            self._readers.append(connection)

    def _lost(self, connection: Patient) -> None:
        """The other connections may lead to a server that is out of office, too."""
        if connection.silent:
            self._hanging = connection.seat
        self._forget_readers()

    def _forget_readers(self) -> None:
        self._era += 1
        while self._readers:
            with suppress(IndexError, psycopg.Error):
                self._readers.pop().close()

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._dial.close()
        self._dial_directly.close()
        self._forget_readers()
        with self.lock:
            self.drop_writer()

    def settle_doubt(self, barrier: bytes) -> None:
        """Store something, since a commit ended without an answer.

        What it wrote may be visible on a server that came back before any standby had it. Whoever acts on
        what he reads from now on finds it where this has gone, too: it is later in the same log.
        """
        with self.writing() as connection:
            connection.execute(barrier)
            self.in_doubt = False

    # ---- which server that is

    def _check(self, connection: Patient) -> None:
        """Whether what this server says may be believed, and whether it keeps what it acknowledges."""
        where = f"{connection.info.host}:{connection.info.port}"
        standby, durable, others = _one(
            connection,
            b"SELECT pg_is_in_recovery(), current_setting('synchronous_commit'),"
            b" current_setting('synchronous_standby_names')",
        )
        if standby and not self._reading:
            raise StoreReadOnly(
                f"{self.address.url}: {where} is a standby, which only follows; name all hosts in the URL "
                "(h1,h2,h3), and the one that can be written is found"
            ).soon()
        if durable == "off" or (durable == "local" and others):
            raise ConfigurationError(
                f"{self.address.url}: synchronous_commit is {durable} for this user or database, so a crash "
                "of the server loses events that were acknowledged: "
                "ALTER ROLE … SET synchronous_commit = on"
            )
        if connection.seat[:2] == (self._hanging or ())[:2]:
            self._still_hangs(connection, where)
        if self.acknowledged is not None:
            self._has(connection, self.acknowledged, where)
        self.standby = standby

    def _still_hangs(self, connection: Patient, where: str) -> None:
        """A commit that no standby has confirmed goes on waiting when its client is gone; one is enough."""
        assert self._hanging is not None
        waits = b"SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        if self.address.prepare and connection.execute(waits, (self._hanging[2],)).fetchone() is not None:
            raise StoreError(
                f"cannot write {self.address.url}: {where} waits for a standby to confirm a commit, and so "
                "do we: look at the standbys"
            ).soon()
        self._hanging = None

    def _has(self, connection: Patient, last: tuple[str, int, bytes], where: str) -> None:
        """Raise when a row is missing that was stored for us: a copy that lags or is out of date."""
        stream, version, expected = last
        query = in_schema(
            "SELECT hash FROM refold.stored_events WHERE originator_id = %s AND originator_version = %s",
            self.address.schema,
        )
        found = connection.execute(query, (stream, version)).fetchone()
        if found is None or found[0] != expected:
            raise StoreError(
                f"{self.address.url}: {where} does not have event {version} of {stream!r}, which was "
                "acknowledged to this process: it lags behind, it is not the primary any more, or a failover "
                "has lost events because replication is not synchronous. This process waits for a server "
                "that has it; start it again to go on without"
            ).soon()

    # ---- opening

    def _open(self, connection: Patient, create: bool) -> None:
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            raise StoreError(
                f"{self.address.url} is PostgreSQL {version // 10_000}; Refold needs "
                f"{OLDEST_SERVER // 10_000} or newer"
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
            if self.standby:
                raise SchemaMismatch(
                    f"{self.address.url} has schema version {found}, this Refold expects "
                    f"{SCHEMA_VERSION}, and a standby cannot be brought up to date: open the primary once"
                )
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
        script = in_schema((SQL / f"postgres_{version}.sql").read_text(), self.address.schema)
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
        found = StoreError(f"{what}; look at the server, and at the network between")
        return found.soon() if isinstance(error, psycopg.OperationalError) else found


def _one(connection: Connection[Any], query: bytes, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return tuple(row)
