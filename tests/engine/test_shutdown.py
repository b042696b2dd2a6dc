"""Shutting down: nothing new begins, bodies get their grace, and no run is the worse for it."""

import asyncio
import threading
from time import monotonic

import pytest

from refold import Context, Engine, Retry, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, tags, until, work_agrees

pytestmark = pytest.mark.anyio


async def test_a_running_step_gets_its_grace_and_nothing_new_begins(place: Place) -> None:
    """D07."""
    began, finish = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    @step
    async def first() -> str:
        calls.append("first")
        began.set()
        await finish.wait()
        return "done"

    @step
    async def second() -> str:
        calls.append("second")
        return "too"

    @workflow
    async def both(ctx: Context) -> str:
        return await first() + await second()

    e = engine(place, both, grace=30)
    await e.__aenter__()
    await e.start(both, id="r")
    await began.wait()
    closing = asyncio.create_task(e.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    finish.set()
    await closing
    assert calls == ["first"]
    async with engine(place, both) as e:
        handle = await e.get("r")
        assert await handle.result() == "donetoo"
        assert not of(handle, t.StepInterrupted)
    assert calls == ["first", "second"]


async def test_after_the_grace_a_step_is_interrupted_not_failed_and_goes_on_afterwards(place: Place) -> None:
    """D07."""
    began: list[int] = []
    cleaned: list[int] = []

    @step
    async def slow() -> str:
        began.append(1)
        try:
            if len(began) == 1:
                await asyncio.Event().wait()
        finally:
            cleaned.append(1)
        return "done"

    @workflow
    async def waits(ctx: Context) -> str:
        return await slow()

    async with engine(place, waits, grace=0.01) as e:
        await e.start(waits, id="r")
        await until(lambda: began)
    assert cleaned, "its `finally` has run"
    async with engine(place, waits) as e:
        handle = await e.get("r")
        assert await handle.result() == "done"
        assert [event.reason for event in of(handle, t.StepInterrupted)] == ["shutdown"]
        assert not {"step.failed", "run.failed", "run.cancelled", "step.cancelled"} & set(tags(handle))


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_step_that_never_ends_does_not_hold_up_the_shutdown(kind: str, place: Place) -> None:
    """D07: not even when it swallows its cancellation, or sits in a thread."""
    began, let_go = threading.Event(), threading.Event()

    @step
    async def deaf() -> None:
        began.set()
        while not let_go.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    @step
    def stuck() -> None:
        began.set()
        let_go.wait(60)

    @workflow
    async def waits(ctx: Context) -> None:
        await (deaf() if kind == "async" else stuck())

    async with engine(place, waits, grace=0) as e:
        await e.start(waits, id="r")
        await until(began.is_set)
        closing = monotonic()
    assert monotonic() - closing < 20
    let_go.set()
    async with engine(place, waits) as e:
        assert await (await e.get("r")).result() is None


async def test_no_retry_begins_during_a_shutdown(place: Place) -> None:
    """D07."""
    calls: list[int] = []
    finish = asyncio.Event()

    @step(retry=Retry(max_attempts=5, initial_interval=0))
    async def fails() -> None:
        calls.append(1)
        raise ConnectionError

    @step
    async def holds() -> None:
        await finish.wait()
        await asyncio.sleep(0.05)

    @workflow
    async def both(ctx: Context) -> None:
        await asyncio.gather(fails(), holds(), return_exceptions=True)

    e = engine(place, both, grace=30)
    await e.__aenter__()
    await e.start(both, id="r")
    closing = asyncio.create_task(e.close())
    await asyncio.sleep(0)
    finish.set()
    count = len(calls)
    await closing
    assert len(calls) <= count + 1
    async with engine(place, both) as e:
        await (await e.get("r")).result()
    assert len(calls) == 5


async def test_many_runs_in_every_state_survive_a_shutdown_and_finish(place: Place) -> None:
    """D07."""

    @step
    async def quick(x: int) -> int:
        await asyncio.sleep(0.001 * (x % 5))
        return x

    @workflow
    async def mixed(ctx: Context, number: int) -> int:
        total = sum(await asyncio.gather(*[quick(number + n) for n in range(3)]))
        await asyncio.sleep(0.01)
        return total + await quick(number)

    for _ in range(3):
        async with engine(place, mixed, grace=0) as e:
            for number in range(40):
                await e.start(mixed, number, id=f"r{number}")
    async with engine(place, mixed) as e:
        for number in range(40):
            handle = await e.get(f"r{number}")
            assert await handle.result() == 4 * number + 3
            assert {"run.failed", "step.failed"}.isdisjoint(tags(handle))
            completed = [event.step for event in of(handle, t.StepCompleted)]
            assert len(completed) == len(set(completed)) == 4
        assert work_agrees(e.store)


async def test_whoever_waits_for_a_result_hears_of_the_shutdown(place: Place) -> None:
    @workflow
    async def waits(ctx: Context) -> None:
        await ctx.wait_for_event("x")

    async with engine(place, waits) as e:
        handle = await e.start(waits)
        waiter = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
    outcome = (await asyncio.gather(waiter, return_exceptions=True))[0]
    assert isinstance(outcome, BaseException)


def test_a_host_loop_that_is_torn_down_marks_nothing_as_failed(place: Place) -> None:
    """D07: `asyncio.run` cancels what is left of a program that forgot to close its engine."""
    began: list[int] = []

    @step
    async def slow() -> str:
        began.append(1)
        if len(began) == 1:
            await asyncio.Event().wait()
        return "done"

    @workflow
    async def waits(ctx: Context) -> str:
        return await slow()

    async def forgetful() -> None:
        e = engine(place, waits)
        await e.__aenter__()
        await e.start(waits, id="r")
        await until(lambda: began)
        forgotten.append(e)

    async def next_day() -> None:
        store = forgotten.pop().store  # its process would have died
        store.close() if isinstance(place, str) else store.release()
        async with engine(place, waits) as e:
            handle = await e.get("r")
            assert await handle.result() == "done"
            assert {"run.failed", "step.failed", "run.cancelled"}.isdisjoint(tags(handle))

    forgotten: list[Engine] = []
    asyncio.run(forgetful())
    asyncio.run(next_day())
