"""Costs and debug messages as the log records them: exact, per attempt, failed attempts too."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from refold import ConfigurationError, Context, Retry, StepFailed, current_step, record_cost, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen

pytestmark = pytest.mark.anyio


async def test_ten_thousand_tenths_of_a_mill_are_exactly_one_dollar(place: Place) -> None:
    """B05."""

    @step
    async def spends() -> None:
        for _ in range(2_500):
            record_cost("0.0001")

    @workflow
    async def pays(ctx: Context) -> None:
        await asyncio.gather(*[spends() for _ in range(4)])

    async with engine(place, pays) as e:
        handle = await e.start(pays)
        await handle.result()
        costs = of(handle, t.CostRecorded)
    assert len(costs) == 10_000
    assert sum((cost.usd for cost in costs), Decimal(0)) == Decimal("1.0000")
    assert {type(cost.usd) for cost in costs} == {Decimal}


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_every_attempt_that_ran_is_charged_once(kind: str, place: Place) -> None:
    """B06, record side: also attempts that failed, were cut off, or timed out."""
    calls: list[int] = []
    cut = asyncio.Event()

    def spend() -> None:
        calls.append(1)
        record_cost(
            Decimal("0.25"), model="m-1", input_tokens=10, output_tokens=20, cache_tokens=5, turns=2,
            detail={"try": len(calls)},
        )  # fmt: skip

    @step(retry=Retry(max_attempts=3, initial_interval=0))
    async def asynchronous() -> str:
        spend()
        if len(calls) == 1:
            raise ConnectionError
        if len(calls) == 2:
            cut.set()
            await asyncio.Event().wait()
        return "ok"

    @step(retry=Retry(max_attempts=3, initial_interval=0))
    def in_a_thread() -> str:
        spend()
        if len(calls) < 3:
            raise ConnectionError
        return "ok"

    @workflow
    async def pays(ctx: Context) -> str:
        return await (asynchronous() if kind == "async" else in_a_thread())

    if kind == "async":
        async with engine(place, pays, grace=0) as e:
            await e.start(pays, id="r")
            await cut.wait()
    async with engine(place, pays) as e:
        handle = await e.start(pays, id="r")
        assert await handle.result() == "ok"
        costs = of(handle, t.CostRecorded)
    assert [cost.attempt for cost in costs] == [1, 2, 3]
    assert sum(cost.usd for cost in costs) == Decimal("0.75")
    first = costs[0]
    assert (first.step, first.model, first.input_tokens, first.output_tokens) == (1, "m-1", 10, 20)
    assert (first.cache_tokens, first.turns, first.detail) == (5, 2, {"try": 1})


async def test_costs_and_debug_messages_are_not_read_on_replay_and_not_repeated(place: Place) -> None:
    """B06, B08."""

    @step
    async def speaks() -> None:
        record_cost("1.50")
        current_step().debug({"prompt": "hello", "tokens": [1, 2, 3]})

    @workflow
    async def talks(ctx: Context) -> None:
        await speaks()
        await ctx.wait_for_event("go")

    for _ in range(3):
        async with engine(place, talks) as e:
            handle = await e.start(talks, id="r")
            await seen(handle, t.WaitOpened)
    async with engine(place, talks) as e:
        await e.signal("r", "go")
        handle = await e.get("r")
        await handle.result()
        assert [cost.usd for cost in of(handle, t.CostRecorded)] == [Decimal("1.50")]
        assert len(of(handle, t.DebugRecorded)) == 1


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_debug_messages_are_kept_on_success_and_on_failure(kind: str, place: Place) -> None:
    """B08."""

    def speak(text: str) -> None:
        current_step().debug({"said": text})
        if text == "bad":
            raise ValueError(text)

    @step
    async def asynchronous(text: str) -> None:
        speak(text)

    @step
    def in_a_thread(text: str) -> None:
        speak(text)

    @workflow
    async def talks(ctx: Context) -> None:
        say = asynchronous if kind == "async" else in_a_thread
        await say("good")
        with pytest.raises(StepFailed):
            await say("bad")

    async with engine(place, talks) as e:
        handle = await e.start(talks)
        await handle.result()
        messages = of(handle, t.DebugRecorded)
    assert [(m.step, bytes(m.message)) for m in messages] == [(1, b'{"said":"good"}'), (2, b'{"said":"bad"}')]


BAD: list[dict[str, Any]] = [
    *[{"usd": usd} for usd in (0.1, -1, "-0.01", "much", "NaN", "Infinity", None, [1], "")],
    *[{"input_tokens": count} for count in (-1, 1.5, "10", None)],
    {"model": 7},
    {"model": "\ud800"},
    {"detail": {"x": float("nan")}},
    {"detail": {"x": len}},
    {"detail": [1]},
]


@pytest.mark.parametrize("wrong", BAD, ids=str)
async def test_a_wrong_cost_fails_the_step_and_records_nothing(wrong: dict[str, Any], place: Place) -> None:
    """B05: money is never a float."""

    @step
    async def spends() -> None:
        record_cost(**wrong)

    @workflow
    async def pays(ctx: Context) -> str:
        try:
            await spends()
        except StepFailed as error:
            return error.type
        return "?"

    async with engine(place, pays) as e:
        handle = await e.start(pays)
        assert await handle.result() in ("ConfigurationError", "ValueRefused")
        assert not of(handle, t.CostRecorded)


def test_costs_belong_in_steps() -> None:
    with pytest.raises(ConfigurationError, match="in the body of a step"):
        record_cost("1")


async def test_a_cost_in_a_handler_is_refused(place: Place) -> None:
    @workflow
    async def pays(ctx: Context) -> str:
        try:
            record_cost("1")
        except ConfigurationError as error:
            return str(error)
        return "?"

    async with engine(place, pays) as e:
        assert "in the body of a step" in await e.run(pays)
