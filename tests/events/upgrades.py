"""A process that dies while it updates a log file: `python -m tests.events.upgrades FILE HOW STATEMENT`."""

import os
import signal
import sqlite3
import sys
from pathlib import Path

from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import APPLICATION_ID, File
from refold.events.stream import Tail
from refold.testing.samples import sample_rows, sample_work


def old_file(path: Path) -> Path:
    """A closed log file of schema 1 with 40 events and a run, as the Refold of that time left it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in File.migration(1):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('schema_version', '1')")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    columns = "originator_id, originator_version, topic, state, hash"
    for row in sample_rows("run", 40, Tail()):
        connection.execute(f"INSERT INTO stored_events ({columns}) VALUES (?, ?, ?, ?, ?)", row[:5])
    work = sample_work("run", "waiting", 7.0)
    values = [*(getattr(work, name) for name in work.__struct_fields__[:8]), 0]
    connection.execute("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.execute("COMMIT")
    connection.close()
    return path


class MortalFile(File):
    """Dies by SIGKILL when SQLite begins the statement."""

    statement = ""

    def writer(self) -> sqlite3.Connection:
        connection = super().writer()
        connection.set_trace_callback(self._trace)
        return connection

    def _trace(self, sql: str) -> None:
        if sql.startswith(self.statement):
            os.kill(os.getpid(), signal.SIGKILL)


class PiecemealFile(MortalFile):
    """Control: a statement at a time, without a transaction around them."""

    def _migrate(self) -> None:
        for statement in self.migration(2):
            self.writer().execute(statement)
        self.writer().execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', '2')")


class MortalStore(SQLiteStore):
    file_class = MortalFile


class PiecemealStore(SQLiteStore):
    file_class = PiecemealFile


def main(path: str, how: str, statement: str) -> None:
    MortalFile.statement = statement
    (MortalStore if how == "whole" else PiecemealStore)(path).close()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
