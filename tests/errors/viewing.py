"""Read models that cannot be written, or were made by another Refold."""

import sqlite3
from pathlib import Path

from refold.events.memory import MemoryStore
from refold.events.store import Unit
from refold.projections import records
from refold.projections.core import CORE
from refold.projections.own import fold_run
from refold.projections.rebuild import rebuild
from refold.projections.runner import Runner
from refold.projections.views import Views
from refold.projections.views_sqlite import SqliteViews
from refold.testing.samples import sample_append
from tests.errors.cases import Provoke, meets
from tests.errors.storing import changed, filled, sqlite_error


def views_fail(code: int) -> Provoke:
    def provoke(folder: Path) -> None:
        raise SqliteViews(None)._typed(sqlite_error(code))

    return provoke


meets("StoreBusy", "…; another process is writing read models; try again")(views_fail(sqlite3.SQLITE_BUSY))
meets("StoreFull", "…; free some space (the log is not affected)")(views_fail(sqlite3.SQLITE_FULL))
meets("StoreError", "…; look at the disk; the file may be deleted, the log is enough to build it")(
    views_fail(sqlite3.SQLITE_IOERR)
)


@meets("StoreCorrupt", "…; delete it with its -wal file: it is built again from the log")
def damaged_read_models(folder: Path) -> None:
    (folder / "log.db.views").write_bytes(b"no database, but long enough to be looked at" * 40)
    SqliteViews(folder / "log.db.views")


@meets("SchemaMismatch", "… is a SQLite file, but not one of Refold's read models: move it away")
def a_store_in_the_place_of_the_read_models(folder: Path) -> None:
    SqliteViews(filled(folder))


@meets(
    "SchemaMismatch",
    "… has version …, this Refold knows version …: upgrade this …",
)
def read_models_of_a_newer_refold(folder: Path) -> None:
    SqliteViews(folder / "v").close()
    SqliteViews(changed(folder / "v", "PRAGMA user_version = 7"))


@meets("StoreCorrupt", "run …: its events do not follow …")
def events_that_do_not_follow(folder: Path) -> None:
    store = MemoryStore()
    store.commit([Unit((sample_append(store, "run", 3),))])
    fold_run(store.read("run")[1:])


def of_version(version: int) -> tuple[MemoryStore, Views]:
    store, views = MemoryStore(), SqliteViews(None)
    Runner(store, views, CORE).catch_up()
    with views.writing():
        views.run("UPDATE projections SET version = ? WHERE name = 'runs'", (version,))
    return store, views


@meets(
    "SchemaMismatch",
    "…: … has version …, this Refold knows version …: it was built …",
)
def a_newer_read_model(folder: Path) -> None:
    Runner(*of_version(99), CORE).catch_up()


@meets("SchemaMismatch", "…: … has version …, this Refold wants version … of it, or …")
def an_older_read_model(folder: Path) -> None:
    Runner(*of_version(0), CORE).catch_up()


@meets(
    "SchemaMismatch",
    "…: … has version …, this Refold only knows how to build …",
)
def rebuild_a_newer_read_model(folder: Path) -> None:
    rebuild(*of_version(99), CORE)


@meets(
    "SchemaMismatch",
    "… … is none that this Refold knows (…): it was written by a …",
)
def an_unknown_word_in_a_read_model(folder: Path) -> None:
    records._FORMS["run_status"]("frobnicating")
