"""Whoever follows the whole log misses nothing, though appends take no lock that would put them in order."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest

from refold import Engine
from refold.events import types as t
from refold.events.errors import StoreError
from refold.events.postgres import PostgresStore
from refold.events.store import Unit
from refold.events.stream import Row, check_chain
from refold.events.verify import verify
from refold.testing.samples import sample_append
from tests.cluster import checks
from tests.cluster.flows import job
from tests.cluster.kit import Office, until
from tests.cluster.wire import Wire

KILLED, OTHERS = ("eve", "joe"), ("ana", "bob", "kim", "sue")
EACH = 15
"""Runs that each of the others starts."""
LOCK = b"PERFORM pg_advisory_xact_lock"
WITHOUT_LOCK = b"PERFORM abs"


@asynccontextmanager
async def straggler(postgres: str) -> AsyncIterator[Callable[[], None]]:
    """A run that is started in a transaction which has drawn its number, and commits when it is told to."""
    store = PostgresStore(postgres)
    writer = store._server.writer()
    writer.execute("SET idle_in_transaction_session_timeout = 0")
    async with Engine(store, execute=False) as engine:
        writer.execute("BEGIN")
        await engine.start(job, 0, id="slow")
        yield lambda: void(writer.execute("COMMIT"))
    store.close()


def void(_: object) -> None: ...


class ByNumber:
    """Control: a reader that remembers the highest number it has seen."""

    def __init__(self, postgres: str) -> None:
        server, _, self._schema = postgres.rpartition("&schema=")
        self._connection = psycopg.connect(server, autocommit=True)
        self.seen = set[int]()
        self._last = 0

    def look(self) -> None:
        query = f"SELECT id FROM {self._schema}.commits WHERE id > {self._last}"
        found = {number for (number,) in self._connection.execute(query.encode())}
        self.seen |= found
        self._last = max(found, default=self._last)

    def missed(self) -> int:
        query = f"SELECT id FROM {self._schema}.commits"
        numbers = {number for (number,) in self._connection.execute(query.encode())}
        self._connection.close()
        return len(numbers - self.seen)


@pytest.mark.anyio
async def test_a_reader_and_a_read_model_that_follow_six_writing_processes_miss_nothing(
    postgres: str, tmp_path: Path
) -> None:
    """Two of the writers are killed while they write."""
    store, seen, by_number = PostgresStore(postgres), list[Row](), ByNumber(postgres)
    async with straggler(postgres) as commit, Engine(postgres, execute=False) as engine:
        with Office(tmp_path / "office", postgres) as office:

            def follow(least: int) -> bool:
                by_number.look()
                seen.extend(store.scan(seen[-1].position if seen else 0, 50))
                engine.projections.catch_up()
                return len(seen) >= least

            killed = [office.hire("starts_runs", name, 0) for name in KILLED]
            others = [office.hire("starts_runs", name, EACH) for name in OTHERS]
            for number, member in enumerate(killed, 1):
                until(partial(follow, 40 * number))
                office.kill(member)
            until(lambda: follow(0) and len(office.scene.heard("ready")) == len(others))
            commit()
            until(lambda: not follow(0) or seen[-1].position == store.position())
        assert not engine.projections.check()
        runs = {row.stream for row in seen if row.tag == t.RunStarted.TAG}
        assert engine.runs.count() == {"pending": len(runs)}
    assert list(checks.positions(seen)) == []
    assert len(seen) == store.position()
    streams = {row.stream for row in seen}
    for stream in streams:
        assert check_chain([row for row in seen if row.stream == stream]) == store.tail(stream)
    assert {run for _, run in office.scene.heard("acks")} <= streams
    assert {"slow"} | {f"{name}-{number}" for name in OTHERS for number in range(EACH)} <= streams
    assert not verify(store).problems
    assert by_number.missed() > 0
    store.close()


# ---- positions are given by one at a time -------------------------------------------------------


def two_who_give_positions(postgres: str, instead: bytes) -> tuple[list[str], list[str]]:
    """What both have seen of two commits, the first of which becomes visible only when one of them gives."""
    server, _, schema = postgres.rpartition("&schema=")
    early, late, reader = (PostgresStore(postgres) for _ in range(3))
    give = early._queries["give_positions"]
    assert LOCK in give
    reader._queries["give_positions"] = give = give.replace(LOCK, instead)
    writer, seen = early._server.writer(), list[str]()
    with psycopg.connect(server) as first, psycopg.connect(server, autocommit=True) as looks:
        if instead == WITHOUT_LOCK:  # a unique key would notice, too
            looks.execute(f"ALTER TABLE {schema}.commits DROP CONSTRAINT commits_first_position_key".encode())
        early.commit([Unit((sample_append(early, "x"),))])
        writer.execute("BEGIN")
        early.commit([Unit((sample_append(early, "early"),))])
        late.commit([Unit((sample_append(late, "late"),))])
        first.execute(give)
        writer.execute("COMMIT")
        second = threading.Thread(target=lambda: seen.extend(row.stream for row in reader.scan()))
        second.start()
        until(lambda: looks.execute("SELECT COUNT(*) FROM pg_locks WHERE NOT granted").fetchone() == (1,))
        scan = reader._queries["scan"]
        mine = [row[0] for row in first.execute(scan, {"after": 0, "limit": 10})]
        first.commit()
        second.join()
        mine += [row[0] for row in first.execute(scan, {"after": len(mine), "limit": 10})]
    for store in (early, late, reader):
        store.close()
    return mine, seen


def test_two_who_give_positions_at_once_give_the_same(postgres: str) -> None:
    mine, theirs = two_who_give_positions(postgres, LOCK)
    assert mine == theirs == ["x", "late", "early"]


def test_control_without_the_lock_one_of_them_misses_a_commit(postgres: str) -> None:
    mine, _ = two_who_give_positions(postgres, WITHOUT_LOCK)
    assert "early" not in mine


@pytest.mark.parametrize("after", range(3))
def test_a_reader_who_is_cut_off_anywhere_holds_nobody_up(postgres: str, after: int) -> None:
    with Wire(postgres) as wire:
        store, cut_off = PostgresStore(f"{postgres}&options=-c%20lock_timeout%3D30s"), PostgresStore(wire.url)
        store.commit([Unit((sample_append(store, "run"),))])
        wire.cut("client", after)
        with suppress(StoreError):
            cut_off.scan()
        assert [row.position for row in store.scan()] == [1]
        wire.whole()
        store.close()
        cut_off.close()
