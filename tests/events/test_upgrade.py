"""A log file of an older schema is brought up to date where it lies: whole or not at all, and once."""

import json
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from refold.events.errors import StoreError
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import File
from refold.events.store import SCHEMA_VERSION, Unit
from refold.events.stream import check_chain
from refold.events.verify import verify
from refold.testing.samples import sample_append, sample_rows, sample_work
from tests.events import programs
from tests.events.test_bad_files import public_folder
from tests.events.upgrades import old_file


def schema(path: Path) -> tuple[str, list[str]]:
    """The version a file says it has, and its tables and indexes."""
    connection = sqlite3.connect(path)
    (version,) = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    statements = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    found = [sql for (sql,) in statements]
    connection.close()
    return version, found


def test_schemas_that_files_have_are_never_edited() -> None:
    """What is to change in them goes into a new one."""
    known = ["46e1cd3f8996fe9c", "1b66745b2b407f43", "284fecc0f0940dd9"]
    for version, digest in enumerate(known, 1):
        assert sha256(";\n".join(File.migration(version)).encode()).hexdigest()[:16] == digest


def test_a_file_of_schema_1_opens_with_everything_in_it(tmp_path: Path) -> None:
    path = old_file(tmp_path / "log.db")
    assert schema(path)[0] == "1"
    store = SQLiteStore(path)
    assert check_chain(store.read("run")) == check_chain(sample_rows("run", 40))
    assert store.all_work() == [(sample_work("run", "waiting", 7.0), 0)]
    content = b"x" * 300_000
    blob = sha256(content).hexdigest(), content
    assert store.commit([Unit((sample_append(store, "run"),), blobs=(blob,))]) == [None]
    assert store.blob(blob[0]) == content
    found = verify(store)
    assert (found.events, found.blobs, found.problems) == (41, 1, ())
    store.close()
    SQLiteStore(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")
    assert schema(path)[0] == str(SCHEMA_VERSION)


def test_who_had_an_old_file_open_goes_on_beside_the_update(tmp_path: Path) -> None:
    path = old_file(tmp_path / "log.db")
    before = sqlite3.connect(path)
    (events,) = before.execute("SELECT COUNT(*) FROM stored_events").fetchone()
    store = SQLiteStore(path)
    assert store.commit([Unit((sample_append(store, "run"),))]) == [None]
    assert before.execute("SELECT COUNT(*) FROM stored_events").fetchone() == (events + 1,)
    before.close()
    store.close()


def test_of_many_processes_that_open_an_old_file_at_once_one_updates_it(tmp_path: Path) -> None:
    path = old_file(tmp_path / "log.db")
    assert json.loads(programs.run("open_at_once", path, 8, "locked")) == ["ok"] * 8
    store = SQLiteStore(path)
    assert store.position() == 48
    assert not verify(store).problems
    store.close()


STATEMENTS = [
    "BEGIN IMMEDIATE",
    "CREATE TABLE blobs",
    "CREATE INDEX work_mail",
    "INSERT OR REPLACE INTO meta",
    "PRAGMA application_id =",
    "COMMIT",
]


def die(path: Path, how: str, statement: str) -> None:
    program = [sys.executable, "-m", "tests.events.upgrades", str(path), how, statement]
    assert subprocess.run(program, cwd=programs.ROOT, timeout=60, check=False).returncode == -9


@pytest.mark.parametrize("statement", [*STATEMENTS, "after it"])
def test_an_update_that_was_killed_has_happened_or_not(statement: str, tmp_path: Path) -> None:
    path = old_file(tmp_path / "log.db")
    die(path, "whole", statement)
    version, tables = schema(path)
    assert (version, any("blobs" in sql for sql in tables)) == (
        (str(SCHEMA_VERSION), True) if statement == "after it" else ("1", False)
    )
    store = SQLiteStore(path)
    assert not verify(store).problems
    store.close()


def test_without_a_transaction_a_killed_update_leaves_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """The control of the test above."""
    path = old_file(tmp_path / "log.db")
    die(path, "piecemeal", "INSERT OR REPLACE INTO meta")
    with pytest.raises(StoreError, match="table blobs already exists"):
        SQLiteStore(path)


def test_an_old_file_that_may_only_be_read_says_what_to_do() -> None:
    with public_folder() as folder:
        path = old_file(folder / "log.db")
        path.chmod(0o444)
        folder.chmod(0o555)
        (line,) = programs.run("as_nobody", path, "commit").splitlines()
        assert line.startswith("StoreReadOnly")
        assert f"has schema version 1 and must be brought to {SCHEMA_VERSION}" in line
        assert "open a copy" in line
