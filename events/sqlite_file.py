"""A SQLite file as Refold uses it: its connections, its schema, and what its errors mean."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote

from .clock import SystemClock
from .errors import SchemaMismatch, StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReadOnly
from .store import SCHEMA_VERSION

APPLICATION_ID = 0x5246_4C44
"""`RFLD`: at byte 68 of every Refold file, so that `file` and others can tell what it is."""
BUSY_S = 5.0
"""How long to wait for another process that writes, before `StoreBusy`."""
CACHED_STATEMENTS = 128
"""The library keeps one statement, and so prepares 12 µs worth of SQL in each commit, not 6."""
KEEP_WAL_BYTES = 64 * 1024 * 1024
"""A write-ahead log that one huge value has blown up shrinks to this at the next checkpoint."""
ERRORS = (sqlite3.Error, UnicodeError)
"""What the sqlite3 module raises; the second for a message that quotes a damaged schema."""

_SQL = Path(__file__).with_name("sql")


def _named_queries(text: str) -> dict[str, str]:
    blocks = (block.split("\n", 1) for block in text.split("-- name: ")[1:])
    return {name.strip(): _without_comments(body) for name, body in blocks}


def _without_comments(sql: str) -> str:
    lines = (line.strip() for line in sql.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(line for line in lines if line)


QUERIES = _named_queries((_SQL / "sqlite.sql").read_text())
"""The statements of `sql/sqlite.sql` by name."""


class File:
    """One writing connection, and as many reading ones as threads read at once.

    The library's pool is not used: there a writer that waits its turn holds the readers up.
    """

    synchronous = "FULL"
    """With NORMAL a power cut loses acknowledged events (1,172 of 1,500 images; FULL: none)."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self.lock = threading.Lock()
        """Held by whoever uses the writer."""
        self._database = str(path)
        self._uri = False
        self._pid = os.getpid()
        self._closed = False
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        if not create and not path.exists():
            raise StoreError(f"no store at {path}; give the path of an existing one")
        if not create and _is_empty(path):
            raise StoreCorrupt(f"{path} is empty: it is no store, or one that was cut to nothing; restore it")
        try:
            self._open()
        except ERRORS as error:
            self.close()
            raise self.typed(error, "open") from error
        except BaseException:
            self.close()
            raise

    # ---- connections

    def writer(self) -> sqlite3.Connection:
        """The writing connection; only while holding `lock`."""
        if self._pid != os.getpid():
            raise StoreError(f"{self.path} was opened before this process was forked; open it again here")
        if self._closed:
            raise StoreError(f"{self.path} is closed: open it again")
        if self._writer is None:
            self._writer = self._connect()
        return self._writer

    def drop_writer(self) -> None:
        """Give up the writing connection after an error that leaves its state in doubt."""
        connection, self._writer = self._writer, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction on the writer: committed at the end, rolled back on any error."""
        with self.lock:
            connection = self.writer()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                self.drop_writer()  # which rolls back
                if isinstance(error, ERRORS):
                    raise self.typed(error, "write") from error
                raise

    def reader(self) -> sqlite3.Connection:
        """A reading connection; give it back with `put_back`."""
        if self._pid != os.getpid():
            raise StoreError(f"{self.path} was opened before this process was forked; open it again here")
        try:
            return self._readers.pop()
        except IndexError:
            return self._connect(read_only=True)

    def put_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._readers.append(connection)

    def close(self) -> None:
        """Close all connections. The writer goes last: its settings govern the final checkpoint."""
        self._closed = True
        if self._pid != os.getpid():
            return
        while self._readers:
            self._readers.pop().close()
        with self.lock:
            self.drop_writer()

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"{self.path} is closed: open it again")
        connection = sqlite3.connect(
            self._database,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
            uri=self._uri,
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {KEEP_WAL_BYTES}")
            if read_only:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def options(self) -> dict[str, int | str]:
        """How the writing connection is set by SQLite's own account; to ask for it is not to have it."""
        names = ("journal_mode", "synchronous", "page_size")
        with self.lock:
            connection = self.writer()
            try:
                return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
            except ERRORS as error:
                raise self.typed(error, "read") from error

    # ---- opening

    def _open(self) -> None:
        try:
            found = self._look()
        except sqlite3.OperationalError as error:
            if not self._only_readable():
                raise
            # SQLite cannot make the -shm file that a WAL database needs. Nobody is writing (there
            # is no -wal), so it can be read as it lies there.
            self.drop_writer()
            self._database, self._uri = f"file:{quote(str(self.path.absolute()))}?immutable=1", True
            found = self._look()
            if not found:
                raise self.typed(error, "open") from error
        if found != SCHEMA_VERSION:
            self._bring_up_to_date(found)
        elif not self._uri and self._journal_mode() != "wal":  # a copy made with VACUUM INTO, for one
            with suppress(sqlite3.OperationalError):
                self._turn_wal_on()

    def _journal_mode(self) -> str:
        (mode,) = self.writer().execute("PRAGMA journal_mode").fetchone()
        return str(mode)

    def _only_readable(self) -> bool:
        wal = Path(f"{self.path}-wal")
        effective = os.access in os.supports_effective_ids
        return (
            self.path.exists()
            and not os.access(self.path.parent, os.W_OK, effective_ids=effective)
            and not (wal.exists() and wal.stat().st_size)
        )

    def _look(self) -> int:
        """The schema in one snapshot: between two others, another process may finish making the tables."""
        connection = self.writer()
        connection.execute("BEGIN")
        try:
            return self._schema(connection)
        finally:
            if connection.in_transaction:  # not so after some errors
                connection.execute("ROLLBACK")

    def _schema(self, connection: sqlite3.Connection) -> int:
        """Version of the schema; 0 for an empty file. Refuses what is not ours, before touching it."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
            if application or tables:
                raise SchemaMismatch(
                    f"{self.path} is a SQLite file of another application (application_id "
                    f"{application:#x}, {tables} tables and indexes), not a Refold store; give another path"
                )
            return 0
        row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        if row is None or not row[0].isdecimal():
            raise StoreCorrupt(f"{self.path} does not say which schema version it has; restore a backup")
        version = int(row[0])
        if version > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{self.path} has schema version {version}, this Refold knows versions up to "
                f"{SCHEMA_VERSION}: it was written by a newer one; upgrade this process"
            )
        return version

    def _bring_up_to_date(self, found: int) -> None:
        try:
            self._migrate()
        except (sqlite3.OperationalError, StoreReadOnly) as error:
            if found and (isinstance(error, StoreReadOnly) or _code(error) == sqlite3.SQLITE_READONLY):
                raise StoreReadOnly(
                    f"{self.path} has schema version {found} and must be brought to {SCHEMA_VERSION}, but "
                    "the file or its folder is not writable for this user; open it as one who may write "
                    "there, or open a copy"
                ) from error
            raise

    def _migrate(self) -> None:
        """Bring the schema up to date, once, whoever of several starting processes comes first."""
        self._turn_wal_on()
        with self.writing() as connection:
            for version in range(self._schema(connection) + 1, SCHEMA_VERSION + 1):
                for statement in self.migration(version):
                    connection.execute(statement)
                connection.execute(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES ('schema_version', ?)", (str(version),)
                )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    @staticmethod
    def migration(version: int) -> list[str]:
        """The statements that lead to this version of the schema from the one before."""
        return _without_comments((_SQL / f"sqlite_{version}.sql").read_text()).split(";\n")

    def _turn_wal_on(self) -> None:
        """Switching fails at once, whatever the timeout, while another process does the same: try again."""
        deadline = monotonic() + BUSY_S
        while True:
            try:
                self.writer().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise
                sleep(0.01)

    # ---- errors

    def typed(self, error: Exception, verb: str) -> StoreError:
        """The error of ours that says what an error of SQLite's means."""
        if self.path.is_dir():
            return StoreError(f"{self.path} is a folder; give the path of a file in it")
        what = f"cannot {verb} {self.path}: {error}"
        code = _code(error)
        no_room = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreBusy(f"{what}; another process has been writing for {BUSY_S:g} s; try again")
        if code == sqlite3.SQLITE_FULL or no_room:
            return StoreFull(f"{what}; free some space (nothing was stored, nothing was lost)")
        if code == sqlite3.SQLITE_READONLY:
            return StoreReadOnly(f"{what}; the file or its folder is not writable for this user")
        if code == sqlite3.SQLITE_NOTADB and not self._was_ours():
            return SchemaMismatch(
                f"{self.path} is not a Refold store, nor any SQLite file; give another path"
            )
        bad_text = isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or bad_text:
            return StoreCorrupt(
                f"{what}; the file is damaged: copy it away with its -wal file, then restore a backup"
            )
        if code == sqlite3.SQLITE_CANTOPEN:
            return StoreError(f"{what}; does its folder exist, and may this user write there?")
        return StoreError(f"{what}; look at the disk, and at the file with `refold verify`")

    def _was_ours(self) -> bool:
        """Whether a file that SQLite does not recognise still carries our mark."""
        with suppress(OSError), self.path.open("rb") as file:
            return file.read(72)[68:] == APPLICATION_ID.to_bytes(4, "big")
        return False


def _is_empty(path: Path) -> bool:
    """Whether there is nothing in the file: one that is new is perhaps being made by another process."""
    while path.is_file() and (file := path.stat()).st_size <= 1:  # SQLite takes one byte for none
        if not 0 <= SystemClock().now() - file.st_mtime < BUSY_S:
            return True
        sleep(0.01)
    return False


def _code(error: Exception) -> int:
    """SQLite's primary error code, 0 when the error is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
