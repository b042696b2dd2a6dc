"""The stores keep what they promise: the suite, the library's own cases, and what only a file can break."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from unittest import TestCase
from uuid import uuid4

import pytest
from eventsourcing.persistence import StoredEvent

from refold.events.errors import ConfigurationError, StoreError
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import BUSY_S, QUERIES
from refold.events.store import Append, Refusal, Store, Unit
from refold.events.stream import Row, Tail, check_chain
from refold.events.verify import verify
from refold.testing.store import StoreConformance, sample_append, sample_rows, sample_work
from tests.events import programs

# The library's cases import its cipher, and that a package which nothing here uses.
sys.modules.setdefault("eventsourcing.cipher", ModuleType("eventsourcing.cipher")).__dict__.setdefault(
    "AESCipher", object
)
from eventsourcing.tests import persistence as library  # noqa: E402


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        programs.command(name, *arguments), cwd=programs.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (0, -9), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


# ---- the suite ----------------------------------------------------------------------------------


class TestSQLite(StoreConformance):
    def make_store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "log.db")


class TestMemory(StoreConformance):
    def make_store(self, tmp_path: Path) -> Store:
        return open_store("memory://")

    def open_again(self, store: Store) -> Store:
        return store


class Careless(MemoryStore):
    """Control: does not look at expected versions."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        honest = [
            Unit(
                tuple(Append(a.stream, self.tail(a.stream).version, a.rows) for a in unit.appends), unit.work
            )
            for unit in units
        ]
        return super().commit(honest)


class Piecemeal(MemoryStore):
    """Control: stores the appends of a unit one by one."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        result: list[Refusal | None] = []
        for unit in units:
            parts = [super(Piecemeal, self).commit([Unit((a,), unit.work)])[0] for a in unit.appends]
            result.append(next((refusal for refusal in parts if refusal), None))
        return result


class AllOrNothing(MemoryStore):
    """Control: one refused unit takes the whole commit with it."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        wrong = [a for u in units for a in u.appends if self.tail(a.stream).version != a.expected]
        if wrong:
            return [Refusal(wrong[0].stream, wrong[0].expected, -1)] * len(units)
        return super().commit(units)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Careless, "test_an_append_at_the_wrong_version_is_refused_and_leaves_nothing"),
        (Careless, "test_of_two_that_race_for_a_version_one_wins"),
        (Piecemeal, "test_a_unit_over_several_streams_is_stored_whole_or_not_at_all"),
        (Piecemeal, "test_what_follows_a_refused_unit_is_refused_too_and_no_gap_is_left"),
        (AllOrNothing, "test_a_refused_unit_does_not_hurt_the_others"),
    ],
)
def test_the_suite_finds_a_store_that_breaks_a_promise(
    broken: type[MemoryStore], promise: str, tmp_path: Path
) -> None:
    class Suite(TestMemory):
        def make_store(self, tmp_path: Path) -> Store:
            return broken()

    with pytest.raises(AssertionError):
        getattr(Suite(), promise)(tmp_path)


# ---- the library's own cases ----------------------------------------------------------------------


class LibraryCases:
    """Run the eventsourcing library's test cases; they are unittest classes, made here one by one."""

    def recorder(self, tmp_path: Path) -> SQLiteStore | MemoryStore:
        raise NotImplementedError

    def passes(self, case: type[TestCase], name: str, tmp_path: Path) -> None:
        made: list[SQLiteStore | MemoryStore] = []

        def create_recorder(_: object) -> SQLiteStore | MemoryStore:
            made.append(self.recorder(tmp_path))
            return made[-1]

        members = {"create_recorder": create_recorder, "new_originator_id": lambda _: uuid4().hex}
        test = type("Case", (case,), members)(name)
        test.debug()
        for store in made:
            store.close()

    @pytest.mark.parametrize(
        "name",
        [
            "test_insert_select",
            "test_performance",
            "test_concurrent_no_conflicts",
            "test_concurrent_throughput",
        ],
    )
    def test_application_recorder(self, name: str, tmp_path: Path) -> None:
        self.passes(library.ApplicationRecorderTestCase, name, tmp_path)

    def test_notification_ids_do_not_interleave(self, tmp_path: Path) -> None:
        self.passes(library.NonInterleavingNotificationIDsBaseCase, "test", tmp_path)

    def test_what_the_library_inserts_is_chained_too(self, tmp_path: Path) -> None:
        store = self.recorder(tmp_path)
        tail = Tail()
        for count in (2, 1, 3):
            rows = sample_rows("run", count, tail)
            stored = [StoredEvent(r.stream, r.version, r.tag, r.state) for r in rows]
            store.insert_events(stored)
            tail = check_chain(rows, tail)
        assert check_chain(store.read("run")) == store.tail("run") == tail
        assert not verify(store).problems
        store.close()


class TestLibraryCasesOnSQLite(LibraryCases):
    def recorder(self, tmp_path: Path) -> SQLiteStore:
        return SQLiteStore(tmp_path / "log.db")


class TestLibraryCasesOnMemory(LibraryCases):
    def recorder(self, tmp_path: Path) -> MemoryStore:
        return MemoryStore()


# ---- URLs -----------------------------------------------------------------------------------------


def test_a_store_is_named_by_url_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    absolute = tmp_path / "sub" / "a b#c?d%41.db"
    for url in ("sqlite:///sub/a b#c?d%41.db", f"sqlite:///{absolute}", "sub/a b#c?d%41.db", absolute):
        store = open_store(url)
        assert isinstance(store, SQLiteStore)
        assert store.path == absolute
        assert store.url == f"sqlite:///{absolute}"
        store.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [absolute.name, "sub"]
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://ana:secret@db/shop", "PostgreSQL is not in this release"),
        ("postgres://db/shop", "PostgreSQL is not in this release"),
        ("mysql://db/shop", "no store is called 'mysql'"),
        ("sqlite://shop.db", "sqlite:///shop.db"),
        ("sqlite:///", "not the path of a file"),
        ("sqlite:///:memory:", "not the path of a file"),
        (":memory:", "not the path of a file"),
        ("", "not the path of a file"),
        ("memory://shop", "memory://"),
    ],
)
def test_any_other_url_is_refused_with_the_forms_that_work(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        open_store(url)
    assert words in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_file_that_must_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        open_store(tmp_path / "typo.db", create=False)
    assert list(tmp_path.iterdir()) == []


# ---- the file -------------------------------------------------------------------------------------


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
    "due": ("work_due", (1.0, 10)),
    "mail": ("work_mail", (10,)),
    "running": ("work_running", ("", 10)),
    "next_due": ("work_due", (1.0,)),
    "tail": ("sqlite_autoindex_stored_events_1", ("run",)),
    "read": ("sqlite_autoindex_stored_events_1", ("run", 0, 10)),
}


def plan(connection: sqlite3.Connection, query: str) -> str:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {QUERIES[query]}", QUESTIONS[query][1]).fetchall()
    return "; ".join(row[3] for row in rows)


@pytest.mark.parametrize("query", QUESTIONS)
def test_the_engines_questions_are_answered_by_one_index(query: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit((), sample_work(f"run-{n}", "waiting", float(n))) for n in range(50)])
    answer = plan(store._file.writer(), query)
    assert f"INDEX {QUESTIONS[query][0]}" in answer
    assert "TEMP B-TREE" not in answer
    assert ";" not in answer
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
    store.commit([Unit((), row)])
    before = store._file.writer().total_changes
    store.commit([Unit((), row)])
    assert store._file.writer().total_changes == before
    store.commit([Unit((), sample_work("run", "waiting", 1.6))])
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


# ---- several processes --------------------------------------------------------------------------------


def follow(store: SQLiteStore, writers: list[subprocess.Popen[str]]) -> list[Row]:
    """Read on and on from the last position seen until the writers have ended."""
    seen: list[Row] = []
    while True:
        last_look = all(writer.poll() is not None for writer in writers)
        seen += store.scan(seen[-1].position if seen else 0, 50)
        if last_look and not store.scan(seen[-1].position if seen else 0, 1):
            return seen


def test_a_tailing_reader_misses_nothing_beside_several_writing_processes(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    names = ["ana", "bob", "eve"]
    writers = [
        subprocess.Popen(programs.command("append", store.path, name, 150), cwd=programs.ROOT, text=True)
        for name in names
    ]
    seen = follow(store, writers)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen == store.scan(0, 100_000)
    assert [row.position for row in seen] == list(range(1, len(seen) + 1))
    for name in names:
        own = [row for row in seen if row.stream == name]
        assert check_chain(own) == store.tail(name)
        assert len(own) >= 150
    store.close()


def test_a_tailing_reader_would_miss_positions_given_before_the_lock(tmp_path: Path) -> None:
    """The control of the test above: the slow writer's 1 appears when the reader has already seen 2."""
    store = SQLiteStore(tmp_path / "log.db")
    insert = (
        "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state, hash)"
        " VALUES (?, ?, ?, ?, ?, ?)"
    )
    seen: list[Row] = []
    for position in (2, 1):
        row = sample_rows(f"run-{position}", 1)[0]
        with store._file.writing() as connection:
            connection.execute(insert, (position, *row[:5]))
        seen += store.scan(seen[-1].position if seen else 0)
    assert [row.position for row in seen] == [2]
    store.close()


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        path = tmp_path / f"{attempt}.db"
        assert json.loads(run("open_at_once", path, 20, "locked")) == ["ok"] * 20
        store = SQLiteStore(path)
        assert verify(store).events == 20
        store.close()


def test_many_processes_fail_when_tables_are_made_without_the_lock(tmp_path: Path) -> None:
    """The control of the test above."""
    answers = [
        answer
        for attempt in range(5)
        for answer in json.loads(run("open_at_once", tmp_path / f"{attempt}.db", 20, "unlocked"))
    ]
    assert any("already exists" in answer for answer in answers), answers


# ---- SIGKILL --------------------------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost_when_committing_processes_are_killed(tmp_path: Path) -> None:
    found = json.loads(run("kill_at_random", tmp_path / "log.db", 60, "late", 1))
    assert found["acknowledged"] > 60
    assert (found["lost"], found["problems"]) == (0, 0)


def test_an_acknowledgement_before_the_commit_is_lost(tmp_path: Path) -> None:
    """The control of the test above."""
    found = json.loads(run("kill_at_random", tmp_path / "log.db", 60, "early", 1))
    assert found["lost"] > 0
    assert found["problems"] == 0


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("BEGIN IMMEDIATE", (2, "pending", 0)),
        ("INSERT INTO stored_events", (2, "pending", 0)),
        ("INSERT INTO work", (2, "pending", 0)),
        ("UPDATE work", (2, "pending", 0)),
        ("COMMIT", (2, "pending", 0)),
        ("after the commit", (42, "running", 0)),
    ],
)
def test_killed_at_a_statement_the_file_holds_all_of_the_commit_or_nothing(
    moment: str, expected: tuple[int, str, int], tmp_path: Path
) -> None:
    run("kill_at_statement", tmp_path / "log.db", moment)
    # the killed process left its -wal and -shm behind; a copy of them recovers just as well
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert programs.summary(str(tmp_path / "copy" / "log.db")) == expected
    assert programs.summary(str(tmp_path / "log.db")) == expected
    assert os.path.exists(tmp_path / "log.db")
