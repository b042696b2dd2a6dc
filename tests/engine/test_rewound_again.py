"""Repairs of repairs: nothing that was used up is used again, and nothing that ran runs again unasked."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from refold import ActRefused, Context, RunCancelled, RunFailed, current_step, step, workflow
from refold.events import types as t

from .kit import HandClock, Place, engine, of, seen, until, waiting, work_agrees

pytestmark = pytest.mark.anyio

ran: Counter[str] = Counter()
gate: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _afresh() -> None:
    ran.clear()
    gate.update(open=asyncio.Event(), entered=asyncio.Event())
    gate["open"].set()


@step
async def slow() -> None:
    ran["slow"] += 1
    gate["entered"].set()
    await gate["open"].wait()


@step
async def ok(number: int) -> int:
    ran[f"ok {current_step().idempotency_key} {current_step().attempt}"] += 1
    return number


@step(execution="at_most_once")
async def once() -> str:
    ran["once"] += 1
    gate["entered"].set()
    await gate["open"].wait()
    return "sent"


@workflow
async def kid(ctx: Context) -> int:
    return await ok(7)


@workflow
async def family(ctx: Context) -> Any:
    await slow()
    await ok(1)
    await ctx.child(kid)
    return await ctx.wait_for_event("end")


@workflow
async def single(ctx: Context) -> str:
    return await once()


@workflow
async def undone_kid(ctx: Context) -> None:
    await put()
    raise ValueError("no")


@step
async def take_away() -> None:
    ran["take away"] += 1


@step(compensate=take_away)
async def put() -> None:
    ran["put"] += 1


@workflow
async def of_undone(ctx: Context) -> None:
    await ok(1)
    await ctx.child(undone_kid)


@workflow
async def late(ctx: Context) -> str:
    await ok(1)
    decision = await ctx.approval("go on?", timeout=50)
    return decision.by


FLOWS = (family, kid, single, undone_kid, of_undone, late)


async def test_a_second_repair_remembers_what_the_first_one_used_up(place: Place) -> None:
    async with engine(place, *FLOWS) as it:
        handle = await it.start(family, id="t")
        await waiting(it, "t")
        gate["open"].clear()
        await handle.reset_step("slow#1")
        await until(lambda: ran["slow"] == 2)
        await handle.signal("anything", 1)
        await handle.terminate()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        await handle.retry()
        gate["open"].set()
        await handle.signal("end", "over")
        assert await handle.result(10) == "over"
        keys = [e.key for e in of(handle, t.StepScheduled)]
        assert len(keys) == len(set(keys))
        children = [e.run_id for e in of(handle, t.ChildStarted)]
        assert children == ["t~1", "t~2"]
        assert max(ran.values()) == 3, "slow; nothing else twice under one key and attempt"
        assert all(count == 1 for name, count in ran.items() if name.startswith("ok"))
        assert work_agrees(it.store)
        with pytest.raises(ActRefused, match="was rewound before that event, which a fork cannot share yet"):
            await handle.fork()


async def test_a_reset_reaches_a_run_that_is_not_in_memory(place: Place) -> None:
    async with engine(place, *FLOWS) as it:
        await it.start(family, id="t")
        await waiting(it, "t")
    async with engine(place, *FLOWS) as again:
        handle = await again.get("t")
        with pytest.raises(ActRefused, match="has no step"):
            await handle.reset_step("nothing#1")
        await handle.reset_step("ok#1", by="ana")
        (rewound,) = await seen(handle, t.RunRewound)
        assert rewound.by == "ana"
        await handle.signal("end", 1)
        assert await handle.result(10) == 1


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_what_may_run_once_is_in_doubt_after_a_repair(how: str, place: Place) -> None:
    gate["open"].clear()
    async with engine(place, *FLOWS) as it:
        handle = await it.start(single, id="s")
        await gate["entered"].wait()
        await (handle.cancel() if how == "cancel" else handle.terminate())
        with pytest.raises(RunCancelled):
            await handle.result(10)
        await handle.retry()
        await seen(handle, t.StepInDoubt)
        assert ran["once"] == 1
        with pytest.raises(ActRefused, match=r"not in doubt|no open step"):
            await handle.resolve_step("once#2", "completed", "x")
        await handle.resolve_step("once#1", "completed", "it was sent", by="ana")
        assert await handle.result(10) == "it was sent"


async def test_a_parent_does_not_wait_for_a_child_that_is_undone(place: Place) -> None:
    async with engine(place, *FLOWS) as it:
        handle = await it.start(of_undone, id="p")
        with pytest.raises(RunFailed, match="compensated"):
            await handle.result(10)
        with pytest.raises(ActRefused, match="child p~1, which is undone"):
            await handle.retry()
        assert ran["take away"] == 1


async def test_nobody_goes_back_to_an_end_or_into_what_was_rewound(place: Place) -> None:
    async with engine(place, *FLOWS) as it:
        handle = await it.start(of_undone, id="p")
        with pytest.raises(RunFailed):
            await handle.result(10)
        with pytest.raises(ActRefused, match="its handler ended with the event"):
            await handle.retry(at=len(handle.events()))
        with pytest.raises(ActRefused, match="its handler ended with the event"):
            await handle.fork(at=len(handle.events()))
        other = await it.start(family, id="t")
        await waiting(it, "t")
        await other.reset_step("ok#1")
        (rewound,) = await seen(other, t.RunRewound)
        await other.signal("end", 1)
        await other.result(10)
        with pytest.raises(ActRefused, match="is in a part that was rewound"):
            await other.fork(at=rewound.to + 1)


async def test_a_gate_whose_time_ran_out_is_opened_anew(place: Place) -> None:
    clock = HandClock()
    async with engine(place, *FLOWS, clock=clock) as it:
        handle = await it.start(late, id="g")
        await seen(handle, t.GateOpened)
        clock.move(60)
        with pytest.raises(RunFailed, match="GateRejected"):
            await handle.result(10)
        await handle.retry()
        await until(lambda: len(of(handle, t.GateOpened)) == 2)
        await handle.approve(by="ana")
        assert await handle.result(10) == "ana"


async def test_a_run_goes_on_where_it_was_terminated(place: Place) -> None:
    async with engine(place, *FLOWS) as it:
        handle = await it.start(family, id="t")
        await waiting(it, "t")
        await handle.terminate()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        before = len(of(handle, t.StepScheduled))
        await handle.retry()
        await waiting(it, "t")
        assert len(of(handle, t.StepScheduled)) == before
        await handle.signal("end", 5)
        assert await handle.result(10) == 5


async def test_a_run_of_an_unknown_workflow_is_terminated_by_its_owner(place: Place) -> None:
    async with engine(place, *FLOWS) as it:
        await it.start(family, id="t")
        await waiting(it, "t")
    async with engine(place, single) as other:
        await other.terminate("t", "gone")
        await until(lambda: other.store.work("t").status == "terminated")  # type: ignore[union-attr]
