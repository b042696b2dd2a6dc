"""Repairs of runs that have children: a failed child is retried with its parent, nothing is counted twice."""

from collections import Counter

import pytest

from refold import ChildFailed, Context, RunFailed, record_cost, step, workflow
from refold.events import types as t

from .kit import Place, engine, of, tags, until, waiting, work_agrees

pytestmark = pytest.mark.anyio

ran: Counter[str] = Counter()
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    ran.clear()
    broken.clear()
    broken.add("weld")


@step
async def cut(part: str) -> str:
    ran[f"cut {part}"] += 1
    record_cost("0.25")
    return f"cut {part}"


@step
async def weld(part: str) -> str:
    ran[f"weld {part}"] += 1
    record_cost("1.00")
    if "weld" in broken:
        raise ValueError("torch is out")
    return f"welded {part}"


@workflow
async def part(ctx: Context, name: str) -> str:
    await cut(name)
    return await weld(name)


@workflow
async def machine(ctx: Context) -> list[str]:
    await cut("frame")
    return [await ctx.child(part, "arm"), await ctx.child(part, "leg")]


@workflow
async def tolerant(ctx: Context) -> str:
    try:
        return str(await ctx.child(part, "arm"))
    except ChildFailed as failed:
        return f"without arm: {failed.message}"


async def test_a_failed_child_is_retried_with_its_parent(place: Place) -> None:
    async with engine(place, machine) as it:
        handle = await it.start(machine, id="m")
        with pytest.raises(RunFailed, match=r"child m~1 is failed: .*torch is out"):
            await handle.result(10)
        broken.clear()
        await handle.retry(by="ana")
        assert await handle.result(10) == ["welded arm", "welded leg"]
        assert ran == {"cut frame": 1, "cut arm": 1, "weld arm": 2, "cut leg": 1, "weld leg": 1}
        assert [e.run_id for e in of(handle, t.ChildStarted)] == ["m~1", "m~2"], "the same child goes on"
        spent = [e.spent.usd for e in of(handle, t.ChildEnded)]
        assert sum(spent) + of(handle, t.CostRecorded)[0].usd == sum(
            e.usd for run in ("m", "m~1", "m~2") for e in it.events(run) if isinstance(e, t.CostRecorded)
        ), "every attempt once"
        assert work_agrees(it.store)
    async with engine(place, machine) as again:
        assert await (await again.get("m")).result(10) == ["welded arm", "welded leg"]


async def test_a_parent_that_lives_with_a_failed_child_is_left_alone_by_its_retry(place: Place) -> None:
    async with engine(place, tolerant) as it:
        handle = await it.start(tolerant, id="t")
        assert await handle.result(10) == "without arm: step weld#1 failed: ValueError: torch is out"
        broken.clear()
        child = await it.get("t~1")
        await child.retry()
        assert await child.result(10) == "welded arm"
        assert await handle.result(10) == "without arm: step weld#1 failed: ValueError: torch is out"
        assert tags(handle).count("child.ended") == 1


async def test_a_paused_parent_gets_its_childs_end_when_it_is_resumed(place: Place) -> None:
    broken.clear()

    async with engine(place, gated_machine) as it:
        handle = await it.start(gated_machine, id="g")
        await waiting(it, "g~1")
        await handle.pause()
        await it.signal("g~1", "go", None)
        await until(lambda: it.store.work("g~1").state == "done")  # type: ignore[union-attr]
        await until(lambda: "cause.held" in tags(handle))
        assert "child.ended" not in tags(handle)
    async with engine(place, gated_machine) as again:
        handle = await again.get("g")
        await handle.resume()
        assert await handle.result(10) == "welded x"
        assert tags(handle).count("child.ended") == 1
        assert work_agrees(again.store)


@workflow
async def gated_part(ctx: Context) -> str:
    await ctx.wait_for_event("go")
    return await weld("x")


@workflow
async def gated_machine(ctx: Context) -> str:
    return str(await ctx.child(gated_part))


@workflow
async def fleet(ctx: Context) -> list[str]:
    return list(await ctx.map(part, ["a", "b", "c", "d"], limit=2))


async def test_a_map_of_children_is_retried_where_it_failed(place: Place) -> None:
    async with engine(place, fleet) as it:
        handle = await it.start(fleet, id="f")
        with pytest.raises(RunFailed, match="ChildFailed"):
            await handle.result(10)
        await until(lambda: all(work.state == "done" for work, _ in it.store.all_work()))
        broken.clear()
        await handle.retry()
        assert await handle.result(10) == ["welded a", "welded b", "welded c", "welded d"]
        assert ran["cut a"] == 1, "what a child had completed is kept"
        assert len({e.run_id for e in of(handle, t.ChildStarted)}) == 4, "the same children go on"
        assert work_agrees(it.store)


@workflow
async def builds(ctx: Context) -> str:
    await cut("frame")
    return str(await ctx.child(gated_part))


async def test_a_child_that_a_reset_makes_unasked_for_is_stopped(place: Place) -> None:
    broken.clear()
    async with engine(place, builds) as it:
        handle = await it.start(builds, id="b")
        await waiting(it, "b~1")
        await until(lambda: it.worker.live["b"].idle)
        await handle.reset_step("cut#1")
        await until(lambda: it.store.work("b~1").status == "cancelled")  # type: ignore[union-attr]
        await waiting(it, "b~2")
        await it.signal("b~2", "go", None)
        assert await handle.result(10) == "welded x"
        assert ran["cut frame"] == 2
        assert work_agrees(it.store)
