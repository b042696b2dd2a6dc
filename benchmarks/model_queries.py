"""Lists among a million runs, 10,000 open gates and 100,000 timers: every filter, from its own index."""

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from refold.projections import queries
from refold.projections.attributes import RUN_ATTRIBUTES
from refold.projections.gate_row import GateRow
from refold.projections.gates import GATES
from refold.projections.projection import Projection
from refold.projections.run_row import RunRow
from refold.projections.runs import RUNS
from refold.projections.timers import TIMERS
from refold.projections.views import Changes, Views
from refold.projections.views_sqlite import SqliteViews

from .harness import Figure, Scale, at_most

START = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 15
PAGE_MS = 50.0


def at(second: int) -> str:
    return (START + timedelta(seconds=second)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def run_rows(runs: int) -> Iterator[tuple[Any, ...]]:
    """Mostly completed, of ten workflows; one in a thousand waits, fails or needs somebody."""
    names = RUNS.table.names
    for n in range(runs):
        row = RunRow(f"run-{n:07}")
        row.workflow, row.version = f"flow-{n % 10}", "2" if n > runs // 100 else "1"
        row.title, row.root_id, row.started_at = row.workflow, row.run_id, at(n)
        row.status, row.ended_at = ("failed" if n % 1000 == 1 else "completed"), at(n + 1)
        row.runtime = '{"python":"3.12.1","refold":"0.1.0"}'
        row.attributes = f'{{"shop":"{n % 7}","customer":"{n % 50_000}"}}'
        if n % 1000 == 2:
            row.status, row.ended_at, row.blocked_type = "waiting", None, "event"
            row.blocked_on = '{"type":"event","wait":1,"name":"go"}'
            row.attention = "retrying" if n % 5000 == 2 else "none"
        if n % 100 == 3:
            row.parent_id = row.root_id = f"run-{n // 1000 * 1000:07}"
        row.dismissed = int(n % 50 == 4)
        yield tuple(getattr(row, name) for name in names)


def fill(views: Views, projection: Projection, rows: Iterator[tuple[Any, ...]]) -> None:
    """Straight into the table: folding a million runs would take minutes and measure something else."""
    table = projection.table
    built = f"{table.name}_building"
    write = views.writer_of(table, built)
    with views.writing():
        views.create(table, built, indexes=False)
        while some := list(islice(rows, 10_000)):
            write(Changes(some, [], [], []))
        views.put_live(table, built)


def labels(runs: int) -> Iterator[tuple[Any, ...]]:
    for n in range(runs):
        yield f"run-{n:07}", "customer", f'"{n % 50_000}"', at(n), None
        yield f"run-{n:07}", "shop", f'"{n % 7}"', at(n), None


def gates(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        row = GateRow(f"run-{n:07}", 1, name="approval#1", prompt="ship it?", token=f"t-{n}")
        row.voters = '["user:ana","user:bo"]' if n % 3 else '["user:cy"]'
        row.opened_at, row.due_at = at(n), at(count + (n * 7919) % count)
        yield GATES.table.dump(row)


def timers(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        yield f"run-{n:07}", 1, at((n * 7919) % count), "open", at(0), None


def timed(ask: Callable[[], Any]) -> float:
    """Median milliseconds."""
    spans = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        ask()
        spans.append(time.perf_counter() - began)
    return statistics.median(spans) * 1000


def pages(views: Views, runs: int) -> Iterator[Figure]:
    """A page of each kind; the second page of each costs what the first does."""
    filters: dict[str, dict[str, Any]] = {
        "no filter": {},
        "status": {"status": "failed"},
        "workflow": {"workflow": "flow-3"},
        "old version": {"workflow": "flow-3", "version": "1"},
        "attention": {"attention": "any"},
        "blocked on": {"blocked_on": "event"},
        "parent": {"parent": f"run-{runs // 2000 * 1000:07}"},
        "family": {"root": f"run-{runs // 2000 * 1000:07}"},
        "rare label": {"attributes": {"customer": "77"}},
        "common label": {"attributes": {"shop": "3"}},
        "two labels": {"attributes": {"shop": "3", "customer": "77"}},
        "status and label": {"status": "failed", "attributes": {"shop": "3"}},
        "status, workflow": {"status": "waiting", "workflow": "flow-2"},
        "time": {"started_before": at(runs // 2)},
        "dismissed": {"dismissed": True},
    }
    slowest = (0.0, "")
    for name, wanted in filters.items():
        milliseconds = timed(partial(queries.list_runs, views, **wanted))
        slowest = max(slowest, (milliseconds, name))
        yield Figure(f"50 of {runs:,} runs: {name}", milliseconds, "ms")
    yield at_most(f"50 of {runs:,} runs, the slowest filter", slowest[0], "ms", PAGE_MS, note=slowest[1])


def asked(views: Views, scale: Scale) -> list[Figure]:
    """Fill the tables, and ask them."""
    runs, waiting = scale.pick(1_000_000, 5_000), scale.pick(100_000, 1_000)
    fill(views, RUNS, run_rows(runs))
    fill(views, RUN_ATTRIBUTES, labels(runs))
    fill(views, GATES, gates(waiting // 10))
    fill(views, TIMERS, timers(waiting))
    figures = list(pages(views, runs))
    soon = at(waiting // 10)
    asks: dict[str, Callable[[], Any]] = {
        f"50 of {waiting // 10:,} open gates": lambda: queries.list_gates(views),
        "50 gates that one person may vote on": lambda: queries.list_gates(views, voter="user:cy"),
        "50 gates by deadline": lambda: queries.list_gates(views, due_before=at(10 * waiting)),
        "a gate by its token": lambda: queries.find_gate(views, "t-77"),
        f"1,000 due of {waiting:,} timers": lambda: queries.due_timers(views, soon),
    }
    figures += [at_most(name, timed(ask), "ms", PAGE_MS) for name, ask in asks.items()]
    for by in ("status", "workflow"):
        spent = timed(partial(queries.count_runs, views, by))
        figures.append(Figure(f"{runs:,} runs counted by {by}", spent, "ms"))
    drift = timed(lambda: queries.drift(views))
    return [*figures, Figure("runs that are not over, by version", drift, "ms")]


def run(scale: Scale) -> list[Figure]:
    """Lists and due queries."""
    views = SqliteViews(scale.path("views"))
    try:
        return asked(views, scale)
    finally:
        views.close()
