"""`ctx.map`: so many items at a time, recorded once, and after a crash only what is missing."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from refold import (
    ConfigurationError,
    Context,
    RunCancelled,
    RunFailed,
    StepFailed,
    ValueRefused,
    step,
    workflow,
)
from refold.engine import fan_out
from refold.events import types as t
from refold.events.errors import ChildFailed
from tests.engine.fans import double, doubled, fates, opened
from tests.engine.kit import Place, engine, of, seen, tags

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    number: int
    urgent: bool = False


async def test_a_thousand_items_never_more_than_the_limit_at_a_time(place: Place) -> None:
    """A27."""
    now = most = 0

    @step
    async def busy(number: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return number + 1

    @workflow
    async def many(ctx: Context) -> list[int]:
        got = await ctx.map(busy, range(1000), limit=8)
        assert len(asyncio.all_tasks()) == 1
        return list(got)

    async with engine(place, many) as e:
        handle = await e.start(many)
        assert await handle.result() == list(range(1, 1001))
        assert most == 8
        assert fates(e.events(handle.id), opened(handle)) == {"completed": list(range(1000))}
        assert opened(handle).limit == 8
        assert e.verify(handle.id).problems == ()


async def test_items_have_the_numbers_after_their_map_and_what_follows_comes_behind(place: Place) -> None:
    @workflow
    async def before_and_after(ctx: Context) -> Any:
        first = await double(1)
        both = await asyncio.gather(ctx.map(double, [1, 2]), ctx.map(double, [3]), double(9))
        return first, *both, await double(4)

    async with engine(place, before_and_after) as e:
        handle = await e.start(before_and_after)
        assert await handle.result() == [2, [2, 4], [6], 18, 8]
        numbers = [(s.fan_out, s.step, bytes(s.args)) for s in of(handle, t.StepScheduled)]
        assert numbers == [
            (0, 1, b"[1]"), (0, 7, b"[9]"), (2, 3, b"[1]"), (2, 4, b"[2]"), (5, 6, b"[3]"), (0, 8, b"[4]"),
        ]  # fmt: skip


@pytest.mark.parametrize("limit", [1, 2, None])
async def test_a_workflow_makes_each_item_a_child(limit: int | None, place: Place) -> None:
    @workflow
    async def parent(ctx: Context) -> Any:
        got = await ctx.map(doubled, [1, -2, 3], limit=limit, on_error="continue")
        return got, {i: type(error).__name__ for i, error in got.failures.items()}

    async with engine(place, parent) as e:
        handle = await e.start(parent, id="p")
        assert await handle.result() == [[2, None, 6], {"1": "ChildFailed"}]
        assert fates(handle.events(), opened(handle)) == {"completed": [0, 2], "failed": [1]}
        assert [c.run_id for c in of(handle, t.ChildStarted)] == ["p~1", "p~2", "p~3"]


async def test_any_function_will_do(place: Place) -> None:
    @workflow
    async def plain(ctx: Context) -> Any:
        return await ctx.map(lambda text: text.upper(), "abc")

    async with engine(place, plain) as e:
        handle = await e.start(plain)
        assert await handle.result() == ["A", "B", "C"]
        assert {s.kind for s in of(handle, t.StepScheduled)} == {"call"}


async def test_each_item_is_decoded_as_its_target_wants_it(place: Place) -> None:
    """A30."""

    @step
    async def numbers(order: Order) -> int:
        return order.number if type(order) is Order else -1

    @workflow
    async def handles(ctx: Context, order: Order) -> int:
        return order.number if type(order) is Order else -1

    @workflow
    async def both(ctx: Context) -> Any:
        orders = [Order(1), {"number": 2, "urgent": True}, Order(3, urgent=True)]
        urgent: Callable[[Order], bool] = lambda order: order.urgent  # noqa: E731
        return [await ctx.map(target, orders, when=urgent) for target in (numbers, handles)]

    async with engine(place, both) as e:
        handle = await e.start(both)
        assert await handle.result() == [[None, 2, 3]] * 2
        assert [e.skipped for e in of(handle, t.FanOutOpened)] == [(0,), (0,)]


async def test_the_first_failure_cancels_the_rest_and_closes_the_map(place: Place) -> None:
    hold = asyncio.Event()

    @step
    async def fifth_fails(number: int) -> int:
        if number == 4:
            raise ValueError("the fifth")
        if number > 2:
            await hold.wait()
        return number

    @workflow
    async def fails(ctx: Context) -> Any:
        try:
            await ctx.map(fifth_fails, range(100), limit=3, when=lambda number: number != 1)
        except StepFailed as error:
            return error.message, error.__notes__

    async with engine(place, fails) as e:
        handle = await e.start(fails)
        assert await handle.result() == ["the fifth", ["item 4 of a map of fifth_fails"]]
        assert fates(handle.events(), opened(handle)) == {
            "completed": [0, 2], "skipped": [1], "cancelled": [3, 5], "failed": [4],
            "never begun": list(range(6, 100)),
        }  # fmt: skip
        (closed,) = of(handle, t.FanOutClosed)
        assert (closed.fan_out, closed.count) == (opened(handle).fan_out, 100)


async def test_a_map_whose_items_have_all_begun_needs_no_closing(place: Place) -> None:
    @workflow
    async def all_fail(ctx: Context) -> Any:
        got = await ctx.map(double, [-1, -2, -3], on_error="continue")
        with pytest.raises(StepFailed):
            await ctx.map(double, [-1])
        return got, sorted(got.failures), await ctx.map(double, [])

    async with engine(place, all_fail) as e:
        handle = await e.start(all_fail)
        assert await handle.result() == [[None] * 3, [0, 1, 2], []]
        assert [e.count for e in of(handle, t.FanOutOpened)] == [3, 1, 0]
        assert not of(handle, t.FanOutClosed)


async def test_cancelling_the_run_cancels_what_is_under_way(place: Place) -> None:
    @step
    async def blocks(number: int) -> None:
        await asyncio.Event().wait()

    @workflow
    async def long(ctx: Context) -> None:
        await ctx.map(blocks, range(10), limit=2)

    async with engine(place, long) as e:
        handle = await e.start(long)
        await seen(handle, t.StepStarted, 2)
        await handle.cancel("enough")
        with pytest.raises(RunCancelled):
            await handle.result()
        assert fates(handle.events(), opened(handle)) == {
            "cancelled": [0, 1],
            "never begun": list(range(2, 10)),
        }
        assert tags(handle)[-2:] == ["fan_out.closed", "run.cancelled"]


async def test_children_under_way_are_cancelled_with_the_map(place: Place) -> None:
    @workflow
    async def one(ctx: Context, number: int) -> None:
        if number == 1:
            raise ValueError("one")
        await ctx.wait_for_event("never")

    @workflow
    async def parent(ctx: Context) -> Any:
        try:
            await ctx.map(one, range(4), limit=2)
        except ChildFailed as error:
            return error.message

    async with engine(place, parent) as e:
        handle = await e.start(parent, id="p")
        assert await handle.result() == "one"
        with pytest.raises(RunCancelled, match="its parent p no longer waits for it"):
            await (await e.get("p~1")).result()
        assert fates(handle.events(), opened(handle))["never begun"] == [2, 3]


# ---- refused --------------------------------------------------------------------------------------


def _breaks() -> Iterator[int]:
    yield 1
    raise KeyError("no more")


REFUSED: dict[str, tuple[Callable[[Context], Any], str]] = {
    "a limit of 0": (lambda ctx: ctx.map(double, [1], limit=0), r"limit=0\): expected an int, 1 or more"),
    "a limit that is no number": (lambda ctx: ctx.map(double, [1], limit=True), "limit=True"),
    "a policy nobody knows": (lambda ctx: ctx.map(double, [1], on_error="x"), "expected 'fail' or"),  # type: ignore[arg-type]
    "what cannot be called": (lambda ctx: ctx.map(3, [1]), "expects a step, a workflow or a function"),
    "what has no items": (lambda ctx: ctx.map(double, 3), "expected a list"),  # type: ignore[arg-type]
    "an item without a JSON form": (
        lambda ctx: ctx.map(double, [1, object()]),
        r"\$\[1\]; return plain|JSON",
    ),
    "an item that no child takes": (lambda ctx: ctx.map(doubled, [1, "x"]), "item 1 of the map"),
    "an iterator that breaks": (lambda ctx: ctx.map(double, _breaks()), "no more"),
    "a condition that breaks": (lambda ctx: ctx.map(double, [0], when=lambda n: 1 / n), "division"),
    "an item the condition cannot have": (
        lambda ctx: ctx.map(double, ["x"], when=lambda n: True),
        "does not fit its annotation",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_work_is_refused_before_anything_is_recorded(what: str, place: Place) -> None:
    @workflow
    async def refused(ctx: Context) -> str:
        try:
            await REFUSED[what][0](ctx)
        except (ConfigurationError, ValueRefused, TypeError, KeyError, ZeroDivisionError) as error:
            return str(error)
        return "?"

    async with engine(place, refused) as e:
        handle = await e.start(refused)
        with pytest.raises(AssertionError, match=REFUSED[what][1]):
            raise AssertionError(await handle.result())
        assert tags(handle) == ["run.started", "run.claimed", "run.completed"]


async def test_an_iterator_without_an_end_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "MAX_ITEMS", 5)

    @workflow
    async def endless(ctx: Context, count: int) -> Any:
        return await ctx.map(double, iter(range(count)))

    async with engine(place, endless) as e:
        assert await e.run(endless, 5) == [0, 2, 4, 6, 8]
        with pytest.raises(RunFailed, match=r"ctx\.map takes at most 5 items"):
            await e.run(endless, 10**12)


async def test_a_map_into_ever_deeper_children_is_refused(place: Place) -> None:
    @workflow(recursive=True)
    async def deeper(ctx: Context, depth: int) -> Any:
        return await ctx.map(deeper, [depth + 1])

    async with engine(place, deeper, max_depth=2) as e:
        with pytest.raises(RunFailed, match="ChildFailed"):
            await e.run(deeper, 0)
        assert len(list(e.store.all_work())) == 3
