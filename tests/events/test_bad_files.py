"""Files that are damaged, foreign, full or read-only: a typed error with a remedy, nothing lost."""

import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from refold.events.errors import (
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
)
from refold.events.sqlite import SQLiteStore
from refold.events.store import SCHEMA_VERSION, Append, Unit
from refold.events.stream import Row, check_chain
from refold.events.verify import verify
from refold.testing.samples import sample_append, sample_work
from tests.events.programs import run


def filled(path: Path, events: int = 400) -> Path:
    """A healthy, closed store with one big stream and one small."""
    store = SQLiteStore(path)
    store.commit([Unit((sample_append(store, "run", events),), (sample_work("run"),))])
    store.commit([Unit((sample_append(store, "other", 3),))])
    store.close()
    assert not Path(f"{path}-wal").exists()
    return path


def read_all(path: Path) -> int:
    store = SQLiteStore(path)
    try:
        return len(store.scan(0, 10_000))
    finally:
        store.close()


# ---- not ours -----------------------------------------------------------------------------------


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "log.db").touch()
    assert read_all(tmp_path / "log.db") == 0


def test_who_looks_at_a_store_that_is_just_being_made_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.touch()
    with ThreadPoolExecutor(1) as other:
        looking = other.submit(SQLiteStore, path, create=False)
        SQLiteStore(path).close()
        looking.result(60).close()


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 500, b"\x00" * 5_000, b"xy"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    with pytest.raises(SchemaMismatch, match=r"not a Refold store, nor any SQLite file.*another path"):
        SQLiteStore(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("application", [0, 0x0F05_5112])
def test_another_applications_database_is_refused_and_left_alone(application: int, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA application_id = {application}")
    other.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match=f"another application.*{application:#x}.*not a Refold store"):
        SQLiteStore(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    newer = sqlite3.connect(path)
    newer.execute("UPDATE meta SET value = '17' WHERE key = 'schema_version'")
    newer.commit()
    newer.close()
    with pytest.raises(SchemaMismatch, match=rf"schema version 17, .* up to {SCHEMA_VERSION}: .*upgrade"):
        SQLiteStore(path)


def test_a_missing_folder_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*does its folder exist"):
        SQLiteStore(tmp_path / "no" / "log.db")
    with pytest.raises(StoreError, match="is a folder; give the path of a file in it"):
        SQLiteStore(tmp_path)


# ---- damaged ------------------------------------------------------------------------------------


def cut(data: bytearray) -> None:
    del data[len(data) // 2 // 4096 * 4096 :]


def blank_the_header(data: bytearray) -> None:
    data[:16] = bytes(16)


def overwrite_the_middle(data: bytearray) -> None:
    data[8 * 4096 : 30 * 4096] = random.Random(3).randbytes(22 * 4096)


def forget_the_version(data: bytearray) -> None:
    place = data.find(b"schema_version")
    data[place + len("schema_version")] = ord("x")


@pytest.mark.parametrize("damage", [cut, blank_the_header, overwrite_the_middle, forget_the_version])
def test_a_damaged_file_is_called_damaged(damage: Callable[[bytearray], None], tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    assert read_all(path) == 403
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="restore a backup"):
        read_all(path)


def test_writing_to_a_damaged_file_is_refused_too(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.db")
    store = SQLiteStore(path)
    append = sample_append(store, "run")
    data = bytearray(path.read_bytes())
    overwrite_the_middle(data)
    path.write_bytes(data)
    store._file.drop_writer()
    while store._file._readers:
        store._file._readers.pop().close()
    with pytest.raises(StoreCorrupt):
        store.commit([Unit((append,))])
    store.close()


# ---- full ---------------------------------------------------------------------------------------


def fill(store: SQLiteStore) -> list[Row]:
    """Commit until there is no room; what was acknowledged must be there, and nothing of the rest."""
    stored: list[Row] = []
    big = b'"' + b"x" * 20_000 + b'"'
    while True:
        version = len(stored) + 1
        row = Row("run", version, "tag", big, bytes([version % 256]) * 32)
        try:
            store.commit([Unit((Append("run", version - 1, [row]),), (sample_work(f"run-{version}"),))])
        except StoreFull:
            assert len(stored) > 3
            return stored
        stored.append(row)
        assert version < 1_000, "it was never full"


def check_full(store: SQLiteStore, stored: list[Row]) -> None:
    assert [row[:5] for row in store.read("run")] == [row[:5] for row in stored]
    assert len(store.running()) == len(stored)


def test_a_database_at_its_limit_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    limit = "PRAGMA max_page_count"
    store._file.writer().execute(f"{limit} = 60")
    stored = fill(store)
    check_full(store, stored)
    assert store._file.writer().execute(limit).fetchone()[0] > 1_000_000, "a new connection took over"
    assert store.commit([Unit((sample_append(store, "run"),))]) == [None]
    store.close()


@contextmanager
def small_disk() -> Iterator[Path]:
    """A tmpfs of 1 MiB, where we may mount one."""
    folder = Path(tempfile.mkdtemp(prefix="refold-disk-"))
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("LOUD: no mount command, a full disk cannot be tried")
        if done.returncode:
            pytest.skip(f"LOUD: a small disk cannot be mounted ({done.stderr.strip()})")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def test_a_full_disk_refuses_and_goes_on_when_there_is_room() -> None:
    with small_disk() as disk:
        store = SQLiteStore(disk / "log.db")
        (disk / "ballast").write_bytes(bytes(100_000))
        stored = fill(store)
        check_full(store, stored)
        with pytest.raises(StoreFull, match="free some space"):
            store.commit([Unit((sample_append(store, "other", 500),))])
        store.close()
        store = SQLiteStore(disk / "log.db")
        check_full(store, stored)
        (disk / "ballast").unlink()
        assert store.commit([Unit((sample_append(store, "other"),))]) == [None]
        check_full(store, stored)
        store.close()


def test_a_disk_too_small_for_a_new_store_is_told() -> None:
    with small_disk() as disk:
        (disk / "ballast").write_bytes(bytes(1_000_000))
        with pytest.raises(StoreFull, match="free some space"):
            SQLiteStore(disk / "log.db")


# ---- read-only ----------------------------------------------------------------------------------


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that another user may enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="refold-public-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_what_may_only_be_read_is_read_and_not_written() -> None:
    with public_folder() as folder:
        path = filled(folder / "log.db")
        path.chmod(0o444)
        folder.chmod(0o555)
        lines = run("as_nobody", path, "commit").splitlines()
        assert lines[0] == "position 403"
        assert lines[1].startswith("StoreReadOnly")
        assert "not writable for this user" in lines[1]


def test_what_may_only_be_read_is_read_beside_a_writer() -> None:
    with public_folder() as folder:
        store = SQLiteStore(filled(folder / "log.db"))
        store.commit([Unit((sample_append(store, "run"),))])  # lies in the -wal file
        lines = run("as_nobody", store.path, "commit").splitlines()
        if os.geteuid() == 0:
            assert lines[0] == "position 404"
            assert lines[1].startswith("StoreReadOnly")
        store.close()


def test_who_may_not_write_may_not_execute() -> None:
    with public_folder() as folder:
        path = filled(folder / "log.db")
        folder.chmod(0o555)
        line = run("as_nobody", path, "hold").splitlines()[-1]
        assert line.startswith("StoreReadOnly cannot lock")
        assert "write permission" in line


def test_who_may_not_read_is_told() -> None:
    with public_folder() as folder:
        path = filled(folder / "log.db")
        path.chmod(0o000)
        lines = run("as_nobody", path, "commit").splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("StoreError cannot open")


# ---- large --------------------------------------------------------------------------------------


def test_a_row_of_100_mb_is_stored_and_its_log_shrinks_again(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    state = b'"' + b"x" * 100_000_000 + b'"'
    store.commit([Unit((Append("run", 0, [Row("run", 1, "tag", state, bytes(32))]),))])
    assert store.read("run")[0].state == state
    store.commit([Unit((sample_append(store, "other", 2_000),))])
    store.commit([Unit((sample_append(store, "other", 2_000),))])
    assert Path(f"{store.path}-wal").stat().st_size <= 64 * 1024 * 1024
    store.close()


def test_a_row_beyond_what_sqlite_takes_is_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store._file.writer().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    before = sample_append(store, "run", 2)
    huge = Row("huge", 1, "tag", bytes(2_000_000), bytes(32))
    with pytest.raises(StoreError, match="too big"):
        store.commit([Unit((before,)), Unit((Append("huge", 0, [huge]),))])
    assert store.scan() == []
    assert store.commit([Unit((before,))]) == [None]
    assert check_chain(store.read("run")).version == 2
    assert not verify(store).problems
    store.close()
