"""Hints and claims: what others are told after a commit, and what needs no disk."""

from typing import Any

import psycopg
import pytest

from refold.engine.claims import Shared
from refold.events.postgres import PostgresStore
from refold.events.store import Unit
from refold.testing.samples import sample_append, sample_post, sample_work

NOW = 100.0


def server_of(url: str) -> str:
    return url.partition("schema=")[0].rstrip("?&")


def stored(store: PostgresStore, *runs: str) -> None:
    units = [Unit((sample_append(store, run),), (sample_work(run, "pending", 1.0),)) for run in runs]
    assert store.commit(units) == [None] * len(runs)


def joined(store: PostgresStore, owner: str) -> Shared:
    claims = Shared(store, owner, ttl=600.0, refresh=100.0)
    claims.join()
    return claims


def hints(listener: psycopg.Connection[Any], channel: str) -> int:
    """How many have come since the last call: those before a mark of our own."""
    listener.execute("SELECT pg_notify(%s, 'mark')", (channel,))
    for number, hint in enumerate(listener.notifies(timeout=60)):
        if hint.payload == "mark":
            return number
    raise AssertionError("the mark did not come")


def test_who_only_talks_to_runs_gives_a_hint_after_the_commit(postgres: str) -> None:
    store = PostgresStore(postgres)
    with psycopg.connect(server_of(postgres), autocommit=True) as listener:
        channel = store.leases.channel
        listener.execute(f'LISTEN "{channel}"'.encode())
        stored(store, "started")
        assert hints(listener, channel) == 1
        store.commit([Unit(posts=(sample_post("started"),))])
        assert hints(listener, channel) == 1
        store.leases.join("worker", 600.0)
        stored(store, "own")
        assert hints(listener, channel) == 0, "a worker begins what it starts itself"
    store.close()


def test_a_hint_that_is_lost_does_not_make_a_commit_fail(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(postgres)
    monkeypatch.setitem(store._queries, "hint", b"SELECT 1 / 0")
    stored(store, "run")
    assert store.tail("run").version == 1
    stored(store, "another")
    store.close()


def test_a_look_takes_what_is_due_tells_what_comes_next_and_does_not_ask_again(postgres: str) -> None:
    one, other = PostgresStore(postgres), PostgresStore(postgres)
    stored(one, "a", "b")
    one.commit([Unit(works=(sample_work("later", "waiting", 200.0),))])
    mine, theirs = joined(one, "one"), joined(other, "other")
    assert mine.due(NOW, 100, (), 1) == ["a"]
    assert mine.next_due(NOW) == 200.0
    assert theirs.due(NOW, 100, (), 100) == ["b"]
    assert mine.take("a")
    assert not mine.take("b")
    one.close()
    other.close()


def test_a_run_that_was_ours_is_asked_for_again_once_the_lease_was_lost(postgres: str) -> None:
    one, other = PostgresStore(postgres), PostgresStore(postgres)
    stored(one, "run")
    mine, theirs = joined(one, "one"), joined(other, "other")
    assert mine.due(NOW, 100, (), 100) == ["run"]
    with psycopg.connect(server_of(postgres), autocommit=True) as server:
        ago = f"UPDATE {one._server.address.schema}.workers SET until = clock_timestamp() WHERE owner = 'one'"
        server.execute(ago.encode())
    assert theirs.due(NOW, 100, (), 100) == ["run"]
    mine._next_beat = 0.0
    assert not mine.tick(), "it had been given up"
    assert not mine.take("run")
    one.close()
    other.close()


def test_claims_do_not_wait_for_the_disk_and_appends_do(postgres: str) -> None:
    """Who has which run may be forgotten in a crash; the setting must not outlive its transaction."""
    store = PostgresStore(postgres)
    stored(store, "run")
    claims = joined(store, "worker")
    assert claims.due(NOW, 100, (), 100) == ["run"]
    assert store._server.writer().execute("SHOW synchronous_commit").fetchone() == ("on",)
    store.close()


def test_who_reads_a_run_to_execute_it_gives_it_no_positions(postgres: str) -> None:
    store = PostgresStore(postgres)
    stored(store, "run")
    assert [row.position for row in store.read_unplaced("run")] == [0]
    assert [row.position for row in store.read("run")] == [1]
    assert [row._replace(position=1) for row in store.read_unplaced("run")] == store.read("run")
    store.close()


def test_runs_in_the_middle_of_something_come_in_order_page_by_page_with_those_that_become_ours(
    postgres: str,
) -> None:
    store = PostgresStore(postgres)
    claims = joined(store, "worker")
    units = [Unit((sample_append(store, name),), (sample_work(name, "running"),)) for name in "bdf"]
    assert store.commit(units) == [None] * 3
    store.leases.owner = None
    units = [Unit((sample_append(store, name),), (sample_work(name, "running"),)) for name in "ace"]
    assert store.commit(units) == [None] * 3
    store.leases.owner = "worker"
    assert claims.running("", 2, (), 0) == ["b", "d"]
    assert claims.running("", 4, (), 2) == ["a", "b", "c", "d"]
    assert claims.running("d", 4, ["e"], 2) == ["f"]
    assert claims.running("", 100, (), 100) == list("abcdef")
    assert store._server.writer().execute("SHOW synchronous_commit").fetchone() == ("on",)
    store.close()
