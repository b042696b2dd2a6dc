"""The store on a real PostgreSQL server."""

import threading
from functools import partial
from pathlib import Path

import psycopg
import pytest

from refold.events.errors import ConfigurationError, SchemaMismatch, StoreError
from refold.events.open import open_store
from refold.events.postgres import PostgresStore
from refold.events.store import Store, Unit
from refold.events.stream import Row, check_chain
from refold.events.verify import verify
from refold.testing import StoreConformance
from refold.testing.samples import sample_append, sample_post
from refold.testing.suite import close, in_threads
from tests.events.test_stores import LibraryCases


class TestPostgres(StoreConformance):
    @pytest.fixture(autouse=True)
    def schema(self, postgres: str) -> None:
        self.url = postgres

    def make_store(self, tmp_path: Path) -> Store:
        return open_store(self.url)

    def open_again(self, store: Store) -> Store:
        return open_store(self.url)


class TestLibraryCasesOnPostgres(LibraryCases):
    @pytest.fixture(autouse=True)
    def schema(self, postgres: str) -> None:
        self.url = postgres

    def recorder(self, tmp_path: Path) -> PostgresStore:  # type: ignore[override]
        return PostgresStore(self.url)


# ---- order without a lock -------------------------------------------------------------------------


def test_who_commits_late_gets_a_later_position_and_nobody_who_reads_on_misses_it(postgres: str) -> None:
    """The number of the slow commit is smaller; a reader that remembers numbers would never see it."""
    store, schema = PostgresStore(postgres), postgres.rpartition("=")[2]
    with psycopg.connect(postgres.partition("schema=")[0].rstrip("?&")) as slow:
        slow.execute(f"INSERT INTO {schema}.commits (size) VALUES (1) RETURNING id".encode())
        slow.execute(
            f"INSERT INTO {schema}.stored_events SELECT 'slow', 1, 'tag', '', '', MAX(id), 0 "
            f"FROM {schema}.commits".encode()
        )
        store.commit([Unit((sample_append(store, "quick", 2),))])
        seen = store.scan()
        assert [(row.stream, row.position) for row in seen] == [("quick", 1), ("quick", 2)]
        slow.commit()
    assert [(row.stream, row.position) for row in store.scan(2)] == [("slow", 3)]
    numbers = store._rows("count_commits", after=0)
    assert numbers == [(2, 2)]
    store.close()


def test_many_writers_and_a_reader_that_follows(postgres: str) -> None:
    """Six connections write to streams of their own and to one inbox: no gap, nothing missed."""
    stores = [PostgresStore(postgres) for _ in range(7)]
    reader, ended, seen = stores.pop(), threading.Event(), list[Row]()

    def write(number: int) -> None:
        store = stores[number]
        for turn in range(40):
            unit = Unit((sample_append(store, f"run-{number}", 1 + turn % 3),), (), (sample_post("hub"),))
            assert store.commit([unit]) == [None]

    def follow() -> None:
        while True:
            last_look = ended.is_set()
            while rows := reader.scan(seen[-1].position if seen else 0, 50):
                seen.extend(rows)
            if last_look:
                return

    following = threading.Thread(target=follow)
    following.start()
    try:
        in_threads(*(partial(write, number) for number in range(6)))
    finally:
        ended.set()
        following.join(60)
    assert [row.position for row in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == 6 * (40 + sum(1 + turn % 3 for turn in range(40)))
    for stream in ("hub/inbox", *(f"run-{number}" for number in range(6))):
        assert check_chain([row for row in seen if row.stream == stream]) == reader.tail(stream)
    assert not verify(reader).problems
    close([*stores, reader])


# ---- what only a server can do to us --------------------------------------------------------------


def test_twenty_may_open_a_new_schema_at_once(postgres: str) -> None:
    opened: list[PostgresStore] = []
    in_threads(*(lambda: opened.append(PostgresStore(postgres)) for _ in range(20)))
    assert len(opened) == 20
    close(opened)


def test_a_connection_that_was_cut_is_an_error_once_and_then_made_anew(postgres: str) -> None:
    store = PostgresStore(postgres)
    store.commit([Unit((sample_append(store, "run"),))])
    with psycopg.connect(postgres.partition("schema=")[0].rstrip("?&"), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'refold' AND pid <> pg_backend_pid()"
        )
    fresh = PostgresStore(postgres)
    append = sample_append(fresh, "run")
    fresh.close()
    with pytest.raises(StoreError, match="cannot write"):
        store.commit([Unit((append,))])
    assert store.commit([Unit((append,))]) == [None]
    assert check_chain(store.read("run")).version == 2
    store.close()


def test_another_applications_schema_is_left_alone(postgres_server: str, postgres: str) -> None:
    schema = postgres.rpartition("=")[2]
    with psycopg.connect(postgres_server, autocommit=True) as other:
        other.execute(f"CREATE SCHEMA {schema}".encode())
        other.execute(f"CREATE TABLE {schema}.theirs (id INT)".encode())
    with pytest.raises(SchemaMismatch, match="another application"):
        PostgresStore(postgres)


def test_a_server_that_does_not_wait_for_the_disk_is_refused(postgres_server: str) -> None:
    with pytest.raises(ConfigurationError, match="synchronous_commit is off"):
        PostgresStore(f"{postgres_server}&options=-c%20synchronous_commit%3Doff")


def test_nobody_sees_the_password(postgres_server: str) -> None:
    for url in (
        "postgresql://ana:geheim@127.0.0.1:1/db?connect_timeout=1",
        "postgresql://127.0.0.1:1/db?password=geheim",
    ):
        with pytest.raises(StoreError) as refused:
            PostgresStore(url)
        assert "geheim" not in str(refused.value)
        assert "cannot open postgresql://" in str(refused.value)
        assert "127.0.0.1:1/db" in str(refused.value)


@pytest.mark.parametrize(("url", "what"), [("schema=a-b", "schema"), ("prepare=maybe", "prepare")])
def test_options_of_ours_in_the_url_are_checked(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{what}="):
        PostgresStore(f"postgresql://127.0.0.1/db?{url}")


def test_a_schema_that_is_not_there_is_not_made_by_who_only_looks(postgres: str) -> None:
    with pytest.raises(StoreError, match="no store at"):
        open_store(postgres, create=False)
