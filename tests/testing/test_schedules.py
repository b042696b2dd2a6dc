"""Schedules: every order of events can be had, a bad one shrinks to what matters, and can be played again."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from refold import Context, Retry, RunFailed, StepFailed, step, workflow
from refold.events import types as t
from refold.testing import NothingHappens, Schedule, TestEngine, schedules

from .crashable import below


@step
async def left(number: int) -> int:
    return number


@step
def right(number: int) -> int:
    return number


@step(timeout=30.0, retry=Retry(max_attempts=2, initial_interval=5.0))
async def slow(number: int) -> int:
    return number


@workflow
async def racing(ctx: Context) -> list[Any]:
    """Two steps at once, then an event or a minute."""
    order: list[int] = []

    async def keep(number: int) -> None:
        order.append(await left(number))

    await asyncio.gather(keep(1), keep(2))
    try:
        async with asyncio.timeout(60.0):
            return [order, await ctx.wait_for_event("paid")]
    except TimeoutError:
        return [order, "unpaid"]


@workflow
async def patient(ctx: Context, number: int) -> Any:
    """One of everything, and the same result whatever happens."""
    one, two = await asyncio.gather(slow(number), right(number))
    child = await ctx.child(below, number)
    decision = await ctx.approval("Go?", timeout=60.0, on_timeout="continue")
    return [one + two, child, bool(decision.outcome)]


def found_by(flow: Any, good: Callable[[Any], bool], **options: Any) -> str:
    """What Hypothesis says of the schedule that makes a result bad."""

    quick = [Phase.generate, Phase.shrink]  # to explain costs more runs than to find and to shrink

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, phases=quick)
    @given(schedules(**options))
    def test(schedule: Schedule) -> None:
        assert good(schedule.run(flow))

    with pytest.raises(AssertionError) as caught:
        test()
    return "\n".join(caught.value.__notes__)


def test_a_bad_order_is_found_and_shrinks_to_the_surprise() -> None:
    said = found_by(racing, lambda result: result[0][0] != 2, signals=["paid"])
    assert "Schedule(1, signals=['paid']):\n  1. left#2 of run, attempt 1 ends\n" in said
    assert "crash" not in said.replace("crashes", "")


def test_an_event_that_comes_too_late_is_found() -> None:
    said = found_by(racing, lambda result: result[1] != "unpaid", signals=["paid"])
    assert "it is 2026-01-01T00:01:00+00:00" in said
    assert "event 'paid' arrives" not in said.partition("Schedule(")[2]


def test_a_schedule_can_be_played_again() -> None:
    schedule = Schedule(1, 1, signals=[("paid", 5)], crashes=2)
    first = schedule.run(racing)
    again = eval_free(schedule)
    assert again.run(racing) == first
    assert again.story == schedule.story
    assert again.events[-1].TAG == "run.completed"  # type: ignore[union-attr]


def eval_free(schedule: Schedule) -> Schedule:
    """As its `repr` says it."""
    assert repr(schedule).startswith("Schedule(")
    assert repr(schedule).endswith("signals=[('paid', 5)], crashes=2)")
    return Schedule(*schedule.choices, signals=[("paid", 5)], crashes=2)


@settings(max_examples=25, deadline=None)
@given(schedules(crashes=3))
def test_a_durable_workflow_comes_to_the_same_in_any_order(schedule: Schedule) -> None:
    result = schedule.run(patient, 4, prepare=lambda engine: engine.approve_when_asked())
    assert result[0] == 8
    assert result[2] is True
    completed = [event.step for event in schedule.events if isinstance(event, t.StepCompleted)]
    assert len(completed) == len(set(completed))


def test_the_first_choice_is_the_order_without_surprises() -> None:
    schedule = Schedule()
    assert schedule.run(patient, 4, prepare=lambda engine: engine.approve_when_asked())[2] is True
    assert not [line for line in schedule.story if "crash" in line or "it is" in line]
    assert repr(schedule) == "Schedule()"


def test_crashes_and_timeouts_are_had_when_asked_for() -> None:
    @workflow
    async def only(ctx: Context) -> str:
        try:
            return f"got {await slow(1)}"
        except StepFailed as error:
            return error.type

    def last(able: Any) -> int:
        return len(able) - 1

    crashed = Schedule(crashes=2, choose=last)
    assert crashed.run(only) == "got 1"
    assert crashed.story.count("a crash") == 2
    assert Schedule(crashes=0, timeouts=True, choose=last).run(only) == "StepTimedOut"
    assert Schedule(crashes=0, choose=last).run(only) == "got 1"


def test_the_schedule_is_told_of_a_run_that_fails_or_hangs() -> None:
    @workflow
    async def waits(ctx: Context, name: str) -> None:
        await ctx.wait_for_event(name)
        raise ValueError("no")

    heard: list[str] = []
    schedule = Schedule(signals=["go"])
    schedule.note = heard.append
    with pytest.raises(NothingHappens, match="name 'stop'"):
        schedule.run(waits, "stop")
    with pytest.raises(RunFailed):
        schedule.run(waits, "go")
    assert "1. event 'go' arrives" in heard[0]
    assert len(heard) == 2


def test_a_run_that_goes_round_in_circles_does_not_hang_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def circles(ctx: Context) -> None:
        while True:
            await ctx.sleep(1)

    monkeypatch.setattr(sys.modules[Schedule.__module__], "TURNS", 20)
    with pytest.raises(NothingHappens, match=r"not ended after 20 turns, the last was: it is .*00:00:20"):
        Schedule().run(circles)


def test_mocks_and_answers_are_those_of_the_engine() -> None:
    def prepare(engine: TestEngine) -> None:
        engine.mock(slow, returns=100)
        engine.mock(right, sequence=[1])
        engine.reject_when_asked()

    with pytest.raises(RunFailed, match="rejected"):
        Schedule().run(patient, 4, prepare=prepare)
