"""The store in a SQLite file: write-ahead log, `synchronous=FULL`, one commit for many units."""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any
from uuid import UUID

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor
from msgspec.json import encode
from msgspec.structs import astuple

from .admission import admit
from .errors import AppendRefused, StoreError
from .hold import Hold
from .sqlite_file import QUERIES
from .sqlite_library import Datastore
from .sqlite_reader import SQLiteReader
from .store import Refusal, Unit
from .stream import GENESIS, INBOX, Row, Tail, row_hash
from .work import Work

_APPEND = QUERIES["append"]
_TAIL = QUERIES["tail"]
_TAILS = QUERIES["tails"]
_MANY = 6
"""From so many streams on, one query for all their tails: 2.2 µs a stream instead of 5.6."""
_SET_WORK = QUERIES["set_work"]
_SET_MAIL = QUERIES["set_mail"]
_ADD_BLOB = QUERIES["add_blob"]
_CHUNK = 32
_APPEND_CHUNK = _APPEND + ", (?, ?, ?, ?, ?)" * (_CHUNK - 1)
"""Many rows in one statement: 2.7 µs a row instead of 4.0, mostly for AUTOINCREMENT's bookkeeping."""


class SQLiteStore(SQLiteReader, SQLiteApplicationRecorder):
    """A `Store` in one file (see `events/store.py` for what each method promises).

    Any number of processes may read it, and append in their turn; one at a time executes (`hold`).
    Opening checks and, when needed, updates the schema; it raises `SchemaMismatch`, `StoreCorrupt`
    or another `StoreError`. `create=False` refuses to make a new file.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        SQLiteReader.__init__(self, path, create=create)
        self._hold = Hold(self.lock_path)
        SQLiteApplicationRecorder.__init__(self, Datastore(self._file))
        self.insert_events_statement = _APPEND

    # ---- writing

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        """Store the units in one durable transaction; see `Store.commit`."""
        file = self._file
        with file.lock:
            try:
                connection = file.writer()
                connection.execute("BEGIN IMMEDIATE")
                refusals = _write(connection, units)
                connection.execute("COMMIT")
            except BaseException as error:
                # Closing rolls back; after a failed COMMIT nothing else is certain, and a fresh
                # connection costs less than finding out.
                file.drop_writer()
                if isinstance(error, Exception) and not isinstance(error, StoreError):
                    raise file.typed(error, "write") from error
                raise
        return refusals

    def commit_all(self, units: Iterable[Unit]) -> None:
        """Store all units or nothing; see `Store.commit_all`. What does not fit into the page cache waits
        in the write-ahead log."""
        with self._file.writing() as connection:
            for unit in units:
                for refusal in _write(connection, (unit,)):
                    if refusal is not None:
                        raise AppendRefused(refusal.stream, refusal.expected, refusal.found)

    def _insert_events(
        self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **_: Any
    ) -> Sequence[int]:
        """The library's way to append: the unique key is its only check, the hashes are made here."""
        hashes: dict[str, bytes] = {}
        positions: list[int] = []
        for event in stored_events:
            stream = event.originator_id.hex if isinstance(event.originator_id, UUID) else event.originator_id
            if stream not in hashes:
                c.execute(_TAIL, (stream,))
                found = c.fetchone()
                hashes[stream] = found["hash"] if found else GENESIS
            version, tag, state = event.originator_version, event.topic, event.state
            hashes[stream] = row_hash(hashes[stream], stream, version, tag, state)
            c.execute(_APPEND, (stream, version, tag, state, hashes[stream]))
            positions.append(c.lastrowid)
        return positions

    def create_table(self) -> None:
        """Nothing to do: opening has made the tables."""

    # ---- the dispatch table

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        """Replace the whole `work` table."""
        with self._file.writing() as connection:
            connection.execute(QUERIES["clear_work"])
            connection.executemany(QUERIES["insert_work"], [(*astuple(work), mail) for work, mail in rows])

    # ---- owning

    def hold(self, owner: str) -> None:
        """Become the one executor of this file."""
        self._hold.acquire(owner)

    def holding(self) -> bool:
        """Whether this object is still the executor: nobody has taken the lock file away."""
        return self._hold.held

    def release(self) -> None:
        """Stop being the executor."""
        self._hold.release()

    def close(self) -> None:
        """Release and close everything."""
        self.release()
        super().close()


def _write(connection: sqlite3.Connection, units: Sequence[Unit]) -> list[Refusal | None]:
    """Check every unit, then write those that passed: all reads before the first write."""
    tails = _tails(connection, units)
    look_up = partial(_tail, connection, tails)
    rows: list[tuple[Any, ...]] = []
    work: list[tuple[Any, ...]] = []
    mail: dict[str, int] = {}
    blobs: list[tuple[str, bytes]] = []
    refusals: list[Refusal | None] = []
    for unit in units:
        posted: list[Row] = []
        refusal = admit(unit, tails, look_up, posted)
        refusals.append(refusal)
        if refusal is not None:
            continue
        for append in unit.appends:
            rows.extend([row[:5] for row in append.rows])
            if append.stream.endswith(INBOX):
                mail[append.stream.removesuffix(INBOX)] = append.expected + len(append.rows)
        for row in unit.works:
            work.append(astuple(row))
        if unit.blobs:
            blobs += unit.blobs
        if posted:
            rows.extend([row[:5] for row in posted])
            mail.update((post.run_id, row[1]) for post, row in zip(unit.posts, posted, strict=True))
    whole = len(rows) // _CHUNK * _CHUNK
    for start in range(0, whole, _CHUNK):
        connection.execute(_APPEND_CHUNK, tuple(chain.from_iterable(rows[start : start + _CHUNK])))
    connection.executemany(_APPEND, rows[whole:])
    if blobs:
        connection.executemany(_ADD_BLOB, blobs)
    if work:
        connection.executemany(_SET_WORK, work)
    if mail:
        connection.executemany(_SET_MAIL, [(version, run_id) for run_id, version in mail.items()])
    return refusals


def _tails(connection: sqlite3.Connection, units: Sequence[Unit]) -> dict[str, Tail]:
    """The tails of all streams of the units, when these are many."""
    if len(units) < _MANY:
        return {}
    names = {append.stream for unit in units for append in unit.appends}
    names.update([post.stream for unit in units for post in unit.posts])
    # SQLite's JSON ends a string at a NUL; such a name is looked up by itself.
    wanted = [name for name in names if "\0" not in name]
    tails = dict.fromkeys(wanted, Tail())
    for stream, version, last_hash in connection.execute(_TAILS, (encode(wanted).decode(),)):
        tails[stream] = Tail(version, last_hash)
    return tails


def _tail(connection: sqlite3.Connection, tails: dict[str, Tail], stream: str) -> Tail:
    found = connection.execute(_TAIL, (stream,)).fetchone()
    tail = tails[stream] = Tail(*found) if found else Tail()
    return tail
