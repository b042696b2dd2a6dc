"""A log on a PostgreSQL server that refuses, is somebody else's, or is held."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any
from unittest import mock

import psycopg
from psycopg import errors

from refold.events.open import open_store
from refold.events.postgres import PostgresStore
from refold.events.store import Unit
from refold.projections.projection import table
from refold.projections.runner import Runner
from refold.projections.views import Views
from refold.projections.views_open import open_views
from refold.testing import TestEngine
from refold.testing.samples import sample_append
from tests import pg
from tests.errors.cases import Said, meets
from tests.projections.samples import NameRow, Names


def url(**more: str) -> str:
    """A schema of its own on the server of this process."""
    return "&".join([f"{pg.running()}&schema=errors_{token_hex(4)}", *(f"{k}={v}" for k, v in more.items())])


def sql(statement: str) -> None:
    with psycopg.connect(pg.running(), autocommit=True) as connection:
        connection.execute(statement.encode())


def reported(kind: type[psycopg.Error]) -> Callable[[Path], Said]:
    """What a server reports with this error, as a store says it: a disk does not fill when it is asked to."""

    def provoke(folder: Path) -> Said:
        store = PostgresStore(url())
        error = store._server.typed(kind("it is so"), "write")
        store.close()
        return Said(type(error).__name__, str(error))

    return provoke


@meets("ConfigurationError", "TestEngine(store=…): expected a file, or memory, …")
async def a_test_engine_on_a_server(folder: Path) -> None:
    async with TestEngine(store=url()):
        pass


meets("StoreReadOnly", "cannot … …; connect to the primary, …")(reported(errors.ReadOnlySqlTransaction))
meets("StoreFull", "cannot … …; free some space on the server …")(reported(errors.DiskFull))
meets("StoreCorrupt", "cannot … …; the database is damaged: restore a backup")(reported(errors.DataCorrupted))


@meets("ConfigurationError", "…: the driver is missing (…): pip install 'refold[postgres]'")
def without_the_driver(folder: Path) -> None:
    with mock.patch.dict(sys.modules, {"refold.events.postgres": None}):
        open_store("postgresql://host/db")


@meets("ConfigurationError", "…: synchronous_commit is … for this user or database, …")
def a_forgetful_server(folder: Path) -> None:
    PostgresStore(url(options="-c%20synchronous_commit%3Doff"))


@meets("ConfigurationError", "… leads through a pooler, …")
def alone_behind_a_pooler(folder: Path) -> None:
    store = PostgresStore(url(prepare="no"))
    try:
        store.hold("maintenance")
    finally:
        store.close()


@meets("StoreError", "cannot write …: a commit is under way that is not answered")
async def a_commit_that_hangs(folder: Path) -> None:
    store = PostgresStore(url())
    try:
        with store._server.lock, mock.patch("refold.events.postgres_server.FIRST_S", 0.01):
            store.leases.take("run")
    finally:
        store.close()


@meets("ConfigurationError", "…: the database's encoding is …; make one with ENCODING 'UTF8'")
def another_encoding(folder: Path) -> None:
    name = f"latin_{token_hex(4)}"
    sql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        PostgresStore(url(dbname=name))
    finally:
        sql(f"DROP DATABASE {name}")


@meets("StoreError", "cannot … …; look at the server, and at the network between")
def nobody_listens(folder: Path) -> None:
    PostgresStore("postgresql://127.0.0.1:1/db")


@meets("StoreError", "… is PostgreSQL …; Refold needs … or newer")
def an_old_server(folder: Path) -> None:
    with mock.patch("refold.events.postgres_server.OLDEST_SERVER", 990_000):
        PostgresStore(url())


@meets("StoreError", "no store at … (schema …); give an existing one")
def look_at_no_tables(folder: Path) -> None:
    open_store(url(), create=False)


@meets("StoreError", "cannot … …; somebody has dropped the tables: restore a backup")
def dropped(folder: Path) -> None:
    store = PostgresStore(url())
    sql(f"DROP SCHEMA {store._server.address.schema} CASCADE")
    try:
        store.read("run")
    finally:
        store.close()


@meets("StoreError", "cannot write …: others were faster each time; try again")
def always_too_late(folder: Path) -> None:
    store = PostgresStore(url())
    unit = Unit((sample_append(store, "run"),))

    def beaten(*_: Any, **__: Any) -> None:
        raise errors.UniqueViolation("somebody else")

    try:
        with mock.patch.object(store, "_append", beaten):
            store.commit([unit])
    finally:
        store.close()


@meets("SchemaMismatch", "schema … of … has … tables of another application; …")
def theirs(folder: Path) -> None:
    where = url()
    schema = where.rpartition("=")[2]
    sql(f"CREATE SCHEMA {schema}")
    sql(f"CREATE TABLE {schema}.theirs (id INT)")
    PostgresStore(where)


@meets("StoreBusy", "… is held by …: stop that one first")
def held_by_workers(folder: Path) -> None:
    store = PostgresStore(url())
    store.leases.join("worker", 30.0)
    try:
        store.hold("maintenance")
    finally:
        store.close()


@meets("StoreBusy", "… is held by …; nothing executes meanwhile: try again")
def held_alone(folder: Path) -> None:
    where = url()
    store, other = PostgresStore(where), PostgresStore(where)
    store.hold("maintenance")
    try:
        other.leases.join("worker", 30.0)
    finally:
        store.close()
        other.close()


@contextmanager
def read_models() -> Iterator[tuple[PostgresStore, Views]]:
    """Of an empty log."""
    store = PostgresStore(url())
    views = open_views(store)
    try:
        yield store, views
    finally:
        views.close()
        store.close()


@meets("ConfigurationError", "the projection's table … is there already, …")
def a_projection_called_as_a_table_of_the_log(folder: Path) -> None:
    work = type("Work", (Names,), {"name": "work", "table": table("work", NameRow, key=("name",))})()
    with read_models() as (store, views):
        Runner(store, views, (work,)).catch_up()


@meets("StoreError", "…: …; somebody has dropped read models: refold rebuild")
def dropped_read_models(folder: Path) -> None:
    with read_models() as (_, views):
        views.query("SELECT * FROM runs")
