"""Each read model equals a naive fold of whole histories, and says what the acceptance table asks of it."""

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import given, settings, strategies as st
from msgspec import Raw

from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.stream import Tail, chain
from refold.events.types import Event
from refold.projections import queries
from refold.projections.core import CORE
from refold.projections.costs import COSTS
from refold.projections.edges import STEP_EDGES
from refold.projections.own import fold_run, fold_steps
from refold.projections.projection import Table
from refold.projections.runner import Runner
from refold.projections.runs import RUNS
from refold.projections.status import RunStatus, StepStatus
from refold.projections.steps import STEPS
from refold.projections.views import Views
from refold.projections.views_sqlite import SqliteViews
from tests.projections import naive
from tests.projections.naive_runs import run_row
from tests.projections.naive_steps import cost_rows, edge_rows, step_rows
from tests.projections.stories import Story, stories, write


def folded(histories: dict[str, Sequence[Event]], batch: int = 1000) -> Views:
    """Read models of these histories, in memory."""
    store, views = MemoryStore(), SqliteViews(None)
    write(store, histories, random.Random(1))
    runner = Runner(store, views, CORE)
    while runner.catch_up(batch):
        pass
    assert runner.parked() == []
    assert runner.lag().events == 0
    return views


def records(views: Views, table: Table, run_id: str) -> list[dict[str, Any]]:
    shown = [c for c in table.columns if c.form != "hidden"]
    names = ", ".join(c.name for c in shown)
    rows = views.query(
        f"SELECT {names} FROM {table.name} WHERE run_id = ? ORDER BY {', '.join(table.key)}", (run_id,)
    )
    return [queries.record(shown, row) for row in rows]


def by_key(rows: list[dict[str, Any]], table: Table) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: tuple(row[name] for name in table.key))


# ---- every column, for histories by the hundred ------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([1, 3, 17, 1000]))
def test_every_row_is_what_a_naive_fold_says(seed: int, length: int, batch: int) -> None:
    histories = stories(seed, 2, length)
    views = folded(histories, batch)
    for run_id, history in histories.items():
        assert records(views, RUNS.table, run_id) == [run_row(run_id, history)]
        steps = records(views, STEPS.table, run_id)
        for row in steps:
            assert len(row.pop("args_hash")) == (16 if row["task"] else 0)  # not of a step left out
        assert steps == by_key(step_rows(run_id, history), STEPS.table)
        assert records(views, STEP_EDGES.table, run_id) == edge_rows(run_id, history)
        assert records(views, COSTS.table, run_id) == cost_rows(run_id, history)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_a_run_folded_from_its_own_stream_is_its_row(seed: int, length: int) -> None:
    histories = stories(seed, 2, length)
    views = folded(histories)
    for run_id, history in histories.items():
        rows, _ = chain(run_id, Tail(), history)
        assert fold_run(rows) == queries.get_run(views, run_id)
        assert fold_steps(rows) == queries.list_steps(views, run_id)


def test_stories_use_every_event_of_a_run() -> None:
    """Control: the property above sees every kind of event, and runs of every status."""
    histories = [h for seed in range(100) for n in (3, 60) for h in stories(seed, 2, n).values()]
    told = {event.TAG for history in histories for event in history}
    assert told == set(RUNS.events) - {"inbox.skipped"}
    statuses = {run_row("r", history)["status"] for history in histories}
    assert statuses == set(RunStatus)
    attempts = {row["status"] for history in histories for row in step_rows("r", history)}
    assert attempts == set(StepStatus) - {"waiting"}


# ---- acceptance ---------------------------------------------------------------------------------------


class Plot(Story):
    """A story told by hand."""

    def __init__(self) -> None:
        super().__init__("order-42", random.Random(5))
        self.tell(t.RunStarted, workflow="checkout", workflow_version="1", args=Raw(b"[]"), seed=1)
        self.claim()

    def call(self, name: str, after: tuple[int, ...] = ()) -> int:
        step = self.number()
        self.tell(t.StepScheduled, step=step, name=name, key=f"{name}#1", args=Raw(b"[]"), after=after)
        self.tell(t.StepStarted, step=step)
        return step

    def done(self, step: int, attempt: int = 1) -> None:
        self.tell(t.StepCompleted, step=step, attempt=attempt, result=Raw(b"1"))

    def views(self) -> Views:
        return folded({self.run_id: self.events})

    def row(self) -> dict[str, Any]:
        row = queries.get_run(self.views(), self.run_id)
        assert row is not None
        return row


def test_edges_are_those_of_the_graph() -> None:
    """B04: {b, c} after a, d after both: a→b, a→c, b→d, c→d and nothing else."""
    plot = Plot()
    a = plot.call("a")
    plot.done(a)
    b, c = plot.call("b", (a,)), plot.call("c", (a,))
    plot.done(c)
    plot.done(b)
    plot.call("d", (b, c))
    found = {(e["from_key"], e["to_key"]) for e in queries.edges(plot.views(), "order-42")}
    assert found == {("a#1", "b#1"), ("a#1", "c#1"), ("b#1", "d#1"), ("c#1", "d#1")}


def test_ten_thousand_small_costs_add_up_exactly() -> None:
    """B05: 10,000 times $0.0001 is $1.0000; as floats it would not be."""
    plot = Plot()
    step = plot.call("ask")
    for _ in range(10_000):
        plot.tell(t.CostRecorded, step=step, attempt=1, usd=Decimal("0.0001"), model="small", input_tokens=3)
    views = plot.views()
    assert views.query("SELECT cost_usd, input_tokens FROM runs") == [("1.0000", 30_000)]
    assert views.query("SELECT DISTINCT typeof(usd), typeof(input_tokens) FROM costs") == [
        ("text", "integer")
    ]
    assert views.query("SELECT SUM(entries) FROM costs") == [(10_000,)]
    total = queries.total_costs(views, "order-42", by="model")["small"]
    assert (total.usd, total.entries, total.input_tokens) == (Decimal(1), 10_000, 30_000)
    as_float = 0.0
    for _ in range(10_000):  # not sum(), which corrects itself on 3.12
        as_float += 0.0001
    assert as_float != 1.0, "control: floats lose it"


def test_a_run_pays_for_failed_and_repeated_attempts_too() -> None:
    """B06: the total is the sum over all attempts, once each, and the same from every table."""
    plot = Plot()
    step = plot.call("ask")
    error = t.Failure(type="Boom", message="no")
    for attempt, usd in ((1, "0.10"), (2, "0.20"), (3, "0.30")):
        plot.tell(t.CostRecorded, step=step, attempt=attempt, usd=Decimal(usd), model="large", turns=1)
        if attempt == 1:
            plot.tell(t.StepAttemptFailed, step=step, attempt=1, error=error, retry_at=plot.now)
        elif attempt == 2:
            plot.tell(t.StepInterrupted, step=step, attempt=2)
        if attempt < 3:
            plot.tell(t.StepStarted, step=step, attempt=attempt + 1)
    plot.done(step, 3)
    views, row = plot.views(), plot.row()
    assert row["cost_usd"] == Decimal("0.60")
    assert queries.total_costs(views)[""].usd == Decimal("0.60")
    attempts = queries.list_steps(views, "order-42")
    assert [(a["attempt"], a["status"], a["cost_usd"]) for a in attempts] == [
        (1, "failed", Decimal("0.10")),
        (2, "interrupted", Decimal("0.20")),
        (3, "completed", Decimal("0.30")),
    ]
    assert (row["attempts"], row["retries"], row["recoveries"]) == (3, 1, 1)
    (latest,) = queries.list_steps(views, "order-42", all_attempts=False)
    assert latest["attempt"] == 3
    assert len({a["idempotency_key"] for a in attempts} | {a["trace_id"] for a in attempts}) == 2


def test_waiting_is_in_the_wall_time_and_not_in_the_active_time() -> None:
    """B07: active is the sum of attempts, wall is start to end."""
    plot = Plot()
    plot.chance = random.Random()
    step = plot.call("a")
    plot.done(step)
    plot.tell(t.TimerStarted, timer=9, due_at=plot.now)
    plot.now = plot.now.replace(year=2027)
    plot.tell(t.TimerFired, timer=9)
    plot.tell(t.RunCompleted, result=Raw(b"null"))
    row = plot.row()
    (attempt,) = queries.list_steps(plot.views(), "order-42")
    assert row["active_s"] == attempt["duration_s"]
    assert row["wall_s"] > 300 * 86_400 > row["active_s"]


def test_a_waiting_run_says_what_it_waits_for_and_stops_saying_it() -> None:
    """B13: typed, and gone with the event that resolves it."""
    plot = Plot()
    plot.tell(t.WaitOpened, wait=1, name="approve")
    plot.tell(t.TimerStarted, timer=2, due_at=plot.now.replace(year=2030))
    row = plot.row()
    assert row["status"] == "waiting"
    due_at = naive.iso(plot.now.replace(year=2030))
    assert row["blocked_on"] == {"type": "event", "wait": 1, "name": "approve", "due_at": due_at}
    plot.tell(t.SignalReceived, name="approve", payload=Raw(b"1"))
    plot.tell(t.TimerCancelled, timer=2)
    row = plot.row()
    assert (row["status"], row["blocked_on"], row["blocked_since"]) == ("running", None, None)


def test_a_run_that_retries_does_not_look_like_one_that_works() -> None:
    plot = Plot()
    step = plot.call("a")
    due = plot.now.replace(year=2030)
    error = t.Failure(type="Boom", message="no luck")
    plot.tell(t.StepAttemptFailed, step=step, attempt=1, error=error, retry_at=due)
    row = plot.row()
    assert (row["status"], row["attention"], row["attention_reason"]) == (
        "waiting",
        "retrying",
        "Boom: no luck",
    )
    assert row["attention_next_at"] == naive.iso(due)
    assert row["blocked_on"] == {"type": "retry", "step": step, "due_at": naive.iso(due)}


def test_a_whole_second_sorts_before_the_microsecond_after_it() -> None:
    """Stored events leave out `.000000`; as text, `12:00:00Z` would sort behind `12:00:00.000001Z`."""
    plot = Plot()
    plot.chance = random.Random(3)
    plot.now = plot.now.replace(microsecond=0)
    plot.events.append(t.DebugRecorded(id="1", at=plot.now, step=1, attempt=1, message=Raw(b"1")))
    row = plot.row()
    assert row["updated_at"].endswith(".000000Z")
