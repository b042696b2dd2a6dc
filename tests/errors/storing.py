"""Stores that are not there, held, full, damaged, of somebody else or of a newer Refold."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any
from unittest import mock

from refold import Context, workflow
from refold.events.hold import Hold
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.sqlite import SQLiteStore
from refold.events.store import Unit
from refold.testing.samples import sample_append
from tests.engine.kit import engine
from tests.errors.cases import Provoke, Said, meets

OPENED: dict[tuple[str, str], Any] = {
    ("ConfigurationError", "…: three slashes, please, as in sqlite:///…"): "sqlite://shop.db",
    ("ConfigurationError", "… is not the path of a file; use …"): ":memory:",
    ("ConfigurationError", "…: a memory store has no name; write memory://"): "memory://shop",
    ("ConfigurationError", "schema=… in the URL: …"): "postgresql://host/db?schema=a-b",
    ("ConfigurationError", "the URL of the server cannot be read: …"): "postgresql://bob:s3c[ret@host/db",
    ("ConfigurationError", "prepare=… in the URL: expected yes or no"): "postgresql://host/db?prepare=maybe",
    ("ConfigurationError", "…=… in the URL: expected seconds, …"): "postgresql://host/db?patience=long",
    ("ConfigurationError", "…: no store is called …; use …"): "redis://host",
}
for (_kind, _message), _url in OPENED.items():
    meets(_kind, _message)(lambda folder, url=_url: open_store(url))


def filled(folder: Path, events: int = 3) -> Path:
    """A healthy, closed store."""
    store = SQLiteStore(folder / "log.db")
    store.commit([Unit((sample_append(store, "run", events),))])
    store.close()
    return folder / "log.db"


def changed(path: Path, sql: str) -> Path:
    """The file, after somebody wrote into it by hand."""
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()
    return path


def sqlite_error(code: int, text: str = "it is so") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


# ---- files


@meets("StoreError", "no store at …; give the path of an existing one")
def look_at_nothing(folder: Path) -> None:
    open_store(folder / "log.db", create=False)


@meets("StoreError", "cannot … …; does its folder exist, and may this user write there?")
def a_folder_that_is_not_there(folder: Path) -> None:
    open_store(folder / "missing" / "log.db")


@meets("StoreError", "… is a folder; give the path of a file in it")
def a_folder(folder: Path) -> None:
    open_store(folder)


@meets("StoreCorrupt", "… is empty: it is no store, or one that was cut to nothing; restore it")
def look_at_an_empty_file(folder: Path) -> None:
    (folder / "log.db").write_text("\n")  # SQLite makes a database of one byte, too
    os.utime(folder / "log.db", (0, 0))  # one that is new is perhaps being made
    open_store(folder / "log.db", create=False)


@meets("SchemaMismatch", "… is not a Refold store, nor any SQLite file; give another path")
def a_text(folder: Path) -> None:
    (folder / "notes.txt").write_text("Dear diary,\n" * 100)
    open_store(folder / "notes.txt")


@meets(
    "SchemaMismatch",
    "… is a SQLite file of another application (application_id …",
)
def a_database_of_another_program(folder: Path) -> None:
    open_store(changed(folder / "shop.db", "CREATE TABLE orders (id INTEGER)"))


@meets(
    "SchemaMismatch",
    "… has schema version …, this Refold knows versions up to …",
)
def a_store_of_a_newer_refold(folder: Path) -> None:
    open_store(changed(filled(folder), "UPDATE meta SET value = '99' WHERE key = 'schema_version'"))


@meets("StoreCorrupt", "… does not say which schema version it has; restore a backup")
def a_store_without_a_version(folder: Path) -> None:
    open_store(changed(filled(folder), "DELETE FROM meta"))


@meets(
    "StoreCorrupt",
    "cannot … …; the file is damaged: copy it away with its -wal …",
)
def a_damaged_file(folder: Path) -> None:
    path = filled(folder, 400)
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
    path.write_bytes(content)
    store = open_store(path)
    try:
        store.read("run")
    finally:
        store.close()


def typed(code: int) -> Provoke:
    """What SQLite reports with this code, as a store says it: a disk does not fail when it is asked to."""

    def provoke(folder: Path) -> Said:
        store = SQLiteStore(folder / "log.db")
        error = store._file.typed(sqlite_error(code), "write")
        store.close()
        return Said(type(error).__name__, str(error))

    return provoke


meets("StoreError", "cannot … …; look at the disk, and at the file with `refold verify`")(
    typed(sqlite3.SQLITE_IOERR)
)
meets("StoreBusy", "…; another process has been writing for … s; try again")(typed(sqlite3.SQLITE_BUSY))
meets("StoreFull", "cannot … …; free some space (nothing was stored, nothing was lost)")(
    typed(sqlite3.SQLITE_FULL)
)
meets("StoreReadOnly", "…; the file or its folder is not writable for this user")(
    typed(sqlite3.SQLITE_READONLY)
)


@meets("StoreError", "… is closed: open it again")
def a_closed_store(folder: Path) -> None:
    store = open_store(folder / "log.db")
    store.close()
    store.commit([])


@meets("StoreError", "… was opened before this process was forked; open it again here")
def a_store_of_the_parent_process(folder: Path) -> None:
    store = open_store(folder / "log.db")
    try:
        with mock.patch("os.getpid", return_value=1):
            store.commit([])
    finally:
        store.close()


@meets("StoreError", "this memory store is closed; what it held is gone")
def a_closed_memory_store(folder: Path) -> None:
    store = MemoryStore()
    store.close()
    store.commit([])


# ---- who holds it


@meets(
    "StoreBusy",
    "… is held by …; only one process at a time executes the runs …",
)
def held_by_another(folder: Path) -> None:
    first, second = open_store(folder / "log.db"), open_store(folder / "log.db")
    first.hold("first")
    try:
        second.hold("second")
    finally:
        first.close()
        second.close()


@meets(
    "StoreBusy",
    "this memory store is held by …; only one engine at a time …",
)
def a_memory_store_held_twice(folder: Path) -> None:
    store = MemoryStore()
    store.hold("first")
    store.hold("second")


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("never")


@meets("StoreBusy", "another process has taken over …: ask there")
async def taken_over(folder: Path) -> None:
    path = folder / "log.db"
    async with engine(f"sqlite:///{path}", waits) as e:
        run = await e.start(waits)
        waiter = asyncio.ensure_future(run.result())
        (folder / "log.db.lock").unlink()
        other = open_store(path)
        other.hold("other")
        try:
            await waiter
        finally:
            other.close()


def lock_fails(number: int) -> Provoke:
    def provoke(folder: Path) -> None:
        hold = Hold(folder / "log.db.lock")
        with mock.patch("fcntl.lockf", side_effect=OSError(number, "the system says so")):
            hold.acquire("me")

    return provoke


meets("StoreError", "cannot lock …; give a store on a file system that can lock files")(
    lock_fails(errno.ENOLCK)
)
meets("StoreFull", "cannot lock …; free some space")(lock_fails(errno.ENOSPC))
meets("StoreReadOnly", "cannot lock …; whoever executes runs needs write permission there")(
    lock_fails(errno.EROFS)
)
