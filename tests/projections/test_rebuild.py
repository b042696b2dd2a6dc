"""Read models can be dropped, rebuilt beside the live ones, compared with the log, and swapped."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from refold.events.errors import ConfigurationError, SchemaMismatch, StoreCorrupt
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.sqlite import SQLiteStore
from refold.events.store import Store
from refold.projections.core import CORE
from refold.projections.rebuild import Difference, check, open_runner, rebuild
from refold.projections.runner import Runner
from refold.projections.runs import RUNS
from refold.projections.views import Views
from refold.projections.views_open import open_views
from refold.projections.views_sqlite import SqliteViews
from tests.projections.samples import Names, WiderNames, append, caught_up, dump, each
from tests.projections.stories import stories, write
from tests.projections.test_runner import closing_views, fill, scheduled, started


def tables(views: Views) -> set[str]:
    """Tables, as far as they are read models or being built."""
    return {name for _, name, kind in schema(views) if kind == "table"}


def schema(views: Views) -> list[tuple[Any, ...]]:
    if isinstance(views, SqliteViews):
        return views.query("SELECT tbl_name, name, type FROM sqlite_schema ORDER BY 1, 2")
    return views.query(
        "SELECT tablename, tablename, 'table' FROM pg_tables WHERE schemaname = current_schema() UNION ALL "
        "SELECT tablename, regexp_replace(indexdef, '^CREATE.* ON ', ''), 'index' FROM pg_indexes "
        "WHERE schemaname = current_schema() ORDER BY 1, 2"
    )


# ---- the same bytes --------------------------------------------------------------------------------------


@each("seed", *range(5))
def test_rebuilt_rows_are_equal_byte_for_byte(store: Store, views: Views, seed: int) -> None:
    """B16, whatever the batches in which the live rows came about."""
    fill(store, seed, runs=5, length=50)
    runner, chance = Runner(store, views, CORE), random.Random(seed)
    while runner.catch_up(chance.choice((1, 2, 50))):
        pass
    before, shape = dump(views), schema(views)
    assert rebuild(store, views, CORE) == store.position()
    assert dump(views) == before
    assert schema(views) == shape
    assert check(store, views, CORE) == []


def test_all_stores_give_the_same_bytes(tmp_path: Path, postgres: str) -> None:
    histories = stories(3, 5, 50)
    found = []
    for store in (MemoryStore(), SQLiteStore(tmp_path / "x.db"), open_store(postgres)):
        write(store, histories, random.Random(4))
        views = open_views(store)
        caught_up(store, views)
        found.append(dump(views))
        views.close()
        store.close()
    assert found[0] == found[1] == found[2]
    assert all(found[0].values())


def test_dropped_tables_come_back_as_they_were(store: Store, views: Views) -> None:
    fill(store)
    caught_up(store, views)
    before = dump(views)
    with views.writing():
        for p in CORE:
            views.run(f"DROP TABLE {p.table.name}")
    rebuild(store, views, CORE)
    assert dump(views) == before


def test_a_deleted_file_is_built_again(tmp_path: Path) -> None:
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    fill(store)
    with closing_views(log) as views:
        caught_up(store, views)
        before = dump(views)
    (tmp_path / "x.db.views").unlink()
    with closing_views(log) as views:
        while open_runner(store, views, CORE).catch_up():
            pass
        assert dump(views) == before
    store.close()


def test_one_of_them_can_be_rebuilt_alone(store: Store, views: Views) -> None:
    fill(store)
    caught_up(store, views)
    with views.writing():
        views.run("DELETE FROM runs")
        views.run("DELETE FROM costs")
    rebuild(store, views, CORE, ["costs"])
    assert {d.table for d in check(store, views, CORE)} == {"runs"}
    with pytest.raises(ConfigurationError, match="no projection 'cost'; there are runs, steps"):
        rebuild(store, views, CORE, ["cost"])


# ---- the proof finds what is wrong ----------------------------------------------------------------------


@each(
    "tampering found",
    ("UPDATE runs SET workflow = 'chekout' WHERE run_id = 'r'",
     Difference("runs", ("r",), "workflow", "chekout", "w")),
    ("UPDATE runs SET wall_s = 0 WHERE run_id = 'r'", Difference("runs", ("r",), "wall_s", 0.0, None)),
    ("UPDATE steps SET timeout_s = 1e-300 WHERE step = 2",
     Difference("steps", ("r", 2, 0), "timeout_s", 1e-300, 0.0)),
    ("UPDATE runs SET cost_usd = x'30'", Difference("runs", ("r",), "cost_usd", b"0", "0")),
    ("DELETE FROM steps WHERE step = 2", Difference("steps", ("r", 2, 0), "", None, "row")),
    ("INSERT INTO step_edges VALUES ('a', 1, 2)", Difference("step_edges", ("a", 1, 2), "", "row", None)),
)  # fmt: skip
def test_check_names_table_key_and_column(
    store: Store, views: Views, tampering: str, found: Difference
) -> None:
    append(store, "r", started(), scheduled(1), scheduled(2))
    caught_up(store, views)
    assert check(store, views, CORE) == []
    with views.writing():
        assert views.run(tampering)
    assert check(store, views, CORE) == [found]
    assert str(found).startswith(f"{found.table} {found.key[0]}")
    rebuild(store, views, CORE)
    assert check(store, views, CORE) == []


def test_check_catches_up_first_and_changes_nothing(store: Store, views: Views) -> None:
    end = fill(store)
    runner = Runner(store, views, CORE)
    runner.catch_up(10)
    assert check(store, views, CORE) == []
    assert runner.position == end
    before = dump(views)
    assert check(store, views, CORE) == []
    assert dump(views) == before
    assert not any("building" in name for name in tables(views))


def test_check_gives_only_so_many_differences(store: Store, views: Views) -> None:
    fill(store, runs=5, length=50)
    caught_up(store, views)
    with views.writing():
        views.run("UPDATE steps SET name = 'x', site = 'y'")
    assert len(check(store, views, CORE, limit=7)) == 7


# ---- beside the live ones ----------------------------------------------------------------------------------


def test_version_two_is_built_beside_version_one(store: Store, views: Views) -> None:
    """B16: readers see the old rows, and the old code goes on with them, until the swap."""
    append(store, "r", started(), *(scheduled(step) for step in range(1, 12)))
    old = caught_up(store, views, (Names(),))
    seen: list[list[tuple[Any, ...]]] = []

    def progress(done: int, total: int) -> None:
        assert {"names", "names__v2_building"} <= tables(views)
        if not seen:
            append(store, "r", scheduled(50))  # the log grows meanwhile, and the live table with it
            assert old.catch_up() == 1
        seen.append(views.query("SELECT * FROM names"))

    assert rebuild(store, views, (WiderNames(),), progress=progress) == store.position()
    assert seen[0] == [("charge", 12)]
    assert views.query("SELECT * FROM names") == [("charge", 12, 2)]
    assert not any("building" in name for name in tables(views))
    append(store, "r", scheduled(51))
    with pytest.raises(SchemaMismatch, match="names has version 2, this Refold knows version 1"):
        old.catch_up()


def test_opening_rebuilds_what_is_of_an_older_version(store: Store, views: Views) -> None:
    append(store, "r", started(), scheduled())
    caught_up(store, views, (*CORE, Names()))
    with pytest.raises(SchemaMismatch, match="rebuild it"):
        Runner(store, views, (*CORE, WiderNames())).catch_up()
    told: list[tuple[int, int]] = []
    runner = open_runner(store, views, (*CORE, WiderNames()), lambda done, total: told.append((done, total)))
    assert told == [(2, 2)]
    assert runner.position == 2
    assert views.query("SELECT * FROM names") == [("charge", 1, 2)]
    with pytest.raises(SchemaMismatch, match="built by a newer one; upgrade this process"):
        open_runner(store, views, (Names(),))
    with pytest.raises(SchemaMismatch, match="upgrade this process"):
        rebuild(store, views, (Names(),))


def test_other_columns_under_the_same_version_are_rebuilt_too(store: Store, views: Views) -> None:
    append(store, "r", started(), scheduled())
    caught_up(store, views, (Names(),))
    forgot = type("Forgot", (WiderNames,), {"version": 1})()
    open_runner(store, views, (forgot,))
    assert views.query("SELECT * FROM names") == [("charge", 1, 2)]


def test_what_a_killed_rebuild_has_left_is_no_obstacle(store: Store, views: Views) -> None:
    fill(store)
    caught_up(store, views)
    before = dump(views)
    Runner(store, views, CORE, slot="building").catch_up(10)
    assert f"runs__v{RUNS.version}_building" in tables(views)
    assert dump(views) == before
    rebuild(store, views, CORE)
    assert dump(views) == before
    assert not any("building" in name for name in tables(views))


def test_a_swap_never_takes_the_live_position_back(store: Store, views: Views) -> None:
    fill(store)
    live = caught_up(store, views)
    positions: list[int] = []

    def progress(done: int, total: int) -> None:
        if len(positions) < 3:
            append(store, f"new-{len(positions)}", started())
            live.catch_up()
        positions.append(live.position)

    rebuild(store, views, CORE, progress=progress)
    assert live.position >= max(positions)
    assert check(store, views, CORE) == []


def test_a_live_runner_goes_on_after_a_swap(store: Store, views: Views) -> None:
    fill(store)
    live = caught_up(store, views)
    rebuild(store, views, CORE)
    append(store, "later", started(), scheduled())
    assert live.catch_up() == 2
    assert check(store, views, CORE) == []


# ---- files that do not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("other_runs", [1, 9])
def test_rows_of_another_log_are_dropped(tmp_path: Path, other_runs: int) -> None:
    """The log was replaced, and is shorter, or has grown longer than the one that was folded."""
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    fill(store, runs=4)
    with closing_views(log) as views:
        caught_up(store, views)
    store.close()
    for file in tmp_path.glob("x.db*"):
        if not file.name.startswith("x.db.views"):
            file.unlink()
    store = SQLiteStore(log)
    fill(store, seed=9, runs=other_runs)
    with closing_views(log) as views:
        runner = open_runner(store, views, CORE)
        assert runner.position == 0
        while runner.catch_up():
            pass
        assert check(store, views, CORE) == []
    store.close()


def test_a_newer_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with closing_views(str(tmp_path / "x.db")) as views:
        views.connection.execute("PRAGMA user_version = 7")
    with pytest.raises(SchemaMismatch, match="has version 7, this Refold knows version 1: upgrade"):
        SqliteViews(tmp_path / "x.db.views")


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "y.db").close()
    with pytest.raises(SchemaMismatch, match="not one of Refold's read models"):
        SqliteViews(tmp_path / "y.db")


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 40, b"\x00" * 4096])
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db.views").write_bytes(content)
    with pytest.raises(StoreCorrupt, match="delete it with its -wal file: it is built again"):
        SqliteViews(tmp_path / "x.db.views")


def test_urls_lead_to_the_file_beside_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("x.db", "sqlite:///x.db", f"sqlite:///{tmp_path}/x.db", f"{tmp_path}/x.db"):
        views = SqliteViews.of(url)
        assert views.path is not None
        assert views.path.absolute() == tmp_path / "x.db.views"
        views.close()
    elsewhere = SqliteViews.of("mine://db")  # of a user's own store
    assert elsewhere.path is None
    elsewhere.close()


def test_check_of_a_projection_never_folded_before(store: Store, views: Views) -> None:
    fill(store)
    chosen: Sequence[Any] = (Names(),)
    assert check(store, views, chosen) == []
    assert views.query("SELECT COUNT(*) FROM names") != [(0,)]
