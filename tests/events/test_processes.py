"""Several processes on one file, some of them killed: nothing missed, nothing acknowledged lost."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from refold.events.sqlite import SQLiteStore
from refold.events.stream import Row, check_chain
from refold.events.verify import verify
from refold.testing.samples import sample_rows
from tests.events import programs
from tests.events.programs import run

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
