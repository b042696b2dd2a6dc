"""Through pgbouncer in transaction mode: each transaction may have another connection to the server."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from refold.errors import ConfigurationError, StoreError
from refold.events.open import open_store
from refold.events.postgres import PostgresStore
from refold.events.store import Store, Unit
from refold.events.verify import verify
from refold.testing import StoreConformance
from refold.testing.samples import sample_append, sample_post
from refold.testing.suite import close, in_threads
from tests.engine.test_workers import check, crew, wait_for
from tests.ha.pooler import pooler


@pytest.fixture(scope="module")
def bouncer(postgres_server: str) -> Iterator[str]:
    with pooler(postgres_server) as url:
        yield url


def through(bouncer: str, postgres: str, *, direct: bool = True) -> str:
    """The schema of this test through the pooler, with the way past it."""
    options, past = postgres.partition("?")[2], postgres.partition("?")[0]
    wanted = [one for one in options.split("&") if one.startswith("schema=")]
    host = next((one[5:] for one in options.split("&") if one.startswith("host=")), "")
    way = host or past.rpartition("@")[2].partition("/")[0]
    return f"{bouncer}?{'&'.join([*wanted, 'prepare=no', *([f'direct={way}'] if direct else [])])}"


@pytest.mark.slow
class TestThroughPgbouncer(StoreConformance):
    @pytest.fixture(autouse=True)
    def schema(self, postgres: str, bouncer: str) -> None:
        self.url = through(bouncer, postgres)

    def make_store(self, tmp_path: Path) -> Store:
        return open_store(self.url)

    def open_again(self, store: Store) -> Store:
        return open_store(self.url)


def test_ten_may_open_a_new_schema_at_once_and_write_there(bouncer: str, postgres: str) -> None:
    opened: list[PostgresStore] = []
    in_threads(*(lambda: opened.append(PostgresStore(through(bouncer, postgres))) for _ in range(10)))
    assert len(opened) == 10

    def write(number: int) -> None:
        store = opened[number]
        unit = Unit((sample_append(store, f"run-{number}", 3),), (), (sample_post("hub"),))
        assert store.commit([unit]) == [None]

    in_threads(*(partial(write, number) for number in range(10)))
    assert opened[0].position() == 40
    assert opened[0].tail("hub/inbox").version == 10
    assert not verify(opened[0]).problems
    close(opened)


@pytest.mark.slow
def test_two_workers_and_one_that_is_killed(bouncer: str, postgres: str, tmp_path: Path) -> None:
    url, runs = through(bouncer, postgres), 6
    store = PostgresStore(url)
    with crew(url, tmp_path) as made:
        for _ in range(2):
            made.hire()
        made.start_runs(runs)
        wait_for(store, runs)
        made.dismiss(made.members[0])
        wait_for(store, 0)
        check(store, made, runs)
    store.close()


def test_hints_come_past_the_pooler_and_not_through_it(bouncer: str, postgres: str) -> None:
    store, other = PostgresStore(through(bouncer, postgres)), PostgresStore(postgres)
    deaf = PostgresStore(through(bouncer, postgres, direct=False))
    assert deaf.leases.listen() == -1
    assert store.leases.listen() >= 0
    heard = threading.Event()
    thread = threading.Thread(target=lambda: heard.set() if one_hint(store) else None)
    thread.start()
    other.commit([Unit((sample_append(other, "run"),))])
    thread.join(60)
    assert heard.is_set()
    close([store, other, deaf])


def one_hint(store: PostgresStore) -> bool:
    listener = store.leases._listener
    assert listener is not None
    return any(True for _ in listener.notifies(timeout=60, stop_after=1))


def test_a_log_is_nobodys_alone_through_a_pooler(bouncer: str, postgres: str) -> None:
    """A lock of a session belongs to whoever gets that connection next; two had it, when it was tried."""
    store = PostgresStore(through(bouncer, postgres, direct=False))
    with pytest.raises(ConfigurationError, match="leads through a pooler"):
        store.hold("maintenance")
    store.close()
    both = [PostgresStore(through(bouncer, postgres)) for _ in range(2)]
    both[0].hold("maintenance")
    with pytest.raises(StoreError, match="is held by maintenance"):
        both[1].hold("maintenance")
    close(both)


def test_no_setting_of_ours_is_left_on_the_servers_connections(bouncer: str, postgres: str) -> None:
    store = PostgresStore(through(bouncer, postgres))
    store.commit([Unit((sample_append(store, "run"),))])
    for _ in range(5):
        with psycopg.connect(bouncer, prepare_threshold=None) as stranger:
            for name in ("plan_cache_mode", "idle_in_transaction_session_timeout"):
                query = "SELECT setting = reset_val FROM pg_settings WHERE name = %s"
                assert stranger.execute(query, (name,)).fetchone() == (True,)
    store.close()


def test_what_the_pooler_does_not_pass_on_is_said(bouncer: str, postgres: str) -> None:
    with pytest.raises(StoreError, match="unsupported startup parameter"):
        PostgresStore(through(bouncer, postgres) + "&options=-c%20work_mem%3D8MB")
