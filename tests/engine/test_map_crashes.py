"""`ctx.map` interrupted: the items are those of the first time, and each is done once."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from refold import (
    Context,
    RunEnded,
    StepFailed,
    step,
    workflow,
)
from refold.engine.family import Newborn
from refold.engine.worker import Worker
from refold.events import codec, types as t
from refold.events.clock import to_datetime
from tests.engine.children import child, lines_until
from tests.engine.fans import double, doubled, fates, opened
from tests.engine.kit import Place, engine, of, seen, tags, until
from tests.replay.play import check, play

pytestmark = pytest.mark.anyio


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


# ---- large items, crashes anywhere


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


@pytest.mark.parametrize("flow", ["fans", "families"])
async def test_killed_in_the_middle_only_what_is_missing_is_done(flow: str, tmp_path: Path) -> None:
    """A28: a real kill -9; items whose end is in the log are not touched again, be they steps or children."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("execute", url, flow, tmp_path) as process:
        lines_until(process, "marked 500")
        process.send_signal(signal.SIGKILL)
    first = [int(line.split()[1]) for line in (tmp_path / "effects").read_text().splitlines()]
    async with engine(url, execute=False) as e:
        ends: list[Any] = of(await e.get("r"), t.StepCompleted, t.ChildEnded)
        ended = {getattr(event, "step", getattr(event, "child", 0)) - 2 for event in ends}
    assert 400 < len(ended) < 700
    with child("execute", url, flow, tmp_path) as process:
        assert lines_until(process, "result")[-1] == f"result {sum(range(1000))}"
    both = [int(line.split()[1]) for line in (tmp_path / "effects").read_text().splitlines()]
    again = both[len(first) :]
    assert not ended & set(again)
    assert len(again) == len(set(again))
    assert sorted({*first, *again}) == list(range(1000))
    assert len(again) - (1000 - len(first)) <= 8, "repeated: at most what was under way"


async def test_what_a_run_keeps_counts_towards_the_memory_budget(place: Place) -> None:
    @workflow(keep_outputs=True)
    async def keeps(ctx: Context) -> None:
        await ctx.call(lambda: "x" * 50_000)
        for _ in range(2):
            ctx.set("key", "x" * 50_000)
        await ctx.map(double, range(1000))
        await ctx.wait_for_event("go")
        ctx.set("key", "")
        await ctx.map(waits_for_ever, ["x" * 50_000])

    @workflow
    async def waits_for_ever(ctx: Context, text: str) -> None:
        await ctx.wait_for_event("never")

    async with engine(place, keeps, memory_bytes=1_000_000) as e:
        handle = await e.start(keeps, id="r")
        await seen(handle, t.WaitOpened)
        await until(lambda: e.worker.live["r"].idle)
        held = e.worker.live["r"].run.held
        assert 250_000 < held < 350_000, "1,000 outputs of a few bytes, one long one, one long value"
        await handle.signal("go")
        await seen(handle, t.FanOutOpened, 2)
        assert e.worker.live["r"].run.held - held in range(-500, 1_000)
        assert e.worker.live["r"].size > held


@pytest.mark.parametrize("moment", ["before it begins", "while it is loaded"])
async def test_a_child_that_the_store_offers_too_is_begun_once(
    moment: str, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A slow commit ends in a thread: the worker may see a child in the store before it is told of it."""
    begin = Worker.begin

    def looks_first(worker: Worker, newborn: Newborn) -> None:
        worker.log._mean_s = 1.0
        worker.look()
        if moment == "before it begins":
            begin(worker, newborn)
        else:
            asyncio.get_running_loop().call_soon(begin, worker, newborn)

    monkeypatch.setattr(Worker, "begin", looks_first)

    @workflow
    async def parent(ctx: Context) -> Any:
        return await ctx.map(doubled, range(20))

    async with engine(place, parent) as e:
        handle = await e.start(parent, id="p")
        assert await handle.result() == [2 * number for number in range(20)]
        for number in range(1, 21):
            history = tags(await e.get(f"p~{number}"))
            assert history.count("run.claimed") == history.count("step.started") == 1
        assert e.verify().problems == ()
    assert [record.getMessage() for record in caplog.records] == [], "no append was refused"


async def test_control_a_target_called_for_all_items_again_is_noticed() -> None:
    """That `fates` would see an item beginning twice."""
    head: dict[str, Any] = {"id": "", "at": to_datetime(0)}
    of_map = t.FanOutOpened(fan_out=1, name="x", items=codec.encode([1]), count=1, limit=1, **head)
    begins = t.StepScheduled(step=2, name="x", key="x#1", args=codec.encode([1]), fan_out=1, **head)
    with pytest.raises(AssertionError, match="began twice"):
        fates([begins, begins], of_map)
