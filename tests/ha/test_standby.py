"""Looking at a copy that follows: nothing is written there, and what it says may be a little old."""

from collections.abc import Iterator

import pytest

from refold import Context, Engine, Settings, step, workflow
from refold.cli import main
from refold.errors import SchemaMismatch, StoreReadOnly
from refold.events.open import open_reader
from refold.events.postgres import PostgresStore
from refold.events.store import Unit
from refold.events.verify import verify
from refold.testing.samples import sample_append
from tests.ha.nodes import Node, nodes, until

pytestmark = pytest.mark.anyio


@step
async def double(number: int) -> int:
    return 2 * number


@workflow
async def doubles(ctx: Context) -> list[int]:
    return [await double(number) for number in range(3)]


@pytest.fixture(scope="module")
def two() -> Iterator[list[Node]]:
    with nodes(2) as made:
        yield made


def schema_of(node: Node, name: str) -> str:
    return f"{node.dsn}&schema={name}"


async def test_a_copy_can_be_looked_at_and_says_how_far_behind_it_is(
    two: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    primary, copy = two
    async with Engine(schema_of(primary, "looked"), workflows=[doubles]) as engine:
        assert await engine.run(doubles, id="run") == [0, 2, 4]
        rows, position = engine.store.read("run"), engine.store.position()
    url = schema_of(copy, "looked")
    until(lambda: copy.ask("SELECT 1 FROM looked.meta"))
    reader = open_reader(url)
    until(lambda: reader.position() == position)
    assert reader.read("run") == rows
    assert reader.scan(0, 1_000)[-1].position == position
    assert not verify(reader).problems
    behind = reader.behind()  # type: ignore[attr-defined]
    assert behind.events == 0
    reader.close()
    for command in (["runs"], ["show", "run"], ["events", "run"], ["why", "run"], ["verify"]):
        assert main([*command, "--store", url]) == 0
        out, err = capsys.readouterr()
        assert "run" in out or command == ["verify"]
        assert err.startswith("refold: this is a standby, which heard the last news ")
    with pytest.raises(StoreReadOnly, match="is a standby, which only follows"):
        PostgresStore(url)


async def test_of_several_hosts_the_one_that_can_be_written_is_taken(two: list[Node]) -> None:
    primary, copy = two
    both = f"127.0.0.1:{copy.port},127.0.0.1:{primary.port}"
    store = PostgresStore(f"postgresql://refold@{both}/postgres?schema=several")
    store.commit([Unit((sample_append(store, "run"),))])
    assert store._server.writer().info.port == primary.port
    store.close()
    until(lambda: copy.ask("SELECT 1 FROM pg_tables WHERE schemaname = 'several'"))
    wanted = "schema=several&target_session_attrs=prefer-standby"
    reader = open_reader(f"postgresql://refold@{both}/postgres?{wanted}")
    with reader._server.reading() as connection:  # type: ignore[attr-defined]
        assert connection.info.port == copy.port
    reader.close()


async def test_a_copy_of_an_older_schema_says_what_to_do(
    two: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, copy = two
    PostgresStore(schema_of(primary, "older")).close()
    until(lambda: copy.ask("SELECT 1 FROM older.meta"))
    monkeypatch.setattr("refold.events.postgres_server.SCHEMA_VERSION", 99)
    with pytest.raises(SchemaMismatch, match="a standby cannot be brought up to date"):
        open_reader(schema_of(copy, "older"))


async def test_last_of_all_the_copy_takes_over_under_an_engine(two: list[Node]) -> None:
    """It has what was acknowledged: commits have waited for it."""
    primary, copy = two
    primary.set("synchronous_standby_names", "*")
    until(lambda: primary.ask("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"))
    url = f"postgresql://refold@127.0.0.1:{primary.port},127.0.0.1:{copy.port}/postgres?schema=moved"
    async with Engine(url, workflows=[doubles], settings=Settings(projections=False)) as engine:
        assert await engine.run(doubles, id="before") == [0, 2, 4]
        primary.stop()
        copy.promote()
        handle = await engine.get("before")
        assert await handle.result(timeout=60) == [0, 2, 4]
        assert await engine.run(doubles, id="after") == [0, 2, 4]
        assert engine.store._server.writer().info.port == copy.port  # type: ignore[attr-defined]
        assert not engine.verify().problems
