"""The tables beside `runs` and `steps` equal a naive fold of whole histories."""

import random
from collections import Counter
from typing import Any

from hypothesis import given, settings, strategies as st

from refold.events.memory import MemoryStore
from refold.events.stream import INBOX
from refold.projections.artifacts import ARTIFACTS
from refold.projections.attributes import RUN_ATTRIBUTES
from refold.projections.checkpoints import CHECKPOINTS
from refold.projections.children import CHILDREN
from refold.projections.context import CONTEXT
from refold.projections.core import CORE
from refold.projections.fan_out_items import FAN_OUT_ITEMS
from refold.projections.fan_outs import FAN_OUTS
from refold.projections.gates import GATES
from refold.projections.projection import Table
from refold.projections.rebuild import check
from refold.projections.records import record
from refold.projections.runner import Runner
from refold.projections.timers import TIMERS
from refold.projections.views import Views
from refold.projections.views_sqlite import SqliteViews
from refold.projections.waits import WAITS
from tests.projections import naive_tables as naive
from tests.projections.stories import families, stories, write


def folded(seed: int, length: int, batch: int, runs: int = 2) -> tuple[Any, Views]:
    streams = families(seed, runs, length)
    store, views = MemoryStore(), SqliteViews(None)
    write(store, streams, random.Random(seed))
    runner, chance = Runner(store, views, CORE), random.Random(seed)
    while runner.catch_up(batch):
        if chance.random() < 0.2:
            runner = Runner(store, views, CORE)  # as after a restart: nothing in memory
    assert runner.parked() == []
    assert check(store, views, CORE) == []
    return streams, views


def rows(views: Views, table: Table, run_id: str) -> list[dict[str, Any]]:
    shown = [c for c in table.columns if c.form != "hidden"]
    sql = f"SELECT {', '.join(c.name for c in shown)} FROM {table.name} WHERE {table.key[0]} = ?"
    return [record(shown, row) for row in views.query(f"{sql} ORDER BY {', '.join(table.key)}", (run_id,))]


def only(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The found rows without the columns that the wanted ones say nothing of."""
    assert len(found) == len(wanted), (found, wanted)
    return [{name: row[name] for name in want} for row, want in zip(found, wanted, strict=True)]


some = settings(max_examples=25, deadline=None)
histories = given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([1, 3, 17, 1000]))


@some
@histories
def test_timers_waits_and_gates(seed: int, length: int, batch: int) -> None:
    streams, views = folded(seed, length, batch)
    for run_id in ("run-1", "run-2"):
        history = streams[run_id]
        assert rows(views, TIMERS.table, run_id) == by_number(naive.timer_rows(run_id, history), "timer")
        wanted = by_number(naive.wait_rows(run_id, history), "wait")
        assert only(rows(views, WAITS.table, run_id), wanted) == wanted
        assert rows(views, GATES.table, run_id) == by_number(naive.gate_rows(run_id, history), "gate")


@some
@histories
def test_fan_outs_count_their_items(seed: int, length: int, batch: int) -> None:
    """A27: the totals of a fan-out are the counts of its rows of items, whatever happened."""
    streams, views = folded(seed, length, batch)
    for run_id in ("run-1", "run-2"):
        items = rows(views, FAN_OUT_ITEMS.table, run_id)
        wanted = sorted(naive.item_rows(streams[run_id]), key=lambda row: (row["fan_out"], row["item"]))
        assert only(items, wanted) == wanted
        counts: dict[int, Counter[str]] = {}
        for item in items:
            counts.setdefault(item["fan_out"], Counter())[item["status"]] += 1
        for row in rows(views, FAN_OUTS.table, run_id):
            of_it = counts.pop(row["fan_out"], Counter())
            words = ("pending", "running", "completed", "failed", "skipped", "cancelled")
            assert {word: row[word] for word in words} == {word: of_it[word] for word in words}
            assert row["total"] == of_it.total()
        assert counts == {}


@some
@histories
def test_data(seed: int, length: int, batch: int) -> None:
    streams, views = folded(seed, length, batch)
    for run_id in ("run-1", "run-2"):
        history = streams[run_id]
        wanted = naive.attribute_rows(run_id, history)
        assert only(rows(views, RUN_ATTRIBUTES.table, run_id), wanted) == wanted
        assert rows(views, CHECKPOINTS.table, run_id) == naive.checkpoint_rows(run_id, history)
        wanted = naive.artifact_rows(run_id, history)
        assert only(rows(views, ARTIFACTS.table, run_id), wanted) == wanted
        values: dict[str, list[Any]] = {}
        for row in sorted(rows(views, CONTEXT.table, run_id), key=lambda row: row["version"]):
            if row["version"]:
                values.setdefault(row["key"], []).append(row["value"])
        assert values == naive.context_rows(history)


@some
@histories
def test_children(seed: int, length: int, batch: int) -> None:
    """A08: the row of a child is found from both runs, however it ends."""
    streams, views = folded(seed, length, batch)
    for run_id in ("run-1", "run-2"):
        wanted = naive.child_rows(run_id, streams[run_id], streams[run_id + INBOX])
        assert only(rows(views, CHILDREN.table, run_id), wanted) == wanted
        for row in wanted:
            assert views.query("SELECT parent_id, child FROM runs WHERE run_id = ?", (row["run_id"],)) == [
                (run_id, row["child"])
            ]


def by_number(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted(found, key=lambda row: row[name])


def test_stories_fill_every_table() -> None:
    """Control: the properties above see rows."""
    filled: Counter[str] = Counter()
    for seed in range(20):
        _, views = folded(seed, 60, 1000)
        for p in CORE:
            filled[p.name] += len(views.query(f"SELECT 1 FROM {p.table.name}"))
    assert all(filled[p.name] > 10 for p in CORE), filled
    assert any(stories(seed, 1, 60) for seed in range(3))
