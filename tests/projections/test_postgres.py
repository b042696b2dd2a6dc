"""Read models on PostgreSQL: one set of tables for all processes, folded by one of them at a time."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import psycopg
import pytest

from refold.events.errors import StoreBusy, StoreError, StoreReadOnly
from refold.events.postgres import PostgresStore
from refold.projections import overview, queries
from refold.projections.core import CORE
from refold.projections.projection import Projection
from refold.projections.rebuild import check, open_runner
from refold.projections.runner import Runner
from refold.projections.views import Changes, Views
from refold.projections.views_postgres import PostgresViews
from tests.projections.samples import NameRow, Names, WiderNames, append, caught_up
from tests.projections.test_run_list import FILTERS, many_runs
from tests.projections.test_runner import fill, odd, scheduled, started


@contextmanager
def opened(url: str, *, busy_s: float = 5.0) -> Iterator[tuple[PostgresStore, PostgresViews]]:
    """The log and its read models, as one process has them."""
    store = PostgresStore(url)
    try:
        views = PostgresViews(store.server, busy_s=busy_s)
        try:
            yield store, views
        finally:
            views.close()
    finally:
        store.close()


def test_processes_that_fold_at_once_fold_each_event_once(postgres: str) -> None:
    with opened(postgres) as (store, views):
        end = fill(store, runs=6, length=60)

        def fold(number: int) -> int:
            with opened(postgres) as (mine, tables):
                runner, folded = open_runner(mine, tables, CORE), 0
                while runner.position < end:
                    folded += runner.catch_up(20 + number)
                return folded

        with ThreadPoolExecutor(3) as threads:
            assert sum(threads.map(fold, range(3))) == end
        assert check(store, views, CORE) == []


def test_who_writes_is_waited_for_only_so_long(postgres: str) -> None:
    with opened(postgres) as (store, views), opened(postgres, busy_s=0.01) as (mine, tables):
        fill(store)
        runner = Runner(mine, tables, CORE)
        assert runner.catch_up(5) == 5
        with views.writing():
            assert runner.catch_up(5) == 0
            with pytest.raises(StoreBusy, match="another process is writing read models"), tables.writing():
                pass
        assert runner.catch_up(5) == 5


def test_the_server_may_be_silent_while_it_makes_indexes(postgres: str) -> None:
    with opened(f"{postgres}&patience=1") as (_, views):
        with views.writing():
            views._execute("SELECT pg_sleep(1.5)")
        with pytest.raises(StoreError, match="has not answered"), views.writing():
            views.run("SELECT pg_sleep(30)")  # control: anything else


def test_a_cut_in_the_middle_of_a_fold_leaves_nothing_of_it(postgres: str, postgres_server: str) -> None:
    with opened(postgres) as (store, views):
        end = fill(store)
        runner = Runner(store, views, CORE)
        assert runner.catch_up(5) == 5
        write = runner._write
        writes = 0

        def cut(*stored: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == 3:  # two tables are written, the others are not
                assert views._writer is not None
                pid = views._writer.info.backend_pid
                with psycopg.connect(postgres_server, autocommit=True) as admin:
                    admin.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
            return write(*stored)

        with mock.patch.object(runner, "_write", cut), pytest.raises(StoreError, match=r"terminating|closed"):
            runner.catch_up(20)
        assert runner.position == 5
        runner.reach(end)
        assert check(store, views, CORE) == []


def test_a_frozen_folder_is_cut_off_and_leaves_nothing(postgres: str) -> None:
    with opened(postgres) as (store, views), opened(postgres) as (mine, tables):
        end = fill(store)
        with mock.patch("refold.projections.views_postgres.FROZEN_MS", 50):
            frozen = views.writing()
            frozen.__enter__()
            views.run("DELETE FROM projections")
        runner = Runner(mine, tables, CORE)
        runner.reach(end)  # waits for the lock until the server has had enough
        assert runner.position == end
        with pytest.raises(Exception, match=r"idle-in-transaction timeout|terminating connection|closed"):
            frozen.__exit__(None, None, None)
        assert check(store, views, CORE) == []


def test_those_who_start_with_a_new_version_build_it_once(postgres: str) -> None:
    with opened(postgres) as (store, views):
        append(store, "r", started(), *(scheduled(step) for step in range(1, 40)))
        caught_up(store, views, (Names(),))

        def start(number: int) -> tuple[int, list[Any]]:
            with opened(postgres) as (mine, tables):
                runner = open_runner(mine, tables, (WiderNames(),))
                return runner.position, tables.query("SELECT * FROM names")

        with (
            ThreadPoolExecutor(4) as threads,
            mock.patch("refold.projections.rebuild.BATCH", 5),
            mock.patch("refold.projections.rebuild.STILL_S", 0.02),
        ):
            assert list(threads.map(start, range(4))) == [(40, [("charge", 39, 2)])] * 4
        assert check(store, views, (WiderNames(),)) == []


def test_a_build_that_was_killed_is_gone_on_with(postgres: str) -> None:
    with opened(postgres) as (store, views):
        end = fill(store)
        Runner(store, views, (WiderNames(),)).catch_up()
        with views.writing():
            views.run("UPDATE projections SET version = 1 WHERE slot = 'live'")
        Runner(store, views, (WiderNames(),), slot="building").catch_up(10)
        told: list[tuple[int, int]] = []
        with mock.patch("refold.projections.rebuild.STILL_S", 0.01):
            open_runner(store, views, (WiderNames(),), lambda done, total: told.append((done, total)))
        assert told[-1][0] == end - 10
        assert check(store, views, (WiderNames(),)) == []


def test_texts_that_postgresql_cannot_keep_come_back_as_they_were(postgres: str) -> None:
    name = "nul \0, one \1, two \1\1, three \1\2 end"
    with opened(postgres) as (store, views):
        append(store, "r", started(), scheduled(1, name))
        caught_up(store, views)
        assert queries.list_steps(views, "r")[0]["name"] == name
        assert queries.read_table(views, CORE[1].table, name=name)[0]["key"] == f"{name}#1"
        assert check(store, views, CORE) == []


def test_a_value_of_another_type_is_parked(postgres: str) -> None:
    odd_names = type("Odd", (Names,), {"fold": odd(NameRow("charge", "two"))})()  # type: ignore[arg-type]
    with opened(postgres) as (store, views):
        append(store, "r", started(), scheduled())
        assert "cannot hold 'two'" in caught_up(store, views, (odd_names,)).parked()[0].error


def test_behind_a_pooler_nothing_is_left_in_a_session(postgres: str) -> None:
    with opened(f"{postgres}&prepare=no") as (store, views):
        end = fill(store)
        assert open_runner(store, views, CORE).position == 0
        runner = caught_up(store, views)
        assert runner.position == end
        with store.server.reading() as connection:
            (path,) = connection.execute("SHOW search_path").fetchone() or ("",)
            (waits,) = connection.execute("SHOW synchronous_commit").fetchone() or ("",)
        assert (path, waits) == ('"$user", public', "on")


def test_who_may_only_read_sees_what_others_have_folded(postgres: str, postgres_server: str) -> None:
    schema = postgres.rpartition("=")[2]
    chosen: Sequence[Projection] = (Names(),)
    with opened(postgres) as (store, views):
        append(store, "r", started(), scheduled())
        caught_up(store, views, chosen)
        role = f"reader_{schema}"
        with psycopg.connect(postgres_server, autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {role} LOGIN".encode())
            try:
                admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}".encode())
                admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}".encode())
                with opened(postgres.replace("refold@", f"{role}@", 1)) as (_, tables):
                    assert tables.query("SELECT * FROM names") == [("charge", 1)]
                    append(store, "r", scheduled(2))
                    with pytest.raises(StoreReadOnly, match="permission denied"), tables.writing():
                        tables.run("DELETE FROM names")
                    assert tables.query("SELECT * FROM names") == [("charge", 1)]
            finally:
                admin.execute(f"DROP OWNED BY {role}".encode())
                admin.execute(f"DROP ROLE {role}".encode())


def copied(views: Views, there: PostgresViews) -> None:
    """Every row of these read models, as they are."""
    with there.writing():
        for p in CORE:
            rows = views.query(f"SELECT {', '.join(p.table.names)} FROM {p.table.name}")
            there.create(p.table, p.table.name, indexes=True)
            there.writer_of(p.table, p.table.name)(Changes(rows, [], [], []))


def test_questions_have_the_answers_that_they_have_on_sqlite(postgres: str) -> None:
    here, chance = many_runs(), random.Random(5)
    with opened(postgres) as (_, there):
        copied(here, there)
        asked = [{}, *({name: value} for name, values in FILTERS.items() for value in values)]
        for _ in range(15):
            asked.append({name: chance.choice(FILTERS[name]) for name in chance.sample(sorted(FILTERS), 3)})
        for wanted in asked:
            cursor = None
            while (page := queries.list_runs(here, **wanted, limit=20, cursor=cursor)).cursor:
                assert queries.list_runs(there, **wanted, limit=20, cursor=cursor) == page, wanted
                cursor = page.cursor
            assert queries.list_runs(there, **wanted, limit=20, cursor=cursor) == page, wanted
        runs = [run_id for (run_id,) in here.query("SELECT run_id FROM runs ORDER BY run_id")]
        gates = queries.list_gates(here, open_only=False)[0]
        assert len(gates) > 5
        questions: list[Callable[[Views], Any]] = [
            queries.drift, queries.total_costs, overview.unfinished,
            *(partial(queries.count_runs, by=by) for by in ("status", "attention", "blocked_on", "workflow")),
            *(partial(queries.list_gates, voter=by, open_only=False) for by in ("user:ana", "nobody")),
            partial(queries.list_gates, due_before="2027-01-01T00:00:00.000000Z"),
            partial(queries.due_timers, before="2027-01-01T00:00:00.000000Z"),
            partial(queries.waiting_for, name="go"),
            *(partial(queries.read_table, table=p.table, limit=50) for p in CORE),
            *(partial(ask, run_id=run_id) for run_id in runs[::25] for ask in (
                queries.edges, queries.list_steps, queries.tree_cost, queries.list_children,
                overview.current, overview.summary,
            )),
        ]  # fmt: skip
        for ask in questions:
            assert ask(there) == ask(here), ask
