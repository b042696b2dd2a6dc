"""What a step may cost its run: a limit for all attempts, optional steps, and steps told of failures."""

import asyncio
from typing import Any

import pytest

from refold import ConfigurationError, Context, NonRetryable, Retry, RunFailed, StepFailed, step, workflow
from refold.engine.flight import Flight
from refold.events import types as t
from refold.events.errors import StepTimedOut
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting, work_agrees

pytestmark = pytest.mark.anyio

HOURLY = Retry(max_attempts=4, initial_interval=3600, backoff=1, max_interval=3600, jitter=0)
told: list[tuple[Any, ...]] = []


@pytest.fixture(autouse=True)
def _afresh() -> None:
    told.clear()


# ---- one limit for all attempts


async def test_the_limit_counts_from_the_first_start_over_retries_and_restarts(place: Place) -> None:
    """D09. Between attempts an hour passes on the clock; the third would begin after the limit."""
    clock, calls = HandClock(), list[int]()

    @step(retry=HOURLY, total_timeout=7300)
    async def fails() -> str:
        calls.append(1)
        raise RuntimeError("no")

    @workflow
    async def flow(ctx: Context) -> str:
        try:
            return await fails()
        except StepTimedOut as error:
            return f"{error.message} ({error.attempt})"

    for count in (1, 2, 3):
        async with engine(place, flow, clock=clock) as e:
            handle = await e.start(flow, id="r")
            if count < 3:
                await seen(handle, t.StepAttemptFailed, count)
                await waiting(e, "r")
                clock.move(3600)
            else:
                result = await handle.result()
    assert result == ("its attempts took longer than 7300 s: the last one failed with RuntimeError: no (3)")
    assert len(calls) == 3


async def test_no_attempt_begins_after_the_limit_also_when_the_process_was_away(place: Place) -> None:
    clock, calls = HandClock(), list[int]()

    @step(total_timeout=60)
    async def endless() -> None:
        calls.append(1)
        await asyncio.Event().wait()

    @workflow
    async def flow(ctx: Context) -> str:
        with pytest.raises(StepTimedOut, match="longer than 60 s: none is begun after that"):
            await endless()
        return "late"

    async with engine(place, flow, clock=clock, grace=0) as e:
        await e.start(flow, id="r")
        await until(lambda: calls)
    clock.move(30)
    async with engine(place, flow, clock=clock, grace=0) as e:
        await until(lambda: len(calls) == 2)
    clock.move(31)
    async with engine(place, flow, clock=clock) as e:
        handle = await e.get("r")
        assert await handle.result() == "late"
        assert len(of(handle, t.StepStarted)) == 2
        (failed,) = of(handle, t.StepFailed)
        assert (failed.attempt, failed.error.error_class) == (2, "timed_out")
        assert work_agrees(e.store)
    assert len(calls) == 2


async def test_control_an_engine_that_forgets_when_a_step_began_gives_it_its_whole_time_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would see it."""
    clock, calls = HandClock(), list[int]()

    @step(total_timeout=60)
    async def once_or_twice() -> None:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()

    @workflow
    async def flow(ctx: Context) -> None:
        await once_or_twice()

    monkeypatch.setattr(Flight, "_left", lambda flight, number: 60.0)
    async with engine(place, flow, clock=clock, grace=0) as e:
        await e.start(flow, id="r")
        await until(lambda: calls)
    clock.move(61)
    async with engine(place, flow, clock=clock) as e:
        await (await e.get("r")).result()
    assert len(calls) == 2


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_an_attempt_is_cut_at_what_is_left_and_not_tried_again(
    timeout: float | None, place: Place
) -> None:
    stopped: list[int] = []

    @step(retry=Retry(max_attempts=5, initial_interval=0), total_timeout=0.2, timeout=timeout)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(1)

    @workflow
    async def flow(ctx: Context) -> str:
        with pytest.raises(StepTimedOut, match=r"its attempts took longer than 0\.2 s"):
            await slow()
        return "cut"

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        assert await handle.result() == "cut"
        assert not of(handle, t.StepAttemptFailed)
        (scheduled,) = of(handle, t.StepScheduled)
        assert scheduled.total_timeout_s == 0.2
    assert stopped == [1]


async def test_a_shorter_limit_of_one_attempt_still_counts_for_each(place: Place) -> None:
    @step(retry=Retry(max_attempts=2, initial_interval=0), total_timeout=60, timeout=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    @workflow
    async def flow(ctx: Context) -> str:
        with pytest.raises(StepTimedOut, match=r"attempt 2 took longer than 0\.05 s"):
            await slow()
        return "twice"

    async with engine(place, flow) as e:
        assert await e.run(flow) == "twice"


async def test_after_a_repair_a_step_has_its_whole_time_again(
    place: Place,
) -> None:
    clock, calls = HandClock(), list[int]()

    @step(total_timeout=60)
    async def works() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no")
        return "works"

    @workflow
    async def flow(ctx: Context) -> str:
        return await works()

    async with engine(place, flow, clock=clock) as e:
        handle = await e.start(flow, id="r")
        with pytest.raises(RunFailed):
            await handle.result()
        clock.move(3600)
        await e.retry("r")
        await until(lambda: len(of(handle, *t.ENDS)) == 2)
        assert await handle.result() == "works"


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan")])
def test_a_limit_must_be_a_time(limit: float) -> None:
    with pytest.raises(ConfigurationError, match="total_timeout"):
        step(total_timeout=limit)


# ---- steps that may fail, and steps that hear of it


@step
async def alarm(failed_step: str, failure_reason: str, retry_count: int) -> None:
    told.append((failed_step, failure_reason, retry_count))


@step
async def broken_alarm(failed_step: str, failure_reason: str, retry_count: int) -> None:
    told.append((failed_step, failure_reason, retry_count))
    raise RuntimeError("nobody hears")


async def test_an_optional_step_that_fails_gives_none_and_one_that_does_not_its_result(place: Place) -> None:
    """A37."""

    @step(optional=True, retry=Retry(max_attempts=2, initial_interval=0))
    async def half(number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number // 2

    @workflow
    async def flow(ctx: Context) -> list[int | None]:
        return [await half(4), await half(5)]

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        assert await handle.result() == [2, None]
        assert [event.optional for event in of(handle, t.StepScheduled)] == [True, True]
        assert len(of(handle, t.StepFailed)) == 1
        assert tags(handle)[-1] == "run.completed"


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("handler", [alarm, broken_alarm, "alarm"], ids=str)
async def test_a_step_hears_of_the_failure_before_the_handler_does(
    handler: Any, optional: Any, place: Place
) -> None:
    """A37; what becomes of the step that hears changes nothing."""

    options: Any = {"optional": optional, "on_fail": handler}

    @step(retry=Retry(max_attempts=3, initial_interval=0), **options)  # type: ignore[untyped-decorator]
    async def fails() -> int:
        raise ValueError("no luck")

    @workflow
    async def flow(ctx: Context) -> str:
        try:
            found = await fails()
        except StepFailed as error:
            return f"raised {error.message} when told {len(told)}"
        return f"got {found} when told {len(told)}"

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        expected = "got None when told 1" if optional else "raised no luck when told 1"
        assert await handle.result() == expected
        _, alarm_event = of(handle, t.StepScheduled)
        assert alarm_event.name in ("alarm", "broken_alarm")
        assert b'"failed_step":"fails#1"' in bytes(alarm_event.kwargs)
    assert told == [("fails#1", "ValueError: no luck", 2)]


async def test_it_hears_of_a_final_failure_only(place: Place) -> None:
    calls: list[int] = []

    @step(on_fail=alarm, retry=Retry(max_attempts=3, initial_interval=0))
    async def fails(final: bool) -> int:
        calls.append(1)
        if final:
            raise NonRetryable("never")
        if len(calls) < 3:
            raise ValueError("not yet")
        return 7

    @workflow
    async def flow(ctx: Context) -> int:
        first = await fails(False)
        with pytest.raises(StepFailed):
            await fails(True)
        return first

    async with engine(place, flow) as e:
        assert await e.run(flow) == 7
    assert told == [("fails#2", "NonRetryable: never", 0)]


async def test_after_a_restart_it_hears_once_and_the_handler_sees_the_same(place: Place) -> None:
    gate, begun = asyncio.Event(), list[int]()

    @step
    async def slow_alarm(failed_step: str, failure_reason: str, retry_count: int) -> None:
        begun.append(1)
        await gate.wait()
        told.append((failed_step,))

    @step(on_fail=slow_alarm)
    async def fails() -> int:
        raise ValueError("no luck")

    @workflow
    async def flow(ctx: Context) -> str:
        with pytest.raises(StepFailed, match="no luck"):
            await fails()
        return "seen"

    for count in (1, 2):
        async with engine(place, flow, grace=0) as e:
            await e.start(flow, id="r")
            await until(lambda count=count: len(begun) == count)  # type: ignore[misc]
    gate.set()
    async with engine(place, flow) as e:
        assert await (await e.get("r")).result() == "seen"
    assert told == [("fails#1",)]


async def test_a_step_to_hear_that_does_not_exist_is_refused_before_anything_is_done(place: Place) -> None:
    calls: list[int] = []

    @step(on_fail="nobody")
    async def does() -> None:
        calls.append(1)

    @workflow
    async def flow(ctx: Context) -> str:
        with pytest.raises(ConfigurationError, match="on_fail='nobody'"):
            await does()
        return "refused"

    async with engine(place, flow) as e:
        assert await e.run(flow) == "refused"
    assert calls == []
