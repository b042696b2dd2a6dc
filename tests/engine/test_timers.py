"""Sleeping: durable, by the log's clock, and free of charge while it lasts."""

import asyncio
import threading
from datetime import timedelta

import anyio
import pytest

from refold import Context, WaitTimeout, step, workflow
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.store import Store
from tests.engine.kit import HandClock, Place, engine, of, seen, until, waiting

pytestmark = pytest.mark.anyio


@workflow
async def naps(ctx: Context) -> float:
    began = ctx.now()
    await asyncio.sleep(1)
    await anyio.sleep(2)
    await ctx.sleep(3)
    return (ctx.now() - began).total_seconds()


async def test_sleeps_last_at_least_as_long_as_asked_across_restarts_each_its_own_timer(place: Place) -> None:
    """A26."""
    clock = HandClock()
    for fired in range(4):
        async with engine(place, naps, clock=clock) as e:
            handle = await e.start(naps, id="r")
            await seen(handle, t.TimerFired, fired)
            if fired < 3:
                await waiting(e, "r")
                clock.move(fired + 1)
    async with engine(place, naps, clock=clock) as e:
        assert await (await e.get("r")).result() == 6
        started = of(handle := await e.get("r"), t.TimerStarted)
        assert [event.due_at - event.at for event in started] == [timedelta(seconds=s) for s in (1, 2, 3)]
        assert [event.timer for event in of(handle, t.TimerFired)] == [event.timer for event in started]


async def test_a_sleep_does_not_end_early(place: Place) -> None:
    clock = HandClock()
    async with engine(place, naps, clock=clock) as e:
        handle = await e.start(naps)
        await waiting(e, handle.id)
        clock.move(0.999)
        for _ in range(20):  # give it every chance
            e.worker.look()
            await asyncio.sleep(0.005)
        assert not of(handle, t.TimerFired)


async def test_timers_wait_for_real_time_too(place: Place) -> None:
    """The machine's own clock: nothing fires early, everything fires."""

    @workflow
    async def short(ctx: Context) -> list[float]:
        began = ctx.now()
        await asyncio.gather(*[asyncio.sleep(0.01 * n) for n in range(10)])
        return [(ctx.now() - began).total_seconds()]

    async with engine(place, short) as e:
        (took,) = await e.run(short)
        assert took >= 0.09


async def test_a_clock_that_goes_back_does_not_reorder_the_log_or_fire_early(place: Place) -> None:
    clock = HandClock()
    async with engine(place, naps, clock=clock) as e:
        handle = await e.start(naps, id="r")
        await waiting(e, "r")
        clock.move(-7200)
        e.worker.look()
        await asyncio.sleep(0.05)
        assert not of(handle, t.TimerFired)
        clock.move(7200 + 1)
        await seen(handle, t.TimerFired, 1)
        clock.move(-600)
        await handle.signal("noise")
        clock.move(600 + 86_400)
        await seen(handle, t.TimerFired, 2)
        await waiting(e, "r")
        clock.move(3)
        assert await handle.result() >= 6
        times = [event.at for event in of(handle, t.Event)]
        assert times == sorted(times)


async def test_a_clock_that_jumps_forward_fires_what_has_become_due(place: Place) -> None:
    clock = HandClock()

    @workflow
    async def long(ctx: Context) -> str:
        try:
            async with asyncio.timeout(86_400):
                await ctx.wait_for_event("never")
        except TimeoutError:
            return "a day has passed"
        return "?"

    async with engine(place, long, clock=clock) as e:
        handle = await e.start(long)
        await waiting(e, handle.id)
        clock.move(90_000)
        assert await handle.result() == "a day has passed"


async def test_a_cancelled_deadline_never_fires(place: Place) -> None:
    clock = HandClock()

    @step
    async def quick() -> int:
        return 1

    @workflow
    async def guarded(ctx: Context) -> int:
        async with asyncio.timeout(10):
            got = await quick()
        with anyio.move_on_after(5):
            got += await quick()
        try:
            await ctx.wait_for_event("x", timeout=100)
        except WaitTimeout:
            got += 10
        return got

    async with engine(place, guarded, clock=clock) as e:
        handle = await e.start(guarded)
        await seen(handle, t.WaitOpened)
        clock.move(1_000)
        assert await handle.result() == 12
        assert len(of(handle, t.TimerStarted)) == 3
        assert len(of(handle, t.TimerCancelled)) == 2
        assert len(of(handle, t.TimerFired)) == 1


@pytest.mark.parametrize("seconds", [0, -1, float("-inf"), 1e-9])
async def test_a_sleep_of_nothing_ends(seconds: float, place: Place) -> None:
    @workflow
    async def nothing(ctx: Context) -> str:
        await asyncio.sleep(seconds)
        return "awake"

    async with engine(place, nothing) as e:
        assert await e.run(nothing) == "awake"


@pytest.mark.parametrize("seconds", [float("inf"), 1e30, 250_000_000_000.0])
async def test_a_sleep_without_end_can_be_stored_and_read_again(seconds: float, place: Place) -> None:
    @workflow
    async def endless(ctx: Context) -> str:
        sleeper = asyncio.ensure_future(asyncio.sleep(seconds))
        await ctx.wait_for_event("wake")
        return str(sleeper.done())

    for wake in (False, True):
        async with engine(place, endless) as e:
            handle = await e.start(endless, id="r")
            await seen(handle, t.WaitOpened)
            if wake:
                await handle.signal("wake")
                assert await handle.result() == "False"


class Counted:
    """Counts what a store is asked: a real store, with a tally."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: dict[str, int] = {}

    def __getattr__(self, name: str) -> object:
        if not name.startswith("_"):
            self.asked[name] = self.asked.get(name, 0) + 1
        return getattr(self._store, name)


@workflow
async def sleeper(ctx: Context, number: int) -> int:
    await asyncio.sleep(86_400)
    return number


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_10_000_sleeping_runs_cost_no_thread_no_task_and_one_query(
    count: int, lone_place: Place
) -> None:
    """A26."""
    clock = HandClock()
    store = lone_place if isinstance(lone_place, MemoryStore) else open_store(str(lone_place))
    async with engine(store, sleeper, clock=clock) as e:
        for start in range(0, count, 500):
            await asyncio.gather(*[e.start(sleeper, n, id=f"r{n:05}") for n in range(start, start + 500)])
        await until(lambda: not e.store.running())
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    tally = Counted(store)
    async with engine(tally, sleeper, clock=clock) as e:  # type: ignore[arg-type]
        assert tally.asked.pop("due") == 1, "one query of what is due, however many sleep"
        for _ in range(10):
            await asyncio.sleep(0.02)
        assert tally.asked.get("due", 0) == 0, "and none while nothing is due"
        assert tally.asked.get("read", 0) == 0, "no run was read"
        assert not e.worker.live
        assert threading.active_count() - threads <= 1  # the watchdog
        assert len(asyncio.all_tasks()) - tasks <= 1  # the loader
    store.close()


async def test_more_runs_than_a_page_that_are_due_at_once_all_wake(place: Place) -> None:
    clock = HandClock()
    count = 650
    async with engine(place, sleeper, clock=clock, max_active=100) as e:
        await asyncio.gather(*[e.start(sleeper, n, id=f"r{n:05}") for n in range(count)])
        await until(lambda: not e.store.running())
    clock.move(86_401)
    async with engine(place, sleeper, clock=clock, max_active=100) as e:
        handles = [await e.get(f"r{n:05}") for n in range(count)]
        async with asyncio.timeout(60):
            assert await asyncio.gather(*[handle.result() for handle in handles]) == list(range(count))
