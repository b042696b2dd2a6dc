"""Events sent to a run: in order, early or late, once, from this process or another engine."""

import asyncio
from typing import Any

import msgspec
import pytest

from refold import Context, RunEnded, RunFailed, RunNotFound, ValueRefused, WaitTimeout, step, workflow
from refold.events import types as t
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting

pytestmark = pytest.mark.anyio


@workflow
async def two(ctx: Context) -> list[Any]:
    return [await ctx.wait_for_event("paid"), await ctx.wait_for_event("paid")]


async def test_two_waits_for_one_name_take_the_payloads_in_order(place: Place) -> None:
    """A22."""
    async with engine(place, two) as e:
        handle = await e.start(two)
        await handle.signal("paid", {"amount": 1})
        await handle.signal("paid", {"amount": 2})
        assert await handle.result() == [{"amount": 1}, {"amount": 2}]


async def test_concurrent_waits_are_served_in_the_order_in_which_they_were_opened(place: Place) -> None:
    @workflow
    async def both(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(*[ctx.wait_for_event("paid") for _ in range(3)]))

    async with engine(place, both) as e:
        handle = await e.start(both)
        for amount in (1, 2, 3):
            await handle.signal("paid", amount)
        assert await handle.result() == [1, 2, 3]


async def test_a_signal_sent_before_the_wait_is_delivered(place: Place) -> None:
    """A22."""
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        await gate.wait()

    @workflow
    async def late(ctx: Context) -> Any:
        await slow()
        return await ctx.wait_for_event("paid"), await ctx.wait_for_event("other")

    async with engine(place, late, grace=0) as e:
        handle = await e.start(late, id="r")
        await handle.signal("paid", 1)
        await handle.signal("other", 2)
        await seen(handle, t.SignalReceived, 2)
    gate.set()
    async with engine(place, late) as e:
        assert await (await e.get("r")).result() == [1, 2]


async def test_a_signal_id_is_delivered_once(place: Place) -> None:
    """A22."""
    async with engine(place, two) as e:
        handle = await e.start(two, id="r")
        await handle.signal("paid", 1, id="m-1")
        await handle.signal("paid", 1, id="m-1")
    async with engine(place, two, execute=False) as outside:
        await outside.signal("r", "paid", 1, id="m-1")
    async with engine(place, two) as e:
        handle = await e.get("r")
        await handle.signal("paid", 1, id="m-1")
        assert all("m-1" in skipped.reason for skipped in await seen(handle, t.InboxSkipped))
        await handle.signal("paid", 2, id="m-2")
        assert await handle.result() == [1, 2]
        assert len(of(handle, t.SignalReceived)) == 2


async def test_an_acknowledged_signal_id_is_durable_for_the_second_sender_too(place: Place) -> None:
    """The second of two senders at once is told no sooner than the first: what is acknowledged is stored."""
    async with engine(place, two) as e:
        handle = await e.start(two)

        async def send() -> int:
            await handle.signal("paid", 1, id="m-1")
            return len(of(handle, t.SignalReceived))

        assert list(await asyncio.gather(send(), send())) == [1, 1]


async def test_signals_from_another_engine_arrive_in_order_with_their_sender(place: Place) -> None:
    async with engine(place, two) as e:
        handle = await e.start(two, id="r")
        async with engine(place if isinstance(place, str) else e.store, two, execute=False) as outside:
            await outside.signal("r", "paid", "first", by="user:ana")
            await (await outside.get("r")).signal("paid", "second", by="user:ben")
        assert await handle.result() == ["first", "second"]
        assert [(s.by, s.inbox) for s in of(handle, t.SignalReceived)] == [("user:ana", 1), ("user:ben", 2)]
        found = e.verify("r")
        assert (found.events, found.problems) == (len(handle.events()) + 2, ())


async def test_a_run_waits_for_a_signal_without_a_task_or_thread(place: Place) -> None:
    async with engine(place, two, memory_bytes=0) as e:
        before = len(asyncio.all_tasks())
        handle = await e.start(two, id="r")
        await until(lambda: "r" not in e.worker.live)
        assert len(asyncio.all_tasks()) == before
        await handle.signal("paid", 1)
        await until(lambda: "r" not in e.worker.live)
        await handle.signal("paid", 2)
        assert await handle.result() == [1, 2]


@workflow
async def patient(ctx: Context) -> Any:
    out = []
    for name in ("ok", "ok"):
        try:
            out.append(await ctx.wait_for_event(name, timeout=60))
        except WaitTimeout as error:
            out.append(f"timeout: {error}")
    return out


async def test_a_wait_times_out_once_and_the_handler_goes_on(place: Place) -> None:
    """A23."""
    clock = HandClock()
    async with engine(place, patient, clock=clock) as e:
        handle = await e.start(patient, id="r")
        await waiting(e, "r")
        clock.move(61)
        await seen(handle, t.TimerFired)
        await handle.signal("ok", "second")
        assert await handle.result() == ["timeout: run r: no event 'ok' within 60 s", "second"]
        assert tags(handle).count("timer.fired") == 1
        assert tags(handle).count("wait.cancelled") == 1


async def test_a_wait_times_out_so_long_after_it_was_opened_whatever_restarts_there_were(
    place: Place,
) -> None:
    """A23."""
    clock = HandClock()
    for _ in range(3):
        async with engine(place, patient, clock=clock) as e:
            handle = await e.start(patient, id="r")
            await waiting(e, "r")
            clock.move(19)
    async with engine(place, patient, clock=clock) as e:
        handle = await e.get("r")
        assert not of(handle, t.TimerFired)
        clock.move(4)
        (fired,) = await seen(handle, t.TimerFired)
        opened = of(handle, t.TimerStarted)[0]
        assert fired.timer == opened.timer
        assert (opened.due_at - opened.at).total_seconds() == 60


async def test_an_acknowledged_signal_never_loses_to_a_later_deadline(place: Place) -> None:
    """It lay in the inbox when the engine was off; at start both are due, and the message was first."""
    clock = HandClock()
    async with engine(place, patient, clock=clock) as e:
        await e.start(patient, id="r")
        await waiting(e, "r")
    async with engine(place, patient, clock=clock, execute=False) as outside:
        await outside.signal("r", "ok", "in time")
    clock.move(3600)
    async with engine(place, patient, clock=clock) as e:
        handle = await e.get("r")
        await seen(handle, t.SignalReceived)
        await waiting(e, "r")
        await handle.signal("ok", "again")
        assert await handle.result() == ["in time", "again"]


class Payment(msgspec.Struct):
    usd: int


async def test_a_payload_is_decoded_to_the_type_asked_for_and_a_wrong_one_is_named(place: Place) -> None:
    @workflow
    async def typed(ctx: Context) -> Any:
        out: list[Any] = []
        for _ in range(2):
            try:
                payment = await ctx.wait_for_event("paid", type=Payment)
                out.append(payment.usd + 1)
            except ValueRefused as error:
                out.append(error.path)
        return out

    async with engine(place, typed) as e:
        handle = await e.start(typed)
        await handle.signal("paid", {"usd": "much"})
        await handle.signal("paid", {"usd": 4})
        assert await handle.result() == ["$.usd", 5]


async def test_signals_to_unknown_and_ended_runs_are_refused_and_change_nothing(place: Place) -> None:
    @workflow
    async def short(ctx: Context) -> None:
        return None

    @workflow
    async def broken(ctx: Context) -> None:
        raise ValueError

    async with engine(place, short, broken) as e:
        with pytest.raises(RunNotFound, match="no run 'nobody' in this store"):
            await e.signal("nobody", "hello")
        with pytest.raises(RunNotFound):
            await e.get("nobody")
        for flow, status in ((short, "completed"), (broken, "failed")):
            handle = await e.start(flow)
            try:
                await handle.result()
            except RunFailed:
                assert flow is broken
            before = e.store.position()
            with pytest.raises(RunEnded, match=f"is {status}: nothing can be sent"):
                await handle.signal("hello")
            assert e.store.position() == before
