"""`engine.runs` finds the runs of an engine and what belongs to them, and own read models stand beside."""

import re
from collections.abc import Sequence
from datetime import timedelta, timezone
from types import MappingProxyType
from typing import Annotated, Any

import pytest
from msgspec import Struct

from refold import Context, Engine, StepFailed, step, workflow
from refold.engine.lookup import Runs
from refold.events import types as t
from refold.events.errors import ConfigurationError, RunNotFound, ValueRefused
from refold.projections.projection import Events, Key, Scope, Table, column, table
from tests.engine.kit import Place, of, until

pytestmark = pytest.mark.anyio


class DayRow(Struct):
    shop: Annotated[str, column("Label of runs.")]
    runs: Annotated[int, column("How many were started with it.")] = 0


class Shops:
    name = "shops"
    version = 1
    scope: Scope = "runs"
    creates: frozenset[str] = frozenset()
    events: Events = MappingProxyType({"run.started": t.RunStarted})
    table: Table = table("shops", DayRow, key=("shop",))

    def keys(self, entry: Any, event: t.RunStarted) -> Sequence[Key]:
        return ((str(event.attributes["shop"]),),) if "shop" in event.attributes else ()

    def fold(self, rows: list[DayRow | None], entry: Any, event: t.RunStarted) -> Sequence[DayRow]:
        row = rows[0] or DayRow(str(event.attributes["shop"]))
        row.runs += 1
        return (row,)


@workflow
async def waits(ctx: Context) -> str:
    return str(await ctx.wait_for_event("go"))


@workflow
async def ends(ctx: Context) -> int:
    return 7


async def test_runs_are_found_by_what_they_are(place: Place) -> None:
    async with Engine(place, workflows=[waits, ends]) as engine:
        await engine.start(waits, id="a", attributes={"shop": "Bern"})
        await (await engine.start(ends, id="b", attributes={"shop": "Bern"})).result()
        await (await engine.start(ends, id="c")).result()
        await engine.projections.wait()
        runs = Runs(engine.projections)
        assert [run["run_id"] for run in runs.list().runs] == ["c", "b", "a"]
        assert [run["run_id"] for run in runs.list(attributes={"shop": "Bern"}).runs] == ["b", "a"]
        assert [run["run_id"] for run in runs.list(blocked_on="event").runs] == ["a"]
        assert runs.count() == {"completed": 2, "waiting": 1}
        assert runs.drift() == [{"workflow": "waits", "version": "1", "status": "waiting", "runs": 1}]
        assert runs.get("b")["result"] == 7
        assert runs.waiting_for("go")[0]["run_id"] == "a"
        assert runs.waits("a")[0]["status"] == "open"
        for empty in (runs.steps, runs.edges, runs.children, runs.timers, runs.fan_outs, runs.checkpoints,
                      runs.artifacts, runs.context_history):  # fmt: skip
            assert empty("a") == []
        assert runs.context("a") == {}
        assert runs.cost("a").usd == 0
        assert runs.cost("a").runs == 1
        assert runs.gates() == ([], None)
        assert runs.gate("none") is None
        assert runs.due_timers("2100") == []
        assert runs.items("a", 1) == []
        with pytest.raises(RunNotFound):
            runs.get("nobody")


async def test_a_read_model_of_ones_own_is_kept_up_and_read(place: Place) -> None:
    async with Engine(place, workflows=[ends], projections=[Shops()]) as engine:
        for shop in ("Bern", "Ulm", "Bern"):
            await (await engine.start(ends, attributes={"shop": shop})).result()
        await engine.projections.wait()
        query = engine.projections.query
        assert query("shops") == [{"shop": "Bern", "runs": 2}, {"shop": "Ulm", "runs": 1}]
        assert query("shops", shop="Ulm") == [{"shop": "Ulm", "runs": 1}]
        assert engine.projections.check() == []
        with pytest.raises(ConfigurationError, match="there is no projection 'shop'; there are runs, steps"):
            query("shop")
        with pytest.raises(ConfigurationError, match="shops has no column 'town'; it has shop, runs"):
            query("shops", town="Ulm")


@pytest.mark.parametrize("name", ["runs", "parked_events"])
async def test_a_name_that_is_taken_is_refused(place: Place, name: str) -> None:
    clash = type("Clash", (Shops,), {"name": name})()
    with pytest.raises(ConfigurationError, match=f"cannot use the name '{name}'"):
        async with Engine(place, projections=[clash]):
            pass


@step
async def charge(amount: int) -> str:
    return f"receipt {amount}"


@step
async def refuse() -> None:
    raise ValueError("no")


@workflow
async def below(ctx: Context) -> None:
    for amount in (1, 2):
        await charge(amount)
    await ctx.wait_for_event("go")


@workflow
async def above(ctx: Context) -> None:
    try:
        await refuse()
    except StepFailed:
        await ctx.child(below)


async def test_where_a_run_stands_and_what_came_of_its_steps(place: Place) -> None:
    """B12."""
    async with Engine(place, workflows=[above, below]) as engine:
        await engine.start(above, id="a")
        await until(lambda: engine.runs.list(blocked_on="event").runs)
        (child,) = engine.runs.children("a")
        assert engine.runs.current(child["run_id"]) == {
            "step": "charge#2", "status": "completed", "iteration": 1, "running": [],
            "workflow_chain": ["above", "below"],
        }  # fmt: skip
        assert engine.runs.current("a")["step"] == "refuse#1"
        first, second = engine.runs.summary(child["run_id"])
        assert (first["id"], first["label"], first["status"]) == ("charge#1", "charge", "completed")
        assert (second["result"], second["error"], second["attempts"]) == ("receipt 2", None, 1)
        (failed,) = engine.runs.summary("a")
        assert failed["status"] == "failed"
        assert failed["error"] == {"type": "ValueError", "message": "no"}
        for ask in (engine.runs.current, engine.runs.summary):
            with pytest.raises(RunNotFound):
                ask("nobody")


async def test_several_statuses_are_one_question(place: Place) -> None:
    async with Engine(place, workflows=[waits, ends]) as engine:
        await engine.start(waits, id="a")
        await (await engine.start(ends, id="b")).result()
        await engine.projections.wait()
        both = engine.runs.list(status=["completed", "waiting"])
        assert [run["run_id"] for run in both.runs] == ["b", "a"]
        one = engine.runs.list(status=["completed", "waiting"], limit=1)
        assert one.cursor is not None
        rest = engine.runs.list(status=["completed", "waiting"], limit=1, cursor=one.cursor)
        assert [run["run_id"] for run in rest.runs] == ["a"]
        assert engine.runs.list(status=["failed", "cancelled"]).runs == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"status": "runing"}, "status: there is no 'runing'; there are pending, running, waiting"),
        ({"status": ["failed", "lost"]}, "status: there is no 'lost'"),
        ({"status": []}, "status: none is asked for"),
        ({"attention": "all"}, "attention: there is no 'all'; there are any, none, retrying"),
        ({"blocked_on": "gate"}, "blocked_on: there is no 'gate'; there are approval, input, event"),
        ({"limit": 0}, "limit: expected a whole number from 1, got 0"),
        ({"started_after": "yesterday"}, "started_after: 'yesterday' is no time"),
    ],
)
async def test_what_no_run_can_have_is_refused(wanted: dict[str, Any], said: str) -> None:
    async with Engine("memory://") as engine:
        with pytest.raises(ValueRefused, match=re.escape(said)):
            engine.runs.list(**wanted)


async def test_times_are_compared_as_moments(place: Place) -> None:
    async with Engine(place, workflows=[ends]) as engine:
        handle = await engine.start(ends, id="a")
        await handle.result()
        await engine.projections.wait()
        (begin, *_) = of(handle, t.RunStarted)
        at = begin.at
        later = at.astimezone(timezone(timedelta(hours=9))) + timedelta(microseconds=1)
        for moment, expected in ((at, ["a"]), (later, [])):
            for form in (moment, moment.isoformat()):
                found = engine.runs.list(started_after=form).runs
                assert [run["run_id"] for run in found] == expected
        naive = at.replace(tzinfo=None).isoformat()
        assert len(engine.runs.list(started_after=naive).runs) == 1
        assert engine.runs.list(started_before=naive).runs == []
