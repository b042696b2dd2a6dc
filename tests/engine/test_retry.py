"""Retries: attempts are events, their number and their due time survive restarts."""

import asyncio
from datetime import timedelta

import pytest

from refold import (
    ConfigurationError,
    Context,
    NonRetryable,
    Retry,
    RunFailed,
    Step,
    StepFailed,
    step,
    workflow,
)
from refold.events import types as t
from tests.engine.kit import HandClock, Place, engine, of, seen, waiting

pytestmark = pytest.mark.anyio


def flaky(failures: int, retry: Retry) -> tuple[Step[[], str], list[int]]:
    calls: list[int] = []

    @step(retry=retry)
    async def unsteady() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise ConnectionError(f"no {len(calls)}")
        return "yes"

    return unsteady, calls


async def test_a_failing_step_is_tried_again_and_each_attempt_is_an_event(place: Place) -> None:
    """A36."""
    unsteady, calls = flaky(2, Retry(max_attempts=3, initial_interval=0.001))

    @workflow
    async def tries(ctx: Context) -> str:
        return await unsteady()

    async with engine(place, tries) as e:
        handle = await e.start(tries)
        assert await handle.result() == "yes"
        assert [(a.attempt, a.error.message) for a in of(handle, t.StepAttemptFailed)] == [
            (1, "no 1"),
            (2, "no 2"),
        ]
        assert [a.attempt for a in of(handle, t.StepStarted)] == [1, 2, 3]
        assert [a.attempt for a in of(handle, t.StepCompleted)] == [3]
        assert [s.max_attempts for s in of(handle, t.StepScheduled)] == [3]
    assert len(calls) == 3


async def test_when_all_attempts_have_failed_the_handler_gets_the_last_error(place: Place) -> None:
    """A36."""
    unsteady, calls = flaky(9, Retry(max_attempts=3, initial_interval=0.001))

    @workflow
    async def tries(ctx: Context) -> str:
        try:
            return await unsteady()
        except StepFailed as error:
            return f"{error.type} {error.message}"

    async with engine(place, tries) as e:
        assert await e.run(tries) == "ConnectionError no 3"
    assert len(calls) == 3


async def test_a_step_without_retry_is_tried_once(place: Place) -> None:
    calls: list[int] = []

    @step
    async def breaks() -> None:
        calls.append(1)
        raise ValueError

    @workflow
    async def tries(ctx: Context) -> None:
        await breaks()

    async with engine(place, tries) as e:
        with pytest.raises(RunFailed):
            await e.run(tries)
    assert len(calls) == 1


@pytest.mark.parametrize("error", [NonRetryable("final"), KeyError("listed")])
async def test_what_is_not_retryable_is_not_retried(error: Exception, place: Place) -> None:
    """A36."""
    calls: list[int] = []

    @step(retry=Retry(max_attempts=5, initial_interval=0, non_retryable=(LookupError,)))
    async def final() -> None:
        calls.append(1)
        raise error

    @workflow
    async def tries(ctx: Context) -> None:
        await final()

    async with engine(place, tries) as e:
        handle = await e.start(tries)
        with pytest.raises(RunFailed):
            await handle.result()
        assert of(handle, t.StepFailed)[0].error.error_class == "non_retryable"
    assert len(calls) == 1


async def test_a_restart_during_backoff_keeps_the_due_time_and_the_attempts_left(place: Place) -> None:
    """A36."""
    clock = HandClock()
    unsteady, calls = flaky(
        2, Retry(max_attempts=3, initial_interval=100, backoff=2, max_interval=1000, jitter=0)
    )

    @workflow
    async def tries(ctx: Context) -> str:
        return await unsteady()

    async with engine(place, tries, clock=clock) as e:
        handle = await e.start(tries, id="r")
        (failed,) = await seen(handle, t.StepAttemptFailed)
        assert failed.retry_at - failed.at == timedelta(seconds=100)
        await waiting(e, "r")
    clock.move(99)
    async with engine(place, tries, clock=clock) as e:
        assert len(calls) == 1
        clock.move(2)
        handle = await e.get("r")
        await seen(handle, t.StepAttemptFailed, 2)
        await waiting(e, "r")
    clock.move(201)
    async with engine(place, tries, clock=clock) as e:
        handle = await e.get("r")
        assert await handle.result() == "yes"
        assert len(calls) == 3
        assert len(of(handle, t.StepStarted)) == 3
        assert not of(handle, t.StepInterrupted)


async def test_the_last_attempt_stays_the_last_after_a_restart(place: Place) -> None:
    """A36: attempts cut off by a shutdown do not count, failed ones do."""
    hang = asyncio.Event()
    calls: list[int] = []

    @step(retry=Retry(max_attempts=2, initial_interval=0))
    async def unlucky() -> None:
        calls.append(1)
        if len(calls) == 2:
            hang.set()
            await asyncio.Event().wait()
        raise ConnectionError(f"no {len(calls)}")

    @workflow
    async def tries(ctx: Context) -> None:
        await unlucky()

    async with engine(place, tries, grace=0) as e:
        await e.start(tries, id="r")
        await hang.wait()
    async with engine(place, tries) as e:
        handle = await e.get("r")
        with pytest.raises(RunFailed, match="no 3"):
            await handle.result()
        assert [f.attempt for f in of(handle, t.StepAttemptFailed)] == [1]
        assert [f.attempt for f in of(handle, t.StepFailed)] == [3]


async def test_a_timed_out_attempt_is_retried(place: Place) -> None:
    calls: list[int] = []

    @step(timeout=0.02, retry=Retry(max_attempts=2, initial_interval=0))
    async def slow_once() -> str:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "quick"

    @workflow
    async def tries(ctx: Context) -> str:
        return await slow_once()

    async with engine(place, tries) as e:
        assert await e.run(tries) == "quick"


async def test_a_run_in_backoff_can_leave_memory(place: Place) -> None:
    unsteady, calls = flaky(1, Retry(max_attempts=2, initial_interval=3600, max_interval=3600))
    clock = HandClock()

    @workflow
    async def tries(ctx: Context) -> str:
        return await unsteady()

    async with engine(place, tries, clock=clock, memory_bytes=0) as e:
        handle = await e.start(tries, id="r")
        await seen(handle, t.StepAttemptFailed)
        await waiting(e, "r")
        assert "r" not in e.worker.live
        clock.move(4000)
        assert await handle.result() == "yes"
    assert len(calls) == 2


def test_pauses_grow_to_a_limit_and_jitter_stays_in_its_band() -> None:
    retry = Retry(max_attempts=9, initial_interval=1, backoff=3, max_interval=20, jitter=0)
    assert [retry.pause(n, 0.5) for n in range(1, 6)] == [1, 3, 9, 20, 20]
    assert Retry(backoff=10.0).pause(10_000, 0.5) == 60
    shaky = Retry(initial_interval=10, jitter=0.2)
    assert [shaky.pause(1, chance) for chance in (0.0, 0.5, 1.0)] == [8, 10, 12]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "options",
    [
        *[{"max_attempts": value} for value in (0, -1)],
        *[{"initial_interval": value} for value in (-1, NAN, INF)],
        *[{"max_interval": value} for value in (-1, NAN, INF)],
        *[{"backoff": value} for value in (0.5, NAN)],
        *[{"jitter": value} for value in (-0.1, 1, NAN)],
    ],
    ids=str,
)
def test_a_policy_that_cannot_work_is_refused_where_it_is_written(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected max_attempts >= 1"):
        Retry(**options)  # type: ignore[arg-type]
