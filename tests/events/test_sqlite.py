"""What only a file can break: durability, indexes, positions, connections."""

import sqlite3
from pathlib import Path

import pytest

from refold.events.errors import StoreError
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import BUSY_S, QUERIES
from refold.events.store import Append, Unit
from refold.events.stream import Row
from refold.events.verify import verify
from refold.testing.samples import sample_append, sample_work
from tests.events.programs import run


def test_the_writer_is_durable_and_patient(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    full, wal = 2, "wal"
    writer, reader = store._file.writer(), store._file.reader()
    for _ in range(2):
        assert writer.execute("PRAGMA synchronous").fetchone() == (full,)
        assert writer.execute("PRAGMA journal_mode").fetchone() == (wal,)
        assert writer.execute("PRAGMA busy_timeout").fetchone() == (BUSY_S * 1000,)
        store._file.drop_writer()
        writer = store._file.writer()
    assert reader.execute("PRAGMA query_only").fetchone() == (1,)
    store._file.put_back(reader)
    store.close()


def test_a_copy_that_came_without_wal_gets_it_back(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit((sample_append(store, "run", 3),))])
    store._file.writer().execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    copy = SQLiteStore(tmp_path / "copy.db")
    assert copy.scan() == store.scan()
    assert copy._file.writer().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    copy.close()
    store.close()


QUESTIONS = {
    "due": ("work_due", ('[""]', 1.0, 10)),
    "mail": ("work_mail", ('[""]', 10)),
    "running": ("work_running", ("", '[""]', 10)),
    "next_due": ("work_due", ('[""]', 1.0)),
    "tail": ("sqlite_autoindex_stored_events_1", ("run",)),
    "read": ("sqlite_autoindex_stored_events_1", ("run", 0, 10)),
}


TAGS = "; LIST SUBQUERY 1; SCAN json_each VIRTUAL TABLE INDEX 1:"


def plan(connection: sqlite3.Connection, query: str) -> str:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {QUERIES[query]}", QUESTIONS[query][1]).fetchall()
    return "; ".join(row[3] for row in rows)


@pytest.mark.parametrize("query", QUESTIONS)
def test_the_engines_questions_are_answered_by_one_index(query: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit(works=(sample_work(f"run-{n}", "waiting", float(n)),)) for n in range(50)])
    answer = plan(store._file.writer(), query)
    assert f"INDEX {QUESTIONS[query][0]}" in answer
    assert "TEMP B-TREE" not in answer
    assert ";" not in answer.removesuffix(TAGS)
    store.close()


def test_without_its_index_a_question_reads_the_whole_table(tmp_path: Path) -> None:
    """The control of the test above."""
    store = SQLiteStore(tmp_path / "log.db")
    store._file.writer().execute("DROP INDEX work_due")
    assert "SCAN work" in plan(store._file.writer(), "due")
    store.close()


def test_a_position_is_never_given_twice(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit((sample_append(store, "run", 5),))])
    with store._file.writing() as connection:
        connection.execute("DELETE FROM stored_events WHERE rowid > 3")
    store.commit([Unit((sample_append(store, "run", 1),))])
    assert [row.position for row in store.scan()] == [1, 2, 3, 6]
    assert verify(store).problems == ("positions 4 to 5 are missing from the log",)
    store.close()


def test_without_autoincrement_positions_come_back() -> None:
    """The control of the test above."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE plain (rowid INTEGER PRIMARY KEY, x)")
    connection.executemany("INSERT INTO plain (x) VALUES (?)", [(n,) for n in range(5)])
    connection.execute("DELETE FROM plain WHERE rowid > 3")
    assert connection.execute("INSERT INTO plain (x) VALUES (0)").lastrowid == 4
    connection.close()


def test_a_refused_commit_gives_its_positions_back(tmp_path: Path) -> None:
    """Rolled back work leaves no hole that a reader might wait for, and `verify` can ask for density."""
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit((sample_append(store, "run", 2),))])
    twice = Row("other", 1, "tag", b"{}", bytes(32))
    with pytest.raises(StoreError, match="UNIQUE"):
        store.commit([Unit((Append("other", 0, [twice, twice]),))])
    store.commit([Unit((sample_append(store, "run", 2),))])
    assert [row.position for row in store.scan()] == [1, 2, 3, 4]
    store.close()


def test_work_that_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    row = sample_work("run", "waiting", 1.5)
    store.commit([Unit(works=(row,))])
    before = store._file.writer().total_changes
    store.commit([Unit(works=(row,))])
    assert store._file.writer().total_changes == before
    store.commit([Unit(works=(sample_work("run", "waiting", 1.6),))])
    assert store._file.writer().total_changes == before + 1
    store.close()


def test_own_commits_do_not_count_as_changes_by_others(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit((sample_append(store, "run"),))])
    assert not store.changed()
    other = SQLiteStore(store.path)
    other.commit([Unit((sample_append(other, "run"),))])
    store.commit([Unit((sample_append(store, "run"),))])
    assert store.changed(), "a commit of our own in between must not hide the other's"
    with store._file.lock:  # as while a thread commits
        store.changed()
        assert not store.changed()
        other.commit([Unit((sample_append(other, "run"),))])
        assert store.changed()
    other.close()
    store.close()


def test_a_store_is_not_used_across_a_fork(tmp_path: Path) -> None:
    lines = run("use_after_fork", tmp_path / "log.db").splitlines()
    assert len(lines) == 3
    assert all(line.startswith("StoreError") and "forked" in line for line in lines[:2])
    assert lines[2] == "0"
