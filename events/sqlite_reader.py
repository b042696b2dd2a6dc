"""Reading a SQLite store, and no more: what `SQLiteStore` and the commands that only look have in common.

Without the library's recorders: to import them takes 40 ms, a tenth of what `refold runs` may take.
"""

import os
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.json import encode

from .blobs import checked
from .hold import Holder, holder_of
from .queues_sqlite import SQLiteQueued
from .sqlite_file import ERRORS, QUERIES, File
from .stream import Row, Tail, next_text
from .work import ANY_WORKER, Work

_row = partial(tuple.__new__, Row)
"""`Row._make` without its Python frame: a third of its price, three rows a step."""
_EVERYTHING = 2**62


class SQLiteReader:
    """The reading half of a `Store` in one file (see `events/store.py` for what each method promises)."""

    file_class: type[File] = File

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path).absolute()
        self.url = f"sqlite:///{self.path}"
        self.lock_path = Path(f"{self.path}.lock")
        self._file = self.file_class(self.path, create=create)
        self._seen: dict[str, tuple[sqlite3.Connection, int]] = {}
        self._poller: sqlite3.Connection | None = None
        self.changed()

    # ---- the log

    def _rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        file = self._file
        try:
            connection = file.reader()
            try:
                return connection.execute(QUERIES[query], parameters).fetchall()
            finally:
                file.put_back(connection)
        except ERRORS as error:
            raise file.typed(error, "read") from error

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """Rows of one stream with version > `after`, in order."""
        limit = _EVERYTHING if limit is None else limit
        return list(map(_row, self._rows("read", (stream, after, limit))))

    def tail(self, stream: str) -> Tail:
        """Last version and hash of a stream."""
        found = self._rows("tail", (stream,))
        return Tail(*found[0]) if found else Tail()

    def blob(self, digest: str) -> bytes:
        """A content by its digest."""
        found = self._rows("blob", (digest,))
        return checked(digest, found[0][0] if found else None, str(self.path))

    def blobs(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests of all contents, greater than `after`, in order."""
        return [digest for (digest,) in self._rows("blobs", (after, limit))]

    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Rows of all streams with position > `after`, in the order of commit."""
        return list(map(_row, self._rows("scan", (after, limit))))

    def position(self) -> int:
        """Position of the last row."""
        found = self._rows("position")
        return int(found[0][0]) if found else 0

    # ---- the dispatch table

    def work(self, run_id: str) -> Work | None:
        """The run's row of `work`."""
        found = self._rows("work", (run_id,))
        return Work(*found[0]) if found else None

    def due(self, now: float, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Runs that want attention: due ones first, then those with mail."""
        due = [row for tag in tags for row in self._rows("due", (tag, now, limit))]
        if len(tags) > 1:
            due.sort(key=lambda row: (row[1], row[0]))
        found = dict.fromkeys([row[0] for row in due])
        if len(found) < limit:
            mail = self._rows("mail", (encode(tags).decode(), limit))
            found.update(dict.fromkeys([run_id for (run_id,) in mail]))
        return list(found)[:limit]

    def mail_elsewhere(self, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Runs with mail that wait for a place in a queue, or for a worker with another tag."""
        return [run_id for (run_id,) in self._rows("mail_elsewhere", (encode(tags).decode(), limit))]

    def running(self, after: str = "", limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Ids of runs in state `running` greater than `after`."""
        return [run_id for (run_id,) in self._rows("running", (after, encode(tags).decode(), limit))]

    def next_due(self, now: float, tags: Sequence[str] = ANY_WORKER) -> float | None:
        """The earliest `due_at` later than `now`."""
        found = [self._rows("next_due", (tag, now))[0][0] for tag in tags]
        found += self._rows("next_due_queued", (now,))[0]
        return min((due for due in found if due is not None), default=None)

    @property
    def queued(self) -> SQLiteQueued:
        """What waits in queues."""
        return SQLiteQueued(self._rows)

    def streams(self, prefix: str) -> list[str]:
        """Names of the streams that begin so, in order."""
        return [name for (name,) in self._rows("streams", (prefix, next_text(prefix)))]

    def all_work(self) -> list[tuple[Work, int]]:
        """The whole `work` table with `mail`."""
        return [(Work(*columns), mail) for *columns, mail in self._rows("all_work")]

    def changed(self) -> bool:
        """Whether anybody else has committed since the last call.

        The writer tells exactly: SQLite does not count a connection's own commits. While a thread
        commits with it a reader is asked, and our own commits may then count, too.
        """
        file = self._file
        try:
            if file.lock.acquire(blocking=False):
                try:
                    return self._moved("writer", file.writer())
                finally:
                    file.lock.release()
            if self._poller is None:
                self._poller = file.reader()
            return self._moved("reader", self._poller)
        except ERRORS as error:
            raise file.typed(error, "read") from error

    def _moved(self, who: str, connection: sqlite3.Connection) -> bool:
        """Whether `data_version` differs from last time; a new connection counts anew, so it moved, too."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        now, before = (connection, version), self._seen.get(who)
        self._seen[who] = now
        return now != before

    def holder(self) -> Holder | None:
        """Who executes this file now, whichever process that is; None: nobody."""
        return holder_of(self.lock_path)

    def options(self) -> dict[str, int | str]:
        """`journal_mode`, `synchronous` and `page_size` as they really are."""
        return self._file.options()

    def close(self) -> None:
        """Close everything. Idempotent."""
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        self._file.close()
