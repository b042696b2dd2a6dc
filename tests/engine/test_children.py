"""Children: runs that a handler starts, linked with it both ways, and never started twice."""

import asyncio
import contextlib
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from refold import ConfigurationError, Context, RunFailed, record_cost, step, workflow
from refold.events import types as t
from refold.events.errors import ChildFailed
from tests.engine.children import child, lines_until
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting, work_agrees
from tests.engine.people import WORKFLOWS, parent_of_marks

pytestmark = pytest.mark.anyio

BODIES: list[str] = []


@pytest.fixture(autouse=True)
def _no_bodies() -> None:
    BODIES.clear()


class Parcel(msgspec.Struct):
    name: str
    weight: int


@step
async def weigh(name: str) -> int:
    BODIES.append(name)
    if name == "nothing":
        raise ValueError("there is nothing to weigh")
    record_cost(usd="0.25", input_tokens=len(name))
    return len(name)


@workflow
async def packs(ctx: Context, name: str) -> Parcel:
    return Parcel(name, await weigh(name))


@workflow
async def ships(ctx: Context, names: list[str]) -> list[str]:
    parcels = [await ctx.child(packs, name) for name in names]
    assert all(isinstance(parcel, Parcel) for parcel in parcels)
    await ctx.wait_for_event("end")
    return [f"{parcel.name} {parcel.weight}" for parcel in parcels]


async def test_a_child_is_a_run_of_its_own_linked_both_ways_and_started_once(place: Place) -> None:
    """A08."""
    for _ in range(3):
        async with engine(place, ships) as e:
            handle = await e.start(ships, ["book", "pen"], id="r", by="ana", attributes={"customer": "acme"})
            await seen(handle, t.WaitOpened)
            await waiting(e, "r")
    async with engine(place, ships, memory_bytes=0) as e:
        handle = await e.get("r")
        await handle.signal("end")
        assert await handle.result() == ["book 4", "pen 3"]
        assert BODIES == ["book", "pen"]
        root = of(handle, t.RunStarted)[0]
        for number, (started, ended) in enumerate(
            zip(of(handle, t.ChildStarted), of(handle, t.ChildEnded), strict=True), 1
        ):
            run_id = f"r~{number}"
            assert (started.run_id, started.workflow, started.detached) == (run_id, "packs", False)
            assert (ended.child, ended.run_id, ended.status) == (started.child, run_id, "completed")
            below = await e.get(run_id)
            (first,) = of(below, t.RunStarted)
            assert [(a.run_id, a.workflow) for a in first.ancestors] == [("r", "ships")]
            assert (first.child, first.cause, first.trigger) == (started.child, started.id, "parent")
            assert (first.by, first.trace, first.attributes) == ("ana", root.trace, {"customer": "acme"})
            assert len(of(below, t.RunClaimed)) == 1
        assert work_agrees(e.store)
        assert e.verify().problems == ()


async def test_a_child_that_fails_is_linked_too_and_says_why(place: Place) -> None:
    """A08."""

    @workflow
    async def careful(ctx: Context) -> list[str]:
        try:
            await ctx.child(packs, "nothing")
        except ChildFailed as error:
            await ctx.wait_for_event("go")
            return [error.run_id, error.status, error.type, error.message]
        return []

    @workflow
    async def careless(ctx: Context) -> None:
        await ctx.child(packs, "nothing")

    async with engine(place, careful) as e:
        handle = await e.start(careful, id="r")
        await seen(handle, t.WaitOpened)
    async with engine(place, careful, careless) as e:
        handle = await e.get("r")
        await handle.signal("go")
        message = "step weigh#1 failed: ValueError: there is nothing to weigh"
        assert await handle.result() == ["r~1", "failed", "StepFailed", message]
        (ended,) = of(handle, t.ChildEnded)
        assert (ended.run_id, ended.status) == ("r~1", "failed")
        assert of(await e.get("r~1"), t.RunStarted)[0].ancestors[0].run_id == "r"
        with pytest.raises(RunFailed, match=r"ChildFailed: child s~1 is failed: StepFailed: step weigh#1"):
            await (await e.start(careless, id="s")).result()
        assert BODIES == ["nothing", "nothing"]


async def test_arguments_and_what_is_no_workflow_are_refused_before_anything_is_started(place: Place) -> None:
    @workflow
    async def bad(ctx: Context, how: str) -> None:
        if how == "value":
            await ctx.child(packs, object())
        if how == "count":
            await ctx.child(packs)
        if how == "type":
            await ctx.child(packs, 5)
        await ctx.child(weigh, "x")

    async with engine(place, bad) as e:
        for how, kind in {
            "value": "ValueRef", "count": "Configuration", "type": "ValueRef", "step": "Configuration",
        }.items():  # fmt: skip
            handle = await e.start(bad, how)
            with pytest.raises(RunFailed, match=kind):
                await handle.result()
            assert "child.started" not in tags(handle)


async def test_a_child_named_only_in_a_comprehension_or_an_inner_function_is_known_too(place: Place) -> None:
    @workflow
    async def many(ctx: Context) -> list[int]:
        async def one(name: str) -> int:
            parcel: Parcel = await ctx.child(packs, name)
            return parcel.weight

        return [*[(await ctx.child(packs, n)).weight for n in ("a", "bb")], await one("ccc")]

    async with engine(place, many) as e:
        assert ("packs", "1") in e.workflows
        assert await (await e.start(many, id="r")).result() == [1, 2, 3]


async def test_large_arguments_and_results_go_through(place: Place) -> None:
    @workflow
    async def doubles(ctx: Context, text: str) -> str:
        return text * 2

    @workflow
    async def above(ctx: Context) -> int:
        first = await ctx.child(doubles, "x" * 300_000)
        await ctx.wait_for_event("go")
        return len(first)

    async with engine(place, above) as e:
        handle = await e.start(above, id="r")
        await seen(handle, t.ChildEnded)
    async with engine(place, above) as e:
        handle = await e.get("r")
        await handle.signal("go")
        assert await handle.result() == 600_000
        for stream in ("r", "r/inbox", "r~1"):
            assert max(len(row.state) for row in e.store.read(stream)) < 5_000, "they lie beside the log"
        assert e.verify().problems == ()


# ---- costs, depth, kin


async def test_what_children_spend_is_known_above(place: Place) -> None:
    @workflow
    async def middle(ctx: Context, name: str) -> int:
        await weigh("me")
        with contextlib.suppress(ChildFailed):
            await ctx.child(packs, "nothing")
        parcel: Parcel = await ctx.child(packs, name)
        return parcel.weight

    @workflow
    async def top(ctx: Context) -> int:
        weight: int = await ctx.child(middle, "book")
        return weight

    async with engine(place, top, memory_bytes=0) as e:
        handle = await e.start(top, id="r")
        assert await handle.result() == 4
        (ended,) = of(handle, t.ChildEnded)
        assert (ended.spent.usd, ended.spent.input_tokens) == (Decimal("0.50"), 6)
        spent = [(c.run_id, c.spent.usd) for c in of(await e.get("r~1"), t.ChildEnded)]
        assert spent == [("r~1~1", Decimal(0)), ("r~1~2", Decimal("0.25"))]


@workflow(recursive=True)
async def digs(ctx: Context, depth: int) -> int:
    return await ctx.child(digs, depth - 1) + 1 if depth else 0


async def test_children_go_so_deep_and_the_refusal_names_the_chain(place: Place) -> None:
    """D14."""
    async with engine(place, digs) as e:
        assert await (await e.start(digs, 5)).result() == 5
        handle = await e.start(digs, 6, id="r")
        with pytest.raises(RunFailed, match="children may go 5 deep") as failed:
            await handle.result()
        assert " -> ".join(["digs"] * 7) in str(failed.value)
        assert e.store.work("r~1~1~1~1~1") is not None
        assert e.store.work("r~1~1~1~1~1~1") is None
    async with engine(place, digs, max_depth=0) as e:
        with pytest.raises(RunFailed, match="children may go 0 deep"):
            await (await e.start(digs, 1)).result()
        assert await (await e.start(digs, 0)).result() == 0


@workflow(name="ping")
async def ping(ctx: Context) -> None:
    await ctx.child(pong)


@workflow(name="pong")
async def pong(ctx: Context) -> None:
    await ctx.child(ping)


async def test_a_workflow_inside_itself_is_refused_with_the_chain(place: Place) -> None:
    """D14."""
    with pytest.raises(ConfigurationError, match="ping -> pong -> ping: ping would run inside itself"):
        engine(place, ping)

    kinds: dict[str, Any] = {}

    @workflow
    async def hidden(ctx: Context) -> None:
        await ctx.child(kinds["other"])

    @workflow
    async def other(ctx: Context) -> None:
        await ctx.child(kinds["hidden"])

    kinds |= {"hidden": hidden, "other": other}
    async with engine(place, hidden, other) as e:
        handle = await e.start(hidden, id="r")
        with pytest.raises(RunFailed, match="hidden -> other -> hidden: hidden would run inside itself"):
            await handle.result()
        assert "child.started" not in tags(await e.get("r~1"))


async def test_a_child_that_no_engine_here_knows_waits_until_one_does(place: Place) -> None:
    kinds = {"unknown": packs}

    @workflow
    async def above(ctx: Context) -> int:
        parcel: Parcel = await ctx.child(kinds["unknown"], "book")
        return parcel.weight

    async with engine(place, above) as e:
        await e.start(above, id="r")
        await until(lambda: e.store.work("r~1") is not None)
        (attention,) = await seen(await e.get("r~1"), t.RunAttention)
        assert attention.kind == "no_worker"
        assert "pass it in `workflows=[" in attention.reason
        await waiting(e, "r")
        assert BODIES == []
    async with engine(place, above, packs) as e:
        assert await (await e.get("r")).result() == 4
        assert [a.kind for a in of(await e.get("r~1"), t.RunAttention)] == ["no_worker", "none"]


async def test_ids_of_children_are_not_given_to_others(place: Place) -> None:
    async with engine(place, ships) as e:
        for run_id in ("r~1", "r~12", "c~r2"):
            with pytest.raises(ConfigurationError, match="children, or of runs that go on"):
                await e.start(ships, [], id=run_id)
        await e.start(ships, [], id="r~one")


# ---- many, and in and out of memory


@workflow
async def crowd(ctx: Context, count: int) -> int:
    parcels = await asyncio.gather(*[ctx.child(packs, f"p{n}") for n in range(count)])
    return sum(parcel.weight for parcel in parcels)


@pytest.mark.parametrize(
    "settings", [{}, {"memory_bytes": 0}, {"max_active": 5}], ids=["plain", "evicted", "few"]
)
async def test_two_hundred_children_at_once(settings: dict[str, Any], place: Place) -> None:
    async with engine(place, crowd, **settings) as e:
        handle = await e.start(crowd, 200, id="r")
        assert await handle.result() == sum(len(f"p{n}") for n in range(200))
        assert sorted(BODIES) == sorted(f"p{n}" for n in range(200))
        assert len(of(handle, t.ChildEnded)) == 200
        assert work_agrees(e.store)


@workflow
async def asks(ctx: Context) -> Any:
    return await ctx.wait_for_event("say")


@workflow
async def hears(ctx: Context) -> Any:
    return ["heard", await ctx.child(asks)]


@pytest.mark.parametrize("first", ["child", "both", "parent"])
async def test_a_child_ends_while_its_parent_is_out_of_memory_and_the_other_way_round(
    first: str, place: Place
) -> None:
    async with engine(place, hears) as e:
        handle = await e.start(hears, id="r")
        await until(lambda: e.store.work("r~1") is not None)
        for run_id in ("r", "r~1"):
            await waiting(e, run_id)
        if first in ("child", "both"):
            assert e.worker.evict("r~1")
        if first in ("parent", "both"):
            assert e.worker.evict("r")
        await e.signal("r~1", "say", "hello")
        assert await handle.result() == ["heard", "hello"]
        assert work_agrees(e.store)


async def test_a_child_that_ended_while_nobody_executed_its_paused_parent_is_heard_of(place: Place) -> None:
    async with engine(place, hears) as e:
        handle = await e.start(hears, id="r")
        await until(lambda: e.store.work("r~1") is not None)
        await waiting(e, "r~1")
        await handle.pause()
        await e.signal("r~1", "say", "hello")
        await seen(handle, t.CauseHeld)
        assert "child.ended" not in tags(handle)
    async with engine(place, hears) as e:
        handle = await e.get("r")
        await handle.resume()
        assert await handle.result() == ["heard", "hello"]


@pytest.mark.parametrize("where", ["child", "parent"])
async def test_killed_in_the_middle_the_same_child_goes_on(where: str, tmp_path: Path) -> None:
    """A08, with SIGKILL: in the child's step, and right after the child was started."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("works_below", url, tmp_path, module="tests.engine.people") as process:
        lines_until(process, "marked" if where == "child" else "started")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    (tmp_path / "go-a").touch()
    async with engine(url, *WORKFLOWS) as e:
        handle = await e.start(parent_of_marks, str(tmp_path), id="r")
        await e.signal("r~1", "end", "of it")
        assert await handle.result() == "above: a of it"
        assert tags(handle).count("child.started") == 1
        assert [work.run_id for work, _ in e.store.all_work()] == ["r", "r~1"]
        assert tags(await e.get("r~1")).count("run.started") == 1
        assert work_agrees(e.store)
        assert e.verify().problems == ()
