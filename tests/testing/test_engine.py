"""`TestEngine`: time passes, steps are stood in for, answers come, crashes are survived."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from refold import ConfigurationError, Context, Engine, RunFailed, Settings, Workflow, step, workflow
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.testing import MockError, NothingHappens, TestEngine
from refold.testing.clock import START

from .shop import CARDS, DAY_S, charge, checkout, pack, paid, slow, tags

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_cards() -> None:
    CARDS.clear()


# ---- time


async def test_a_month_of_waiting_takes_no_time_and_stands_in_the_log() -> None:
    async with TestEngine(workflows=[checkout]) as engine:
        engine.approve_when_asked(by="ana", after=3 * DAY_S)
        engine.signal_when_waited_for("address", "Bern", after=3600)
        handle = await engine.start(checkout, "visa")
        assert await handle.result(timeout=20) == ["visa:500", "ana", "Bern", ["box of cup", "box of pot"]]
        assert engine.now == START + timedelta(days=4, hours=1)
        end = handle.events()[-1]
        assert isinstance(end, t.RunCompleted)
        assert end.at == engine.now


async def test_time_stands_still_while_nobody_waits_for_a_run() -> None:
    async with TestEngine(workflows=[slow]) as engine:
        handle = await engine.start(slow)
        await engine.settle()
        for _ in range(50):
            await asyncio.sleep(0)
        assert handle.status()["status"] == "waiting"
        assert engine.now == START
        assert await handle.result() == "slept"


async def test_a_deadline_passes_when_nobody_answers_in_time() -> None:
    async with TestEngine(workflows=[checkout]) as engine:
        engine.approve_when_asked(after=8 * DAY_S)  # a day too late
        with pytest.raises(RunFailed, match="rejected by its deadline"):
            await engine.run(checkout, "visa")
        assert engine.now == START + timedelta(days=8)


async def test_by_hand_time_passes_only_as_far_as_it_is_told() -> None:
    async with TestEngine(workflows=[checkout], skip=False) as engine:
        handle = await engine.start(checkout, "visa")
        await engine.advance(DAY_S - 1)
        assert handle.status()["blocked_on"]["type"] == "timer"
        await engine.advance(1)
        assert handle.status()["blocked_on"]["type"] == "approval"
        await engine.advance(7 * DAY_S - 0.001)
        assert handle.status()["status"] == "waiting"
        await engine.advance(0.001)
        assert handle.status()["status"] == "failed"


async def test_what_is_due_earlier_happens_earlier_also_in_one_long_advance() -> None:
    @workflow
    async def naps(ctx: Context, days: list[int]) -> list[int]:
        order: list[int] = []

        async def nap(number: int) -> None:
            await ctx.sleep(number * DAY_S)
            order.append(number)

        await asyncio.gather(*map(nap, days))
        await nap(1)  # begins when the longest is over, and not at the end of the advance
        return order

    async with TestEngine(workflows=[naps], skip=False) as engine:
        handle = await engine.start(naps, [3, 1, 2])
        await engine.advance(10 * DAY_S)
        fired = [event for event in handle.events() if isinstance(event, t.TimerFired)]
        assert await handle.result() == [1, 2, 3, 1]
        assert [event.at - START for event in fired] == [timedelta(days=n) for n in (1, 2, 3, 4)]


async def test_a_body_that_takes_real_time_times_out_as_it_would_outside() -> None:
    async def busy(card: str, cents: int) -> str:
        await asyncio.sleep(0.2)
        return "late"

    @workflow
    async def impatient(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await charge("visa", 1)
        except TimeoutError:
            return "gave up"

    async with TestEngine(workflows=[impatient]) as engine:
        engine.mock(charge, side_effect=busy)
        assert await engine.run(impatient) == "gave up"


async def test_waiting_for_what_cannot_happen_fails_and_says_what_it_waits_for() -> None:
    async with TestEngine(workflows=[checkout], patience=0.02) as engine:
        engine.approve_when_asked()

        @workflow
        async def forgotten(ctx: Context) -> None:
            await ctx.wait_for_event("address")

        engine.workflows[forgotten.name, forgotten.version] = forgotten
        with pytest.raises(NothingHappens, match=r"name 'address'.*signal_when_waited_for"):
            await engine.run(forgotten)


async def test_a_test_that_answers_from_another_task_is_waited_for() -> None:
    async with TestEngine(workflows=[checkout]) as engine:
        engine.approve_when_asked()
        handle = await engine.start(checkout, "visa")
        result = asyncio.ensure_future(handle.result(timeout=20))
        await engine.sleep(DAY_S + 10)
        await handle.signal("address", "Chur")
        assert (await result)[2] == "Chur"


# ---- steps


async def test_a_mock_stands_in_for_the_body_and_keeps_what_it_was_called_with() -> None:
    async with TestEngine(workflows=[paid]) as engine:
        mock = engine.mock(charge, returns="on the house")
        assert await engine.run(paid, "visa", id="order-1") == "on the house"
        (call,) = mock.calls
        assert (call.args, call.kwargs) == (("visa", 500), {})
        assert (call.key, call.attempt, call.idempotency_key) == ("charge#1", 1, "order-1/charge#1")
    assert CARDS == []


async def test_a_mock_gets_what_the_body_would_get() -> None:
    @step
    async def pay(at: datetime, cents: Decimal) -> str:
        return "never"

    @workflow
    async def buys(ctx: Context) -> str:
        return await pay(START, cents=Decimal("4.50"))

    async with TestEngine(workflows=[buys]) as engine:
        mock = engine.mock(pay, side_effect=lambda at, cents: f"{at:%Y} {cents}")
        assert await engine.run(buys) == "2026 4.50"
        (call,) = mock.calls
        assert (call.args, call.kwargs) == ((START,), {"cents": Decimal("4.50")})


async def test_without_a_mock_the_real_body_runs_unless_the_engine_is_strict() -> None:
    async with TestEngine(workflows=[paid]) as engine:
        assert await engine.run(paid, "visa") == "visa:500"
    assert CARDS == ["visa"]
    async with TestEngine(workflows=[paid], strict=True) as engine:
        with pytest.raises(RunFailed, match="step charge has no mock"):
            await engine.run(paid, "visa")
    assert CARDS == ["visa"]


async def test_answers_in_turn_show_the_retries_of_the_step() -> None:
    async with TestEngine(workflows=[paid]) as engine:
        mock = engine.mock("charge", sequence=[ConnectionError("down"), TimeoutError, "third time"])
        handle = await engine.start(paid, "visa")
        assert await handle.result() == "third time"
        assert [call.attempt for call in mock.calls] == [1, 2, 3]
        assert [step["status"] for step in handle.steps()] == ["failed", "failed", "completed"]
        assert engine.now > START + timedelta(seconds=100)  # two pauses of about 60 s


async def test_a_mock_that_has_nothing_left_fails_the_step_at_once() -> None:
    async with TestEngine(workflows=[paid]) as engine:
        mock = engine.mock(charge, sequence=[ConnectionError("down")])
        with pytest.raises(RunFailed, match="1 answers, and was asked once more"):
            await engine.run(paid, "visa")
        assert len(mock.calls) == 2


async def test_timeouts_of_a_step_count_in_virtual_seconds() -> None:
    async with TestEngine(workflows=[paid]) as engine:
        mock = engine.mock(charge, hangs=True)
        began = monotonic()
        with pytest.raises(RunFailed, match="took longer than 30"):
            await engine.run(paid, "visa")
        assert len(mock.calls) == 3
        assert monotonic() - began < 60  # it would have been four minutes
        engine.mock(charge, returns="just in time", takes=29.9)
        before = engine.now
        assert await engine.run(paid, "visa") == "just in time"
        assert engine.now - before == timedelta(seconds=29.9)


async def test_a_mocks_result_is_held_against_the_steps_type() -> None:
    async with TestEngine(workflows=[paid]) as engine:
        engine.mock(charge, returns=17)
        with pytest.raises(RunFailed, match="Expected `str`, got `int`"):
            await engine.run(paid, "visa")


async def test_operations_are_mocked_by_their_kind() -> None:
    class Shell:
        kind = "shell"

        def __init__(self, command: str) -> None:
            self.input = command

        async def run(self) -> str:
            raise AssertionError("a test must not do this")

    @workflow
    async def release(ctx: Context) -> str:
        done: str = await ctx.operation(Shell("make"))
        return done

    async with TestEngine(workflows=[release]) as engine:
        mock = engine.mock("shell", returns="built")
        assert await engine.run(release) == "built"
        assert mock.calls[0].args == ("make",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"returns": 1, "raises": ValueError}, "returns and raises"),
        ({"sequence": [], "hangs": True}, "sequence and hangs"),
        ({"takes": -1}, "0 or more"),
    ],
)
async def test_a_mock_that_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    engine = TestEngine()
    with pytest.raises(ConfigurationError, match=message):
        engine.mock(charge, **options)
    with pytest.raises(ConfigurationError, match="expected a @step"):
        engine.mock(checkout)  # type: ignore[arg-type]


# ---- people and messages


async def test_the_voters_that_it_takes_vote_and_rules_have_names_and_an_end() -> None:
    @workflow
    async def thrice(ctx: Context) -> list[list[str]]:
        first = await ctx.approval("A?", voters=["ana", "bo", "cy"], approvers=2, name="budget")
        second = await ctx.approval("B?", timeout=60, on_timeout="continue")
        third = await ctx.approval("C?", timeout=60, on_timeout="continue", name="budget")
        return [first.approvals, second.approvals, third.approvals]

    async with TestEngine(workflows=[thrice]) as engine:
        rule = engine.approve_when_asked("budget", times=1)
        assert await engine.run(thrice) == [["ana", "bo"], [], []]
        assert rule.replies == 1


async def test_a_vote_that_the_gate_refuses_fails_the_test_and_does_not_hang_it() -> None:
    @workflow
    async def asks(ctx: Context) -> str:
        return (await ctx.approval("A?", voters=["ana"])).by

    async with TestEngine(workflows=[asks]) as engine:
        engine.approve_when_asked(by="mallory")
        with pytest.raises(Exception, match="'mallory' may not vote"):
            await engine.run(asks)


async def test_inputs_are_answered_and_gates_rejected() -> None:
    @workflow
    async def asks(ctx: Context) -> int:
        number: int = await ctx.wait_for_input(int, prompt="How many?")
        await ctx.approval("Really?")
        return number

    async with TestEngine(workflows=[asks]) as engine:
        engine.answer_when_asked(3)
        engine.reject_when_asked(feedback="too many")
        with pytest.raises(RunFailed, match="too many"):
            await engine.run(asks)


# ---- the same as outside


async def test_the_log_and_the_rows_are_those_of_production() -> None:
    """But for the times: the mocked run's events and tables equal those of an engine without a kit."""
    store = MemoryStore()
    async with Engine(store, workflows=[paid], settings=Settings(projections=False)) as real:
        outside = await real.start(paid, "visa", id="run")
        await outside.result()
        there = (tags(outside), outside.steps()[0])
    async with TestEngine(workflows=[paid]) as engine:
        engine.mock(charge, returns="visa:500")
        inside = await engine.start(paid, "visa", id="run")
        await inside.result()
        here = (tags(inside), inside.steps()[0])
        assert engine.runs.count() == {"completed": 1}
        assert engine.runs.list().runs[0]["run_id"] == "run"
        assert engine.verify().problems == ()
    assert here[0] == there[0]
    moments = {"scheduled_at", "started_at", "ended_at", "duration_s"}
    same = [
        {k: v for k, v in row.items() if k not in moments and not k.endswith("_at")}
        for row in (here[1], there[1])
    ]
    assert same[0] == same[1]


# ---- crashes


@pytest.mark.parametrize("file", [False, True])
async def test_a_crash_in_the_middle_loses_nothing_and_repeats_nothing(file: bool, tmp_path: Path) -> None:
    async with TestEngine(tmp_path / "log.db" if file else None, workflows=[checkout]) as engine:
        engine.approve_when_asked("approval", by="ana", after=60)
        engine.signal_when_waited_for("address", "Bern")
        handle = await engine.start(checkout, "visa")
        waiting = asyncio.ensure_future(handle.result(timeout=30))
        for _ in range(3):
            await engine.crash()
        engine.crash_after(2)
        assert (await waiting)[:3] == ["visa:500", "ana", "Bern"]
        assert engine.crashes == 4
        completed = [event for event in handle.events() if isinstance(event, t.StepCompleted)]
        assert len(completed) == 3
        assert engine.verify().problems == ()


async def test_what_a_crash_cuts_off_is_told_and_what_was_not_stored_has_not_been() -> None:
    async with TestEngine(workflows=[slow]) as engine:
        engine.crash_before(1)
        with pytest.raises(Exception, match="crash"):
            await engine.start(slow, id="run")
        await engine.alive()
        assert engine.store.work("run") is None
        assert await engine.run(slow, id="run") == "slept"


@pytest.mark.parametrize("events", [1, 2, 4])
async def test_who_runs_a_workflow_asks_again_when_the_start_is_not_acknowledged(events: int) -> None:
    async with TestEngine(workflows=[slow]) as engine:
        engine.crash_before(events)
        assert await engine.run(slow) == "slept"
        assert engine.crashes == 1
        assert engine.runs.count() == {"completed": 1}


async def test_module_state_survives_and_so_a_handler_that_keeps_some_is_caught() -> None:
    """Control: the crash really builds the handler again from the log."""
    calls: list[str] = []

    @workflow
    async def forgetful(ctx: Context) -> str:
        calls.append("again")
        await ctx.sleep(DAY_S)
        return await pack("cup" if len(calls) > 1 else "pot")

    async with TestEngine(workflows=[forgetful]) as engine:
        handle = await engine.start(forgetful)
        await engine.crash()
        assert await handle.result() == "box of cup"
    assert calls == ["again", "again"]


def test_pytest_leaves_the_class_alone() -> None:
    assert TestEngine.__test__ is False
    assert issubclass(MockError, AssertionError)
    assert isinstance(checkout, Workflow)
