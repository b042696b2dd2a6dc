"""The library's view of a `File`: what its own recorder methods run on."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from eventsourcing.sqlite import SQLiteConnection, SQLiteCursor, SQLiteDatastore, SQLiteTransaction

from .sqlite_file import File


class _LibraryConnection(SQLiteConnection):
    """What the library's own methods run on: one of our connections, for one transaction."""

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        with _LibraryTransaction(self, commit=commit) as cursor, cursor:
            yield cursor

    def cursor(self) -> SQLiteCursor:
        cursor = self._sqlite_conn.cursor()
        cursor.row_factory = sqlite3.Row
        return SQLiteCursor(cursor)


class _LibraryTransaction(SQLiteTransaction):
    """IMMEDIATE: a deferred transaction that begins to write can fail at once, whatever the timeout."""

    def __enter__(self) -> SQLiteCursor:
        cursor = self.connection.cursor()
        cursor.execute("BEGIN IMMEDIATE" if self.commit else "BEGIN")
        return cursor


class Datastore(SQLiteDatastore):
    """The library's view of a `File`; its pool stays empty."""

    def __init__(self, file: File) -> None:
        super().__init__(str(file.path), originator_id_type="text")
        self.file = file

    @contextmanager
    def get_connection(self, *, commit: bool) -> Iterator[SQLiteConnection]:
        if commit:
            with self.file.lock:
                yield _LibraryConnection(self.file.writer(), None)
        else:
            connection = self.file.reader()
            try:
                yield _LibraryConnection(connection, None)
            finally:
                self.file.put_back(connection)
