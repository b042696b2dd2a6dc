"""`engine.runs` finds the runs of an engine and what belongs to them, and own read models stand beside."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import pytest
from msgspec import Struct

from refold import Context, Engine, workflow
from refold.engine.lookup import Runs
from refold.events import types as t
from refold.events.errors import ConfigurationError, RunNotFound
from refold.projections.projection import Events, Key, Scope, Table, column, table

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


async def test_runs_are_found_by_what_they_are(tmp_path: Path) -> None:
    async with Engine(tmp_path / "x.db", workflows=[waits, ends]) as engine:
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


async def test_a_read_model_of_ones_own_is_kept_up_and_read(tmp_path: Path) -> None:
    async with Engine(tmp_path / "x.db", workflows=[ends], projections=[Shops()]) as engine:
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
async def test_a_name_that_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    clash = type("Clash", (Shops,), {"name": name})()
    with pytest.raises(ConfigurationError, match=f"cannot use the name '{name}'"):
        async with Engine(tmp_path / "x.db", projections=[clash]):
            pass
