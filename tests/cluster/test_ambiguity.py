"""Commits whose outcome nobody heard are looked up; an own write never counts as a stranger's."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest

from refold import Context, Engine, Settings, step, workflow
from refold.events import types as t
from refold.events.errors import AppendRefused, RefoldError
from refold.events.log import Log
from refold.events.postgres import PostgresStore
from refold.events.store import Store, Unit
from refold.events.verify import verify
from refold.testing.samples import sample_append, sample_work
from tests.cluster.kit import until
from tests.cluster.wire import CUTS, Wire
from tests.engine.kit import until as until_so

pytestmark = pytest.mark.anyio


async def told(log: Log, unit: Unit) -> RefoldError | None:
    answer: asyncio.Future[RefoldError | None] = asyncio.get_running_loop().create_future()
    log.append(unit, answer.set_result)
    return await answer


@contextmanager
def wired(url: str) -> Iterator[tuple[Wire, PostgresStore]]:
    with Wire(url) as wire:
        store = PostgresStore(wire.url)
        try:
            yield wire, store
        finally:
            wire.whole()
            store.close()


async def one_more(store: Store) -> Unit:
    """A further append to the run; sent, it is one request, for its statement is prepared."""
    first = Unit((sample_append(store, "run"),), (sample_work("run"),))
    assert await told(Log(store), first) is None
    return Unit((sample_append(store, "run"),), (sample_work("run", "waiting"),))


async def append_unheard(store: Store, wire: Wire) -> RefoldError | None:
    """An append that the server commits, and whose acknowledgement is lost."""
    unit = await one_more(store)
    wire.cut("answer")
    return await told(Log(store), unit)


async def test_an_append_whose_answer_was_lost_is_found_in_the_log(postgres: str) -> None:
    with wired(postgres) as (wire, store):
        assert await append_unheard(store, wire) is None
        assert wire.happened == 1
        assert store.tail("run").version == 2


async def test_control_tried_again_blindly_an_own_write_is_reported_as_a_conflict(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Log, "_stored", lambda self, unit, inboxes: False)
    with wired(postgres) as (wire, store):
        assert isinstance(await append_unheard(store, wire), AppendRefused)


async def test_an_append_that_is_still_under_way_when_it_is_looked_for_is_no_conflict(postgres: str) -> None:
    """The client is gone, the server is not through: not there yet, and there before the second try is."""
    with wired(postgres) as (wire, store):
        server, _, schema = postgres.rpartition("&schema=")
        unit = await one_more(store)
        with psycopg.connect(server) as other:
            other.execute(f"LOCK TABLE {schema}.work IN ACCESS EXCLUSIVE MODE".encode())
            watch = threading.Thread(target=lambda: _let_both_go(server, other))
            watch.start()
            wire.cut("client")
            try:
                assert await told(Log(store), unit) is None
            finally:
                watch.join()
        assert store.tail("run").version == 2


def _let_both_go(server: str, other: psycopg.Connection[tuple[int]]) -> None:
    """Once the first try and the second one wait for the lock."""
    with psycopg.connect(server, autocommit=True) as looks:
        until(lambda: looks.execute("SELECT COUNT(*) FROM pg_locks WHERE NOT granted").fetchone() == (2,))
    other.rollback()


@step
async def add(number: int) -> int:
    bodies.append(number)
    return number + 1


bodies: list[int] = []


@workflow
async def sums(ctx: Context) -> int:
    total = 0
    for number in range(12):
        total += await add(number)
        if number % 4 == 0:
            await ctx.sleep(0.01)
    return total


async def test_a_run_goes_on_through_every_kind_of_cut(postgres: str) -> None:
    bodies.clear()
    with wired(postgres) as (wire, store):
        async with Engine(store, workflows=[sums], settings=Settings(projections=False)) as engine:
            handle = await engine.start(sums, id="run")
            for number in range(9):
                wire.cut(CUTS[number % 3], number % 4)
                await until_so(partial(wire.at_least, number + 1), within_s=90.0)
            assert await handle.result(timeout=90) == 78
            assert bodies == list(range(12))
            claims = [e for e in handle.events() if isinstance(e, t.RunClaimed)]
            assert len(claims) == 1  # never refused, so never brought back
        assert not verify(store).problems
