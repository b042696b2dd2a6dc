"""A run's own deadline: counted from its start, restarts included; then it is cancelled, and says why."""

import asyncio
import contextlib

import pytest

from refold import ConfigurationError, Context, RunCancelled, step, workflow
from refold.events import types as t
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting, work_agrees

pytestmark = pytest.mark.anyio

log: list[str] = []


@pytest.fixture(autouse=True)
def _afresh() -> None:
    log.clear()


@workflow(timeout=100)
async def waits(ctx: Context) -> None:
    try:
        await ctx.wait_for_event("never")
    except asyncio.CancelledError as cancelled:
        await note(f"cancelled: {cancelled}")
        raise


@step
async def note(text: str) -> None:
    log.append(text)


@workflow
async def parent(ctx: Context) -> None:
    await ctx.child(waits)


@pytest.mark.parametrize("restarts", [0, 3])
async def test_it_counts_from_the_start_whatever_happens_between(restarts: int, place: Place) -> None:
    """D09: the handler sees `CancelledError`, the run ends cancelled with kind `Timeout`."""
    clock = HandClock()
    for _ in range(restarts):
        async with engine(place, waits, clock=clock) as e:
            await e.start(waits, id="r")
            await waiting(e, "r")
        clock.move(33)
    async with engine(place, waits, clock=clock) as e:
        handle = await e.start(waits, id="r")
        await waiting(e, "r")
        assert not of(handle, t.RunCancelRequested)
        clock.move(100 - restarts * 33)
        with pytest.raises(RunCancelled, match="the run took longer than 100 s"):
            await handle.result()
        (asked,), (ended,) = of(handle, t.RunCancelRequested), of(handle, t.RunCancelled)
        assert (asked.kind, ended.kind) == ("Timeout", "Timeout")
        assert work_agrees(e.store)
    assert log == ["cancelled: the run took longer than 100 s"]


async def test_it_passes_while_nobody_executes_and_strikes_when_somebody_does(place: Place) -> None:
    clock = HandClock()
    async with engine(place, waits, clock=clock) as e:
        await e.start(waits, id="r")
        await waiting(e, "r")
    clock.move(1_000)
    async with engine(place, waits, clock=clock) as e:
        with pytest.raises(RunCancelled, match="took longer"):
            await (await e.get("r")).result()


async def test_it_does_not_strike_early_and_an_evicted_run_is_brought_back_for_it(place: Place) -> None:
    clock = HandClock()
    async with engine(place, waits, clock=clock, memory_bytes=0) as e:
        handle = await e.start(waits, id="r")
        await waiting(e, "r")
        await until(lambda: "r" not in e.worker.live)
        clock.move(99.9)
        e.worker.look()
        await asyncio.sleep(0)
        assert not of(handle, t.RunCancelRequested)
        clock.move(0.2)
        with pytest.raises(RunCancelled):
            await handle.result()


async def test_what_start_says_counts_more_than_what_the_workflow_says(place: Place) -> None:
    clock = HandClock()
    async with engine(place, waits, clock=clock) as e:
        handle = await e.start(waits, id="r", timeout=7)
        await waiting(e, "r")
        assert of(handle, t.RunStarted)[0].timeout_s == 7
        clock.move(8)
        with pytest.raises(RunCancelled, match="longer than 7 s"):
            await handle.result()


async def test_a_running_step_is_told_to_stop(place: Place) -> None:
    stopped = asyncio.Event()

    @step
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @workflow(timeout=0.2)
    async def busy(ctx: Context) -> None:
        await endless()

    async with engine(place, busy) as e:
        handle = await e.start(busy)
        with pytest.raises(RunCancelled, match=r"longer than 0\.2 s"):
            await handle.result()
        await stopped.wait()


async def test_children_are_cancelled_with_their_parent(place: Place) -> None:
    clock = HandClock()
    async with engine(place, parent, waits, clock=clock) as e:
        handle = await e.start(parent, id="r", timeout=10)
        await until(lambda: e.store.work("r~1"))
        await waiting(e, "r~1")
        clock.move(11)
        with pytest.raises(RunCancelled):
            await handle.result()
        child = await e.get("r~1")
        with pytest.raises(RunCancelled):
            await child.result()
        assert of(child, t.RunCancelled)[0].kind == "ParentCancelled"
        assert of(handle, t.RunCancelled)[0].kind == "Timeout"


async def test_a_child_has_the_deadline_of_its_own_workflow(place: Place) -> None:
    clock = HandClock()

    @workflow
    async def above(ctx: Context) -> str:
        try:
            await ctx.child(waits)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "?"

    async with engine(place, above, waits, clock=clock) as e:
        handle = await e.start(above, id="r")
        await until(lambda: e.store.work("r~1"))
        await waiting(e, "r~1")
        clock.move(101)
        said = await handle.result()
        assert said.startswith("ChildFailed: child r~1 is cancelled")
        assert "the run took longer than 100 s" in said


async def test_a_handler_that_takes_it_as_a_hint_may_complete(place: Place) -> None:
    clock = HandClock()

    @workflow(timeout=5)
    async def stubborn(ctx: Context) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await ctx.wait_for_event("never")
        await ctx.sleep(60)  # the deadline has struck, and strikes once
        return "done all the same"

    async with engine(place, stubborn, clock=clock) as e:
        handle = await e.start(stubborn, id="r")
        await waiting(e, "r")
        clock.move(6)
        await seen(handle, t.TimerStarted)
        await waiting(e, "r")
        clock.move(61)
        assert await handle.result() == "done all the same"
        assert tags(handle).count("run.cancel_requested") == 1


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
async def test_what_is_no_time_is_refused(timeout: float, place: Place) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        workflow(timeout=timeout)
    async with engine(place, waits) as e:
        with pytest.raises(ConfigurationError, match="timeout"):
            await e.start(waits, timeout=timeout)
