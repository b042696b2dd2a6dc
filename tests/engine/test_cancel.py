"""Cancelling: asked for, durable, heard at the next await, with its reason; never of what has ended."""

import asyncio
from typing import Any

import anyio
import pytest

from refold import Context, RunCancelled, RunEnded, RunNotFound, step, workflow
from refold.events import types as t
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting

pytestmark = pytest.mark.anyio


@workflow
async def sleeps(ctx: Context) -> None:
    await asyncio.sleep(86_400)


@workflow
async def listens(ctx: Context) -> Any:
    return await ctx.wait_for_event("never")


@pytest.mark.parametrize("flow", [sleeps, listens], ids=lambda flow: str(flow.name))
@pytest.mark.parametrize("evicted", [False, True])
async def test_a_waiting_run_is_cancelled_with_its_reason(flow: Any, evicted: bool, place: Place) -> None:
    """D08."""
    async with engine(place, flow, memory_bytes=0 if evicted else 1_000_000) as e:
        handle = await e.start(flow, id="r")
        await waiting(e, "r")
        assert ("r" in e.worker.live) is not evicted
        await handle.cancel("no longer needed", by="user:ana")
        with pytest.raises(RunCancelled, match="run 'r' was cancelled: no longer needed") as cancelled:
            await handle.result()
        assert cancelled.value.reason == "no longer needed"
        (request,) = of(handle, t.RunCancelRequested)
        assert (request.by, request.kind) == ("user:ana", "UserRequested")
        (end,) = of(handle, t.RunCancelled)
        assert (end.reason, end.kind) == ("no longer needed", "UserRequested")


async def test_a_running_step_is_told_to_stop_when_its_run_is_cancelled(place: Place) -> None:
    """D08."""
    began, stopped = asyncio.Event(), asyncio.Event()

    @step
    async def works() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @workflow
    async def busy(ctx: Context) -> None:
        await works()

    async with engine(place, busy) as e:
        handle = await e.start(busy)
        await began.wait()
        await handle.cancel()
        with pytest.raises(RunCancelled, match="no reason given"):
            await handle.result()
        await stopped.wait()
        assert tags(handle)[-3:] == ["run.cancel_requested", "step.cancelled", "run.cancelled"]


async def test_a_handler_may_clean_up_with_steps_before_it_goes(place: Place) -> None:
    undone: list[str] = []

    @step
    async def undo(what: str) -> None:
        undone.append(what)

    @workflow
    async def careful(ctx: Context) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await undo("booking")
            with anyio.CancelScope(shield=True):
                await undo("payment")
            raise

    async with engine(place, careful) as e:
        handle = await e.start(careful)
        await waiting(e, handle.id)
        await handle.cancel("storm")
        with pytest.raises(RunCancelled):
            await handle.result()
    assert undone == ["booking", "payment"]


async def test_a_handler_that_swallows_a_cancel_completes_and_its_history_says_so(place: Place) -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "finished all the same"
        return "?"

    async with engine(place, stubborn) as e:
        handle = await e.start(stubborn)
        await waiting(e, handle.id)
        await handle.cancel()
        assert await handle.result() == "finished all the same"
        assert len(of(handle, t.RunCancelRequested)) == 1


async def test_a_cancel_reaches_every_task_of_the_handler(place: Place) -> None:
    @workflow
    async def many(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(asyncio.sleep(3600))
            group.create_task(_listen(ctx))

    async def _listen(ctx: Context) -> None:
        async with anyio.create_task_group() as inner:
            inner.start_soon(anyio.sleep, 7200)
            await ctx.wait_for_event("x")

    async with engine(place, many) as e:
        handle = await e.start(many)
        await waiting(e, handle.id)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result()
        assert len(of(handle, t.TimerCancelled)) == 6
        assert len(of(handle, t.WaitCancelled)) == 1


async def test_a_cancel_from_another_engine_is_kept_until_somebody_executes(place: Place) -> None:
    """D08."""
    clock = HandClock()
    async with engine(place, sleeps, clock=clock) as e:
        await e.start(sleeps, id="r")
        await waiting(e, "r")
    async with engine(place, sleeps, clock=clock, execute=False) as outside:
        await outside.cancel("r", "from elsewhere")
        assert "cancel.sent" not in tags(await outside.get("r"))
    clock.move(100_000)  # its timer is due too: the acknowledged cancel came first
    async with engine(place, sleeps, clock=clock) as e:
        handle = await e.get("r")
        with pytest.raises(RunCancelled, match="from elsewhere"):
            await handle.result()
        assert not of(handle, t.TimerFired)


async def test_an_ended_or_unknown_run_cannot_be_cancelled_and_nothing_changes(place: Place) -> None:
    """D08."""

    @workflow
    async def short(ctx: Context) -> int:
        return 1

    async with engine(place, short, sleeps) as e:
        done = await e.start(short)
        await done.result()
        gone = await e.start(sleeps)
        await gone.cancel()
        with pytest.raises(RunCancelled):
            await gone.result()
        before = e.store.position()
        for handle, status in ((done, "completed"), (gone, "cancelled")):
            with pytest.raises(RunEnded, match=f"is {status}"):
                await handle.cancel()
        with pytest.raises(RunNotFound):
            await e.cancel("nobody")
        assert e.store.position() == before
        assert await done.result() == 1


async def test_a_handler_that_cancels_itself_has_failed_not_been_cancelled(place: Place) -> None:
    @workflow
    async def odd(ctx: Context) -> None:
        raise asyncio.CancelledError("by myself")

    async with engine(place, odd) as e:
        handle = await e.start(odd)
        with pytest.raises(Exception, match="cancelled itself"):
            await handle.result()
        assert tags(handle)[-1] == "run.failed"


async def test_a_result_that_is_no_longer_waited_for_does_not_stop_the_run(place: Place) -> None:
    async with engine(place, listens) as e:
        handle = await e.start(listens)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.01)
        waiter = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        waiter.cancel()
        await handle.signal("never", "but now")
        assert await handle.result() == "but now"
        await until(lambda: waiter.cancelled())
        assert not of(handle, t.RunCancelRequested)
        assert len(await seen(handle, t.SignalReceived)) == 1
