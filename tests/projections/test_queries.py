"""What the read API gives: typed rows, pages, filters, exact totals."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec import Raw

from refold.events import types as t
from refold.events.errors import SchemaMismatch, ValueRefused
from refold.events.memory import MemoryStore
from refold.projections import queries
from refold.projections.status import Attention, RunStatus, StepStatus
from refold.projections.views import Views
from refold.projections.views_sqlite import SqliteViews
from tests.projections.samples import append, caught_up
from tests.projections.stories import stories, write
from tests.projections.test_runner import scheduled, started

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def many() -> Views:
    """Twenty-five runs, several started in the same microsecond, a fifth of them diverged."""
    store, views = MemoryStore(), SqliteViews(None)
    for n in range(25):
        at = AT + timedelta(seconds=n // 3)
        workflow = "deploy" if n % 2 else "checkout"
        begin = t.RunStarted(id="1", at=at, workflow=workflow, workflow_version="1", args=Raw(b"[]"), seed=1)
        more: list[t.Event] = [t.RunClaimed(id="2", at=at, owner="me", generation=1)]
        if n % 5 == 0:
            more.append(t.RunAttention(id="3", at=at, kind="diverged", reason="look"))
        if n % 4 == 0:
            more.append(t.RunCompleted(id="4", at=at, result=Raw(b"1")))
        append(store, f"run/{n:02}", begin, *more)
    caught_up(store, views)
    return views


def ids(page: queries.Page) -> list[int]:
    return [int(run["run_id"][-2:]) for run in page.runs]


def test_runs_come_newest_first_in_pages_that_neither_skip_nor_repeat(many: Views) -> None:
    page, found = queries.list_runs(many, limit=4), []
    while True:
        found += ids(page)
        if page.cursor is None:
            break
        page = queries.list_runs(many, limit=4, cursor=page.cursor)
    assert found == list(range(24, -1, -1))


def test_runs_are_filtered(many: Views) -> None:
    assert ids(queries.list_runs(many, status="completed")) == [24, 20, 16, 12, 8, 4, 0]
    assert ids(queries.list_runs(many, workflow="deploy", limit=3)) == [23, 21, 19]
    assert ids(queries.list_runs(many, attention="diverged")) == [15, 10, 5]  # 0 and 20 are over
    assert ids(queries.list_runs(many, attention="any", workflow="deploy")) == [15, 5]
    assert queries.count_runs(many) == {"completed": 7, "running": 18}


def test_a_list_leaves_out_what_may_be_large(many: Views) -> None:
    (run,) = queries.list_runs(many, limit=1).runs
    assert not {"args", "result", "runtime", "open"} & run.keys()


def test_a_cursor_from_elsewhere_is_refused(many: Views) -> None:
    with pytest.raises(ValueRefused, match="is no cursor"):
        queries.list_runs(many, cursor="7")


def test_values_are_typed(many: Views) -> None:
    run = queries.get_run(many, "run/04")
    assert run is not None
    assert run["status"] is RunStatus.COMPLETED
    assert run["attention"] is Attention.NONE
    assert (run["result"], run["args"], run["attributes"]) == (1, [], {})
    assert type(run["cost_usd"]) is Decimal
    assert "open" not in run
    assert queries.get_run(many, "nobody") is None


@pytest.mark.parametrize(
    ("table", "column"), [("steps", "status"), ("runs", "status"), ("runs", "attention")]
)
def test_an_unknown_status_is_an_error_and_never_pending(table: str, column: str) -> None:
    """B02."""
    store, views = MemoryStore(), SqliteViews(None)
    append(store, "r", started(), scheduled())
    caught_up(store, views)
    (step,) = queries.list_steps(views, "r")
    assert step["status"] is StepStatus.SCHEDULED
    assert step["pure"] is False
    with views.writing():
        views.run(f"UPDATE {table} SET {column} = 'frobnicating'")
    with pytest.raises(SchemaMismatch, match=r"'frobnicating' is none that this Refold knows \("):
        queries.list_steps(views, "r") if table == "steps" else queries.list_runs(views)


def test_nothing_folded_yet_is_empty_not_an_error() -> None:
    views = SqliteViews(None)
    assert queries.list_runs(views).runs == []
    assert queries.get_run(views, "r") is None
    assert queries.list_steps(views, "r") == []
    assert queries.edges(views, "r") == []
    assert queries.list_costs(views, "r") == []
    assert queries.count_runs(views) == {}
    assert queries.total_costs(views)[""].usd == 0


def test_totals_are_the_same_however_they_are_cut() -> None:
    store, views = MemoryStore(), SqliteViews(None)
    write(store, stories(11, 6, 60), random.Random(1))
    caught_up(store, views)
    whole = queries.total_costs(views)[""]
    assert whole.entries > 10
    for by in ("model", "day", "step", "run_id"):
        parts = queries.total_costs(views, by=by).values()
        assert sum(part.usd for part in parts) == whole.usd
        assert sum(part.entries for part in parts) == whole.entries
    runs = [queries.get_run(views, f"run-{n}") for n in range(1, 7)]
    assert sum(run["cost_usd"] for run in runs if run) == whole.usd
    with pytest.raises(ValueRefused, match="cannot be added up by 'colour'"):
        queries.total_costs(views, by="colour")
