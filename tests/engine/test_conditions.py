"""`ctx.condition`: decided once for good, with what it was decided on; what is not taken has a row."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from refold import ConfigurationError, Context, NonDeterminismError, ValueRefused, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen, tags, until

pytestmark = pytest.mark.anyio


@step
async def review(order: int) -> str:
    return "reviewed"


@step
async def ship(order: int) -> str:
    return "shipped"


async def test_a_decision_is_recorded_with_its_operands(place: Place) -> None:
    """A33."""

    @workflow
    async def decides(ctx: Context, usd: int) -> Any:
        if ctx.condition("large", usd > 100, skips=[review, "archive"], usd=usd, limit=100):
            return await review(usd)
        return await ship(usd)

    async with engine(place, decides) as e:
        small, large = await e.start(decides, 7), await e.start(decides, 500)
        assert [await small.result(), await large.result()] == ["shipped", "reviewed"]
        (no,), (yes,) = of(small, t.ConditionDecided), of(large, t.ConditionDecided)
        assert (no.name, no.result, yes.result) == ("large", False, True)
        assert msgspec.json.decode(no.operands) == {"usd": 7, "limit": 100}
        rows = [(row.step, row.key, row.reason) for row in of(small, t.BranchSkipped)]
        why = "condition 'large' is false"
        assert rows == [(1, "review#1", why), (2, "archive#1", why)]
        assert [s.step for s in of(small, t.StepScheduled)] == [3]
        assert not of(large, t.BranchSkipped)


async def test_the_recorded_branch_is_taken_whatever_the_source_says_now(place: Place) -> None:
    """A33: also for decisions in a loop, each its own."""
    source = [True, False, True]
    asked: list[bool] = []

    @workflow
    async def decides(ctx: Context) -> Any:
        taken = []
        for place_, value in enumerate(source):
            asked.append(value)
            taken.append(ctx.condition("open", value, skips=[ship]))
            if taken[-1]:
                await ship(place_)
        return taken, await ctx.wait_for_event("go")

    async with engine(place, decides, memory_bytes=0) as e:
        handle = await e.start(decides, id="r")
        await seen(handle, t.WaitOpened)
        await until(lambda: "r" not in e.worker.live)
        before = tags(handle)
    source[:] = [False, True, False]
    async with engine(place, decides) as e:
        handle = await e.get("r")
        await handle.signal("go", 1)
        assert await handle.result() == [[True, False, True], 1]
        assert tags(handle)[: len(before)] == before
        assert e.verify("r").problems == ()
    assert asked[-3:] == [False, True, False], "the source was asked again, and overruled"


async def test_rows_of_what_is_not_taken_survive_in_a_run_that_ends_at_once(place: Place) -> None:
    @workflow
    async def nothing_to_do(ctx: Context) -> bool:
        return ctx.condition("any", [], skips=[ship])

    async with engine(place, nothing_to_do) as e:
        handle = await e.start(nothing_to_do)
        assert await handle.result() is False
        assert tags(handle)[2:] == ["condition.decided", "branch.skipped", "run.completed"]


async def test_control_a_plain_if_on_a_source_that_changed_diverges(place: Place) -> None:
    source = [True]

    @workflow
    async def decides(ctx: Context) -> Any:
        if source[0]:
            await ship(1)
        else:
            await review(1)
        return await ctx.wait_for_event("go")

    async with engine(place, decides) as e:
        await seen(await e.start(decides, id="r"), t.WaitOpened)
    source[0] = False
    async with engine(place, decides) as e:
        await e.signal("r", "go")
        with pytest.raises(NonDeterminismError):
            await (await e.get("r")).result()


async def test_another_condition_in_its_place_diverges(place: Place) -> None:
    name = "large"

    @workflow
    async def decides(ctx: Context) -> Any:
        ctx.condition(name, True)
        return await ctx.wait_for_event("go")

    async with engine(place, decides) as e:
        await seen(await e.start(decides, id="r"), t.WaitOpened)
    name = "urgent"
    async with engine(place, decides) as e:
        await e.signal("r", "go")
        with pytest.raises(NonDeterminismError, match=r"condition\.decided  'large'"):
            await (await e.get("r")).result()


async def test_names_and_operands_that_cannot_be_recorded_are_refused(place: Place) -> None:
    @workflow
    async def decides(ctx: Context) -> Any:
        told = []
        asks: list[Callable[[], bool]] = [
            lambda: ctx.condition("", True),
            lambda: ctx.condition("x", False, skips=["a\nb"]),
            lambda: ctx.condition("x", True, what=object()),
        ]
        for ask in asks:
            try:
                ask()
            except (ConfigurationError, ValueRefused) as error:
                told.append(str(error))
        return told

    async with engine(place, decides) as e:
        handle = await e.start(decides)
        told = await handle.result()
        assert len(told) == 3
        assert "operands of condition 'x' at $.what" in told[2]
        assert tags(handle) == ["run.started", "run.claimed", "run.completed"]
