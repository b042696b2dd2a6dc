"""Lists of runs: every filter, alone and with others, page by page, is what a look at all rows gives."""

import random
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from msgspec import Raw

from refold.events import types as t
from refold.events.errors import ConfigurationError, ValueRefused
from refold.events.memory import MemoryStore
from refold.projections import queries
from refold.projections.core import CORE
from refold.projections.runs import RUNS
from refold.projections.views import Views
from refold.projections.views_sqlite import SqliteViews
from tests.projections.samples import append, caught_up
from tests.projections.stories import families, write
from tests.projections.test_runner import started

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def views() -> Views:
    return many_runs()


def many_runs() -> Views:
    """Two hundred runs of all sorts, with their families."""
    store, views = MemoryStore(), SqliteViews(None)
    chance = random.Random(7)
    for seed in range(50):
        streams = families(seed, 3, 40)
        renamed = {f"{seed}-{name}": events for name, events in streams.items()}
        write(store, renamed, chance)
    for n in range(40):
        labels = {"shop": chance.choice(("Bern", "Ulm")), "size": chance.choice((1, 2.5, None, [1]))}
        more: list[t.Event] = [t.RunDismissed(id="2", at=AT)] * (n % 3 == 0)
        begin = t.RunStarted(
            id="1", at=AT + timedelta(seconds=n // 4), workflow="ship", workflow_version=str(n % 3),
            args=Raw(b"[]"), seed=1, attributes=labels,
        )  # fmt: skip
        append(store, f"labelled/{n:02}", begin, *more)
    caught_up(store, views)
    return views


def every_run(views: Views) -> list[dict[str, Any]]:
    rows = [queries.get_run(views, run_id) for (run_id,) in views.query("SELECT run_id FROM runs")]
    return sorted((row for row in rows if row), key=lambda r: (r["started_at"], r["run_id"]), reverse=True)


def fits(run: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a run is one of those asked for."""
    plain = {"status": "status", "workflow": "workflow", "version": "version", "parent": "parent_id"}
    if any(wanted.get(name) not in (None, run[column]) for name, column in plain.items()):
        return False
    dismissed = wanted.get("dismissed", False)
    if dismissed is not None and run["dismissed"] != dismissed:
        return False
    if (root := wanted.get("root")) and root != run["root_id"]:
        return False
    attention = wanted.get("attention")
    if attention == "any" and run["attention"] == "none":
        return False
    if attention not in (None, "any", run["attention"]):
        return False
    blocked = (run["blocked_on"] or {}).get("type")
    if wanted.get("blocked_on") not in (None, blocked):
        return False
    if any(run["attributes"].get(k) != v for k, v in (wanted.get("attributes") or {}).items()):
        return False
    after, before = wanted.get("started_after"), wanted.get("started_before")
    return (after is None or run["started_at"] >= after) and (before is None or run["started_at"] < before)


FILTERS: dict[str, tuple[Any, ...]] = {
    "status": ("failed", "waiting", "completed", "running"),
    "attention": ("any", "in_doubt", "none"),
    "workflow": ("ship", "checkout", "kid", "nothing"),
    "version": ("1", "2"),
    "blocked_on": ("event", "approval", "paused"),
    "attributes": ({"shop": "Bern"}, {"shop": "Ulm", "size": 1}, {"size": 2.5}, {"shop": "Rom"}),
    "started_after": ("2026-01-01T00:00:04.000000Z", "2026-02-01T00:00:00.000000Z"),
    "started_before": ("2026-01-01T00:00:08.000000Z",),
    "dismissed": (True, None),
    "root": ("top", "0-run-1", "labelled/01"),
    "parent": ("mid", "3-run-2"),
}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([1, 7, 50]))
def test_filters_give_what_a_look_at_all_rows_gives(
    views: Views, seed: int, filters: int, limit: int
) -> None:
    chance = random.Random(seed)
    wanted = {name: chance.choice(FILTERS[name]) for name in chance.sample(sorted(FILTERS), filters)}
    found: list[str] = []
    cursor = None
    while True:
        page = queries.list_runs(views, **wanted, limit=limit, cursor=cursor)
        found += [run["run_id"] for run in page.runs]
        cursor = page.cursor
        if cursor is None:
            break
    fitting = [run["run_id"] for run in every_run(views) if fits(run, wanted)]
    if "attributes" in wanted:  # a run that was started without labels stands where it got the first
        found, fitting = sorted(found), sorted(fitting)
    assert found == fitting


def test_the_filters_find_something(views: Views) -> None:
    """Control: most of them do."""
    alone = [{name: value} for name, values in FILTERS.items() for value in values]
    empty = [wanted for wanted in alone if not queries.list_runs(views, **wanted).runs]
    assert len(empty) <= len(alone) / 4, empty
    assert {"workflow": "nothing"} in empty


def test_every_filter_walks_along_an_index_in_the_order_of_the_list(views: Views) -> None:
    """F08: no step of any plan sorts or walks through the table."""
    told: list[str] = []
    real = views.query

    def watched(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        if "ORDER BY" in sql:
            told.extend(str(row) for row in real(f"EXPLAIN QUERY PLAN {sql}", parameters))
        return real(sql, parameters)

    views.query = watched  # type: ignore[method-assign]
    try:
        for name, other in product(FILTERS, repeat=2):
            wanted = {name: FILTERS[name][0], other: FILTERS[other][0]}
            queries.list_runs(views, **wanted)
    finally:
        del views.query
    assert len(told) > 100
    sorting = [step for step in told if "TEMP B-TREE" in step and "autoindex" not in step]
    assert [step for step in told if "SCAN runs'" in step] == []
    assert sorting == []


def test_the_names_of_indexes_are_those_that_queries_name() -> None:
    first = [index.columns[0] for index in RUNS.table.indexes]
    assert first == [
        "started_at", "status", "workflow", "workflow", "started_at", "attention", "started_at",
        "blocked_type", "parent_id", "root_id", "lock", "trigger",
    ]  # fmt: skip


def test_counts(views: Views) -> None:
    """C05: `drift` says how many runs of each version are not over."""
    rows = every_run(views)
    listed = [run for run in rows if not run["dismissed"]]
    for by, column in (("status", "status"), ("workflow", "workflow")):
        counts = queries.count_runs(views, by)
        assert counts == {word: sum(run[column] == word for run in listed) for word in counts}
        assert sum(counts.values()) == len(listed)
    attention = queries.count_runs(views, "attention")
    assert attention == {word: sum(run["attention"] == word for run in rows) for word in attention}
    assert "none" not in attention
    unended = [run for run in rows if run["ended_at"] is None]
    drift = queries.drift(views)
    assert sum(row["runs"] for row in drift) == len(unended)
    assert {(row["workflow"], row["version"]) for row in drift} == {
        (run["workflow"], run["version"]) for run in unended
    }
    with pytest.raises(ValueRefused, match="not counted by 'colour'; by status, attention"):
        queries.count_runs(views, "colour")


def test_cursors_of_other_lists_are_refused(views: Views) -> None:
    page = queries.list_runs(views, attributes={"shop": "Bern"}, limit=2)
    assert page.cursor is not None
    with pytest.raises(ValueRefused, match="is of another list"):
        queries.list_runs(views, status="failed", cursor=page.cursor)
    with pytest.raises(ValueRefused, match="is no cursor"):
        queries.list_gates(views, cursor="7")


def test_a_moment_may_be_given_as_one(views: Views) -> None:
    since = AT + timedelta(seconds=4)
    texts = queries.list_runs(views, workflow="ship", started_after="2026-01-01T00:00:04.000000Z")
    assert queries.list_runs(views, workflow="ship", started_after=since).runs == texts.runs
    assert texts.runs


def test_a_damaged_value_does_not_break_a_list() -> None:
    """B14: what is no JSON comes as it is."""
    store, views = MemoryStore(), SqliteViews(None)
    gate = t.GateOpened(id="2", at=AT, gate=1, kind="approval", name="a#1", prompt="?", token="x")
    append(store, "r", started(), gate)
    caught_up(store, views)
    with views.writing():
        views.run("UPDATE runs SET attributes = '{oops', blocked_on = ''")
        views.run("UPDATE gates SET voters = '[', votes = 'x', excluded = '{'")
    (run,) = queries.list_runs(views).runs
    assert (run["attributes"], run["blocked_on"]) == ("{oops", "")
    (found,), _ = queries.list_gates(views)
    assert (found["voters"], found["votes"]) == ("[", "x")
    assert queries.list_gates(views, voter="user:ana") == ([], None)
    row = queries.find_gate(views, "x")
    assert row is not None
    assert row["gate"] == 1


def test_any_table_can_be_read_by_its_columns(views: Views) -> None:
    for projection in CORE:
        rows = queries.read_table(views, projection.table, limit=3)
        assert rows, projection.name
        first = projection.table.key[0]
        assert queries.read_table(views, projection.table, **{first: rows[0][first]})[0] == rows[0]
    with pytest.raises(ConfigurationError, match="runs has no column 'colour'; it has run_id, workflow"):
        queries.read_table(views, RUNS.table, colour="red")
