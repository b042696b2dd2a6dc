"""What the store does while its server is silent, away, started again, or not the one it was."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from refold import Context, Engine, Settings, step, workflow
from refold.engine.following import FAILING_S
from refold.errors import StoreError
from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.postgres_connect import Dial, Patient
from refold.events.store import Unit
from refold.events.stream import check_chain
from refold.testing.samples import sample_append
from tests.engine.kit import engine, of, until, waiting
from tests.ha.nodes import Node, nodes

SOON = pytest.mark.anyio


def cut(server: str) -> None:
    """End all connections of stores."""
    with psycopg.connect(server, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'refold' AND pid <> pg_backend_pid()"
        )


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- a server that is silent ------------------------------------------------------------------------


def test_a_server_that_is_silent_for_too_long_is_given_up_and_asked_anew(postgres: str) -> None:
    store = PostgresStore(f"{postgres}&patience=0.3")
    append = sample_append(store, "run")
    with frozen(store._server.writer().info.backend_pid):
        with pytest.raises(StoreError, match=r"not answered for 0.3 s"):
            store.commit([Unit((append,))])
        assert store.commit([Unit((append,))]) == [None]
    assert check_chain(store.read("run")).version == 1
    store.close()


def test_what_is_on_its_way_is_no_silence(postgres: str) -> None:
    store = PostgresStore(f"{postgres}&patience=0.5")
    with store._server.reading() as connection:
        began = monotonic()
        # A row every 0.2 s, each too large for the server to keep it back.
        query = "SELECT repeat('x', 100000), pg_sleep(0.2) FROM generate_series(1, 5)"
        assert len(connection.execute(query).fetchall()) == 5
        assert monotonic() - began > 0.5
    store.close()


@SOON
async def test_an_event_loop_does_not_stand_still_while_a_server_is_dialled(postgres: str) -> None:
    there, dialled = threading.Event(), list[int]()

    def make() -> Patient:
        dialled.append(1)
        there.wait(60)
        return Patient.connect(postgres.partition("schema=")[0].rstrip("?&"))

    dial, ticks = Dial(make), 0
    with pytest.raises(psycopg.OperationalError, match="takes its time"):
        dial.connect()  # the first attempt may hold it up a little: most often that is all it takes
    for _ in range(100):
        with pytest.raises(psycopg.OperationalError):
            dial.connect()
        ticks += 1
        await asyncio.sleep(0)
    assert (ticks, len(dialled)) == (100, 1)
    there.set()
    connection = None
    while connection is None:
        try:
            connection = dial.connect()
        except psycopg.OperationalError:
            await asyncio.sleep(0.01)
    connection.close()
    dial.close()
    assert len(dialled) == 1


@SOON
async def test_attempts_are_further_and_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now, dialled = [0.0], list[float]()
    monkeypatch.setattr("refold.events.postgres_connect.monotonic", lambda: now[0])

    def make() -> Patient:
        dialled.append(now[0])
        raise psycopg.OperationalError("nobody there")

    dial = Dial(make)
    for tick in range(1_000):
        now[0] = tick / 100
        with pytest.raises(psycopg.OperationalError, match="nobody there"):
            dial.connect()
        if (attempt := dial._attempt) is not None:
            await asyncio.to_thread(attempt.exception)
    assert 6 <= len(dialled) <= 10, dialled
    dial.close()


# ---- a server that comes back -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with nodes() as (only,):
        yield only


@step
async def number(value: int) -> int:
    STARTED.set()
    await GO.wait()
    return value


@workflow
async def count(ctx: Context) -> list[int]:
    await ctx.wait_for_event("go")
    return [await number(value) for value in range(3)]


STARTED, GO = asyncio.Event(), asyncio.Event()


@SOON
async def test_a_server_that_is_started_again_under_an_engine(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """What was acknowledged is there, what a step came to meanwhile is kept, and the outage is told once."""
    STARTED.clear()
    GO.clear()
    url = f"{node.dsn}&schema=again"
    with caplog.at_level(logging.WARNING, "refold"):
        async with Engine(url, workflows=[count], settings=Settings(projections=False)) as engine:
            handle = await engine.start(count, id="run")
            await waiting(engine, "run")
            await handle.signal("go")
            await STARTED.wait()
            acknowledged = [row[:5] for row in engine.store.read("run")]
            node.stop()
            GO.set()  # the step ends while there is nobody who would store that
            await until(lambda: engine.worker.log.failure is not None, 60)
            for _ in range(20):
                await asyncio.sleep(0.05)
            node.start()
            assert await handle.result(timeout=60) == [0, 1, 2]
            assert [row[:5] for row in engine.store.read("run")][: len(acknowledged)] == acknowledged
            assert len(of(handle, t.StepCompleted)) == 3
            assert not engine.verify().problems
            await until(lambda: "can be read again" in caplog.text, 60)
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert sorted(text for text in told if text.startswith("the ")) == sorted(
        {text for text in told if text.startswith("the ")}
    ), told


@SOON
async def test_an_outage_is_told_once_and_looked_at_less_and_less_often_whatever_the_store_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = list[int]()

    def away() -> bool:
        looks.append(1)
        raise StoreError("the disk is away")

    with caplog.at_level(logging.WARNING, "refold.worker"):
        async with engine(str(tmp_path / "log.db"), count) as e:
            with monkeypatch.context() as broken:
                broken.setattr(e.store, "changed", away)
                await until(lambda: len(looks) > 3, 60)
                assert e.worker.following._pause_s > 4 * FAILING_S[0]
            await until(lambda: "can be read again" in caplog.text, 60)
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == ["the store cannot be read, trying again", told[1]]
    assert told[1].startswith("the store can be read again, after ")


def test_a_commit_that_no_standby_confirms_is_not_acknowledged_and_leaves_one_process_behind(
    node: Node,
) -> None:
    store = PostgresStore(f"{node.dsn}&schema=alone&patience=0.3")
    append = sample_append(store, "run")
    node.set("synchronous_standby_names", "nobody")
    waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    try:
        with pytest.raises(StoreError, match="not answered"):
            store.commit([Unit((append,))])
        for _ in range(5):
            with pytest.raises(StoreError, match="waits for a standby"):
                store.commit([Unit((append,))])
            with pytest.raises(StoreError, match="waits for a standby"):
                store.read("run")
        assert node.ask(waits) == [(1,)]
        # Cut by whoever, it is visible here, and nowhere else: not yet something to build on.
        node.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        other = PostgresStore(f"{node.dsn}&schema=alone")
        assert other.tail("run").version == 1
        other.close()
        with pytest.raises(StoreError, match="not answered"):
            store.read("run")
    finally:
        node.ask("ALTER SYSTEM RESET synchronous_standby_names")
        node.ask("SELECT pg_reload_conf()")
    assert [row.hash for row in store.read("run")] == [append.rows[0].hash]
    store.close()


def test_without_the_barrier_what_only_one_server_has_passes_for_stored(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control of the one before."""
    store = PostgresStore(f"{node.dsn}&schema=careless&patience=0.3")
    append = sample_append(store, "run")
    node.set("synchronous_standby_names", "nobody")
    try:
        with pytest.raises(StoreError, match="not answered"):
            store.commit([Unit((append,))])
        node.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        monkeypatch.setattr(store._server, "in_doubt", False)
        assert store.tail("run").version == 1
    finally:
        node.ask("ALTER SYSTEM RESET synchronous_standby_names")
        node.ask("SELECT pg_reload_conf()")
    store.close()


def test_local_durability_is_refused_where_there_are_standbys(node: Node) -> None:
    local = f"{node.dsn}&schema=local&options=-c%20synchronous_commit%3Dlocal"
    PostgresStore(local).close()
    node.set("synchronous_standby_names", "nobody")
    try:
        with pytest.raises(Exception, match="synchronous_commit is local"):
            PostgresStore(local)
    finally:
        node.ask("ALTER SYSTEM RESET synchronous_standby_names")
        node.ask("SELECT pg_reload_conf()")


# ---- a server that is not the one it was ------------------------------------------------------------


def test_a_server_without_what_was_acknowledged_is_not_believed(postgres: str, postgres_server: str) -> None:
    """As a copy that lags, the old primary, or a new one that replication had not told of everything."""
    store, schema = PostgresStore(postgres), postgres.rpartition("=")[2]
    store.commit([Unit((sample_append(store, "run", 2),))])
    kept = store.read("run")
    with psycopg.connect(postgres_server, autocommit=True) as other:
        row = other.execute(
            f"DELETE FROM {schema}.stored_events WHERE originator_version = 2 RETURNING *".encode()
        ).fetchone()
        cut(postgres_server)
        for ask in (lambda: store.read("run"), lambda: store.commit([Unit((sample_append(store, "x"),))])):
            with pytest.raises(StoreError, match=r"does not have event 2 of 'run', which was acknowledged"):
                ask()
        assert row is not None
        other.execute(f"INSERT INTO {schema}.stored_events VALUES (%s, %s, %s, %s, %s, %s, %s)".encode(), row)
    assert store.read("run") == kept
    store.close()
