"""`ctx.map`: so many items at a time, recorded once, and after a crash only what is missing."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from refold import (
    ConfigurationError,
    Context,
    Handle,
    RunCancelled,
    RunEnded,
    RunFailed,
    StepFailed,
    ValueRefused,
    step,
    workflow,
)
from refold.engine import fan_out
from refold.events import codec, types as t
from refold.events.clock import to_datetime
from refold.events.errors import ChildFailed
from tests.engine.children import child, lines_until
from tests.engine.kit import Place, engine, of, seen, tags, until
from tests.replay.play import check, play

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    number: int
    urgent: bool = False


@step
async def double(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * 2


@workflow
async def doubled(ctx: Context, number: int) -> int:
    return await double(number)


def opened(handle: Handle[Any]) -> t.FanOutOpened:
    (found,) = of(handle, t.FanOutOpened)
    return found


def fates(events: list[Any], of_map: t.FanOutOpened) -> dict[str, list[int]]:
    """Places of the items by what has become of them, from the log alone."""
    fate = dict.fromkeys(range(of_map.count), "never begun") | dict.fromkeys(of_map.skipped, "skipped")
    for event in events:
        number = getattr(event, "step", getattr(event, "child", 0)) - of_map.fan_out - 1
        if not 0 <= number < of_map.count:
            continue
        if isinstance(event, t.StepScheduled | t.ChildStarted):
            assert event.fan_out == of_map.fan_out
            assert event.item == number
            assert fate[number] == "never begun", f"item {number} began twice"
            fate[number] = "running"
        elif isinstance(event, t.StepCompleted | t.StepFailed | t.StepCancelled | t.ChildEnded):
            assert fate[number] == "running", f"item {number} ended twice"
            fate[number] = getattr(event, "status", event.TAG.rpartition(".")[2])
    places: dict[str, list[int]] = {}
    for place, what in fate.items():
        places.setdefault(what, []).append(place)
    return places


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


# ---- the recorded list counts -----------------------------------------------------------------------


async def test_the_items_are_those_of_the_first_time(place: Place) -> None:
    """A28."""
    offers: list[Any] = [[1, 2, 3], [7, 8], KeyError("gone")]
    given: list[Any] = []
    done = asyncio.Event()

    def provider() -> Iterator[int]:
        offer = offers.pop(0)
        given.append(offer)
        if isinstance(offer, Exception):
            raise offer
        yield from offer

    @step
    async def slow(number: int) -> int:
        if number == 2:
            await done.wait()
        return number

    @workflow
    async def many(ctx: Context) -> Any:
        first = await ctx.map(slow, provider(), limit=1, when=lambda number: given[-1][0] == 1)
        return first, first.skipped

    for life in range(2):
        async with engine(place, many, grace=0) as e:
            handle = await e.start(many, id="r")
            await seen(handle, t.StepCompleted)
            await until(lambda: len(given) > life)  # noqa: B023
    done.set()
    async with engine(place, many) as e:
        assert await (await e.get("r")).result() == [[1, 2, 3], []]
    assert [len(offer) for offer in given[:2]] == [3, 2]
    assert not offers, "asked once in each life, and what it said or raised was ignored"


async def test_what_reading_the_items_moves_is_moved_on_replay_too(place: Place) -> None:
    @workflow
    async def shares(ctx: Context) -> Any:
        source = iter(range(6))
        first = await ctx.map(double, (next(source) + ctx.random.randrange(1, 9) for _ in range(3)))
        rest = [list(source), ctx.random.random()]
        return first, rest, await ctx.wait_for_event("go"), rest

    results = []
    for evicted in (False, True):
        run_id = f"r{evicted}"
        async with engine(place, shares, memory_bytes=0 if evicted else 1_000_000) as e:
            handle = await e.start(shares, id=run_id)
            await seen(handle, t.WaitOpened)
            await until(lambda: (run_id not in e.worker.live) is evicted)  # noqa: B023
            before = msgspec.json.decode(opened(handle).items)
            await handle.signal("go")
            first, rest, _, again = await handle.result()
            assert first == [2 * number for number in before]
            assert rest == again
            results.append(rest[0])
    assert results == [[3, 4, 5]] * 2


async def test_another_limit_in_the_code_changes_nothing_for_a_map_under_way(place: Place) -> None:
    limit = 2
    done = asyncio.Event()

    @step
    async def waits(number: int) -> int:
        await done.wait()
        return number

    @workflow
    async def many(ctx: Context) -> Any:
        return await ctx.map(waits, range(6), limit=limit)

    async with engine(place, many, grace=0) as e:
        await seen(await e.start(many, id="r"), t.StepStarted, 2)
    limit = 5
    done.set()
    async with engine(place, many) as e:
        assert await (await e.get("r")).result() == list(range(6))


async def test_another_target_in_the_code_is_a_divergence(place: Place) -> None:
    async def before(ctx: Context) -> Any:
        return await ctx.map(double, [1]), await ctx.wait_for_event("go")

    async def after(ctx: Context) -> Any:
        return await ctx.map(lambda number: number, [1]), await ctx.wait_for_event("go")

    one, other = workflow(name="m")(before), workflow(name="m")(after)
    async with engine(place, one) as e:
        await seen(await e.start(one, id="r"), t.WaitOpened)
    async with engine(place, other) as e:
        await e.signal("r", "go")
        with pytest.raises(Exception, match="now asks map of '<lambda>' over 1 items"):
            await (await e.get("r")).result()


# ---- refused --------------------------------------------------------------------------------------


def _breaks() -> Iterator[int]:
    yield 1
    raise KeyError("no more")


REFUSED: dict[str, tuple[Callable[[Context], Any], str]] = {
    "a limit of 0": (lambda ctx: ctx.map(double, [1], limit=0), r"limit=0\): expected an int, 1 or more"),
    "a limit that is no number": (lambda ctx: ctx.map(double, [1], limit=True), "limit=True"),
    "a policy nobody knows": (lambda ctx: ctx.map(double, [1], on_error="x"), "expected 'fail' or"),  # type: ignore[arg-type]
    "what cannot be called": (lambda ctx: ctx.map(3, [1]), "expects a step, a workflow or a function"),
    "what has no items": (lambda ctx: ctx.map(double, 3), "not iterable"),  # type: ignore[arg-type]
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


# ---- large items, crashes ---------------------------------------------------------------------------


async def test_items_of_any_size_are_kept_beside_the_log(place: Place) -> None:
    letters = ["a" * 300_000, "b", "c" * 300_000]

    @step
    async def first(text: str) -> list[Any]:
        return [text[0], len(text)]

    @workflow
    async def long(ctx: Context) -> Any:
        got = await ctx.map(first, letters)
        return got, await ctx.wait_for_event("go")

    async with engine(place, long) as e:
        await seen(await e.start(long, id="r"), t.WaitOpened)
        assert all(len(row.state) < 2_000 for row in e.store.read("r"))
    async with engine(place, long) as e:
        await e.signal("r", "go", 1)
        assert await (await e.get("r")).result() == [[["a", 300_000], ["b", 1], ["c", 300_000]], 1]


@workflow
async def mapped(ctx: Context, maps: list[list[Any]]) -> Any:
    async def one(items: list[int], limit: int | None, patient: bool) -> Any:
        try:
            got = await ctx.map(
                double, items, limit=limit, on_error="continue" if patient else "fail", when=lambda n: n % 7
            )
            return list(got), sorted(got.failures), got.skipped
        except StepFailed as error:
            return error.message

    return list(await asyncio.gather(*[one(*line) for line in maps]))


@pytest.mark.parametrize("seed", range(30))
def test_totals_agree_and_a_crash_anywhere_changes_nothing(seed: int) -> None:
    """A27, A28."""
    rng = random.Random(seed)
    maps = [
        [
            [rng.randint(-1, 40) for _ in range(rng.randint(0, 25))],
            rng.choice([1, 3, None]),
            rng.random() < 0.6,
        ]
        for _ in range(rng.randint(1, 3))
    ]
    history = play(mapped, [maps], rng, rng.choice([0, 0.03]))
    assert check(mapped, history) >= 1
    events = [event for a in history.activations() for event in (a.cause, *a.commands)]
    for of_map in (event for event in events if isinstance(event, t.FanOutOpened)):
        found = fates(events, of_map)
        assert sum(map(len, found.values())) == of_map.count
        closed = [e for e in events if isinstance(e, t.FanOutClosed) and e.fan_out == of_map.fan_out]
        assert bool(found.get("never begun")) == bool(closed)


@pytest.mark.parametrize("seed", range(4))
async def test_engines_that_stop_anywhere_begin_each_item_once(seed: int, place: Place) -> None:
    """A28: shutdowns in the middle, handlers thrown out of memory meanwhile, children among it."""
    chance = random.Random(seed)
    begun: list[int] = []

    @step
    async def notes(number: int) -> int:
        begun.append(number)
        await asyncio.sleep(0)
        return number * 2

    @workflow
    async def waits(ctx: Context, number: int) -> int:
        return await notes(number) + int(await ctx.wait_for_event("go") or 0)

    @workflow
    async def both(ctx: Context) -> Any:
        first = await ctx.map(notes, range(40), limit=3)
        return first, await ctx.map(waits, range(100, 112), limit=4)

    result = None
    for _ in range(100):
        async with engine(place, both, grace=chance.choice([0, 1]), memory_bytes=0) as e:
            handle = await e.start(both, id="r")
            for _ in range(chance.randint(1, 6)):
                await asyncio.sleep(0)
            for work, _ in e.store.all_work():
                if work.state == "waiting" and work.run_id != "r":
                    with contextlib.suppress(RunEnded):
                        await e.signal(work.run_id, "go", 1, id="once")
            if of(handle, t.RunCompleted):
                result = await handle.result()
                found = [fates(handle.events(), each) for each in of(handle, t.FanOutOpened)]
                break
    assert result == [[2 * n for n in range(40)], [2 * n + 1 for n in range(100, 112)]]
    assert [sorted(places) for places in found] == [["completed"], ["completed"]]


async def test_killed_in_the_middle_only_what_is_missing_is_done(tmp_path: Path) -> None:
    """A28: a real kill -9; items whose end is in the log are not touched again."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("execute", url, "fans", tmp_path) as process:
        lines_until(process, "marked 500")
        process.send_signal(signal.SIGKILL)
    first = [int(line.split()[1]) for line in (tmp_path / "effects").read_text().splitlines()]
    async with engine(url, execute=False) as e:
        ended = {event.step - 2 for event in of(await e.get("r"), t.StepCompleted)}
    assert 400 < len(ended) <= 500
    with child("execute", url, "fans", tmp_path) as process:
        assert lines_until(process, "result")[-1] == f"result {sum(range(1000))}"
    both = [int(line.split()[1]) for line in (tmp_path / "effects").read_text().splitlines()]
    again = both[len(first) :]
    assert not ended & set(again)
    assert sorted({*ended, *again}) == list(range(1000))
    assert len(again) == 1000 - len(ended)


async def test_control_a_target_called_for_all_items_again_is_noticed() -> None:
    """That `fates` would see an item beginning twice."""
    head: dict[str, Any] = {"id": "", "at": to_datetime(0)}
    of_map = t.FanOutOpened(fan_out=1, name="x", items=codec.encode([1]), count=1, limit=1, **head)
    begins = t.StepScheduled(step=2, name="x", key="x#1", args=codec.encode([1]), fan_out=1, **head)
    with pytest.raises(AssertionError, match="began twice"):
        fates([begins, begins], of_map)
