"""Steps whose outcome nobody knows: people decide, never a guess."""

import asyncio
from typing import Any

import pytest

from refold import (
    Context,
    StepFailed,
    step,
    workflow,
)
from refold.engine.bodies import current_step
from refold.engine.step import StepOptions
from refold.events import types as t
from refold.events.errors import ActRefused, StepInterrupted
from tests.engine.doubtful import cut_off, in_doubt
from tests.engine.kit import Place, engine, of, seen, until, work_agrees

pytestmark = pytest.mark.anyio

calls: list[int] = []
"""Number of each attempt that began."""
hangs = True


@pytest.fixture(autouse=True)
def _afresh() -> None:
    global hangs
    hangs = True
    calls.clear()


@step(execution="at_most_once")
async def wire(cents: int) -> str:
    calls.append(current_step().attempt)
    if hangs:
        await asyncio.Event().wait()
    return f"sent {cents}"


@workflow
async def pays(ctx: Context) -> str:
    try:
        return await wire(5)
    except StepFailed as error:
        return f"{type(error).__name__}: {error.message}"


# ---- people decide


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_step_that_may_not_be_repeated_is_in_doubt_until_somebody_says(
    evicted: bool, place: Place
) -> None:
    """C03."""
    await cut_off(place, pays, calls)
    async with engine(place, pays, memory_bytes=0 if evicted else 1_000_000) as e:
        handle = await in_doubt(e)
        assert ("r" in e.worker.live) is not evicted
        (cut,), (doubt,) = of(handle, t.StepInterrupted), of(handle, t.StepInDoubt)
        assert (cut.step, cut.attempt, doubt.step, doubt.attempt) == (1, 1, 1, 1)
        await e.resolve_step("r", "wire#1", "completed", "sent, the bank says", by="ana")
        assert await handle.result() == "sent, the bank says"
        (completed,) = of(handle, t.StepCompleted)
        assert (completed.by, completed.attempt) == ("ana", 1)
        assert work_agrees(e.store)
    assert calls == [1]


async def test_control_an_engine_that_repeats_what_it_does_not_know_does_it_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would see it."""
    global hangs
    await cut_off(place, pays, calls)
    hangs = False
    monkeypatch.setattr(StepOptions, "unknown", "retry")
    async with engine(place, pays) as e:
        assert await (await e.get("r")).result() == "sent 5"
    assert calls == [1, 2]


async def test_it_stays_in_doubt_over_restarts_and_is_said_once(place: Place) -> None:
    await cut_off(place, pays, calls)
    for _ in range(3):
        async with engine(place, pays) as e:
            handle = await in_doubt(e)
            assert len(of(handle, t.StepInDoubt)) == len(of(handle, t.StepInterrupted)) == 1
            assert work_agrees(e.store)
    assert calls == [1]


async def test_it_may_be_said_to_have_failed_or_be_told_to_run_again(place: Place) -> None:
    global hangs
    await cut_off(place, pays, calls)
    async with engine(place, pays, grace=0) as e:
        handle = await in_doubt(e)
        await e.resolve_step("r", "wire#1", "retry", by="ana")
        await until(lambda: calls == [1, 2])
        assert of(handle, t.StepStarted)[-1].by == "ana"
    async with engine(place, pays) as e:
        await seen(await e.get("r"), t.StepInDoubt, 2)
        handle = await in_doubt(e)
        await e.resolve_step("r", "wire#1", "failed", reason="the bank says no")
        assert await handle.result() == "StepFailed: the bank says no"
    assert calls == [1, 2]


async def test_what_does_not_fit_or_is_not_in_doubt_is_refused_and_it_stays_in_doubt(place: Place) -> None:
    await cut_off(place, pays, calls)
    async with engine(place, pays) as e:
        handle = await in_doubt(e)
        for refused in (
            e.resolve_step("r", "wire#1", "completed", 7),
            e.resolve_step("r", "wire#1", "perhaps"),
            e.resolve_step("r", "wire#2", "completed", "x"),
        ):
            with pytest.raises(ActRefused):
                await refused
        await e.resolve_step("r", "wire#1", "completed", "fine")
        assert await handle.result() == "fine"


async def test_on_unknown_fail_asks_nobody(place: Place) -> None:
    @step(execution="at_most_once", on_unknown="fail")
    async def once() -> None:
        calls.append(1)
        await asyncio.Event().wait()

    @workflow
    async def flow(ctx: Context) -> str:
        with pytest.raises(StepInterrupted, match="outcome is unknown"):
            await once()
        return "knows"

    await cut_off(place, flow, calls)
    async with engine(place, flow) as e:
        assert await (await e.get("r")).result() == "knows"
    assert calls == [1]


async def test_a_step_in_doubt_does_not_hold_up_its_neighbours(place: Place) -> None:
    @step
    async def other() -> int:
        return 1

    @workflow
    async def flow(ctx: Context) -> list[Any]:
        doubtful = asyncio.ensure_future(wire(5))
        heard = await ctx.wait_for_event("go")
        return [heard, await other(), await doubtful]

    await cut_off(place, flow, calls)
    async with engine(place, flow) as e:
        handle = await in_doubt(e)
        await handle.signal("go", 7)
        await seen(handle, t.StepCompleted)
        await e.resolve_step("r", "wire#1", "completed", "x")
        assert await handle.result() == [7, 1, "x"]


async def test_a_run_with_a_step_in_doubt_can_be_cancelled(place: Place) -> None:
    await cut_off(place, pays, calls)
    async with engine(place, pays) as e:
        handle = await in_doubt(e)
        await handle.cancel()
        await until(lambda: of(handle, t.RunCancelled))
        assert of(handle, t.StepCancelled)
