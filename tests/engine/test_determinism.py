"""Replay: helpers give recorded values, I/O is refused, other code is a divergence that harms nothing."""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from refold import Context, ForbiddenInHandler, NonDeterminismError, RunCancelled, Workflow, step, workflow
from refold.events import types as t
from tests.engine.kit import HandClock, Place, engine, of, seen, tags

pytestmark = pytest.mark.anyio

Lives = list[list[Any]]


def remembering(lives: Lives) -> Workflow[Any, Any]:
    @workflow
    async def draws(ctx: Context) -> list[Any]:
        out: list[Any] = [ctx.run_id, ctx.workflow, ctx.attributes]
        lives.append(out)
        for turn in range(3):
            out += [
                ctx.now().isoformat(),
                ctx.random.random(),
                str(ctx.uuid4()),
                ctx.random.sample(range(99), 3),
            ]
            out.append(asyncio.get_running_loop().time())
            await ctx.wait_for_event(f"go {turn}")
        return out

    return draws


async def test_time_chance_and_ids_are_the_recorded_ones_on_replay(place: Place) -> None:
    """C06."""
    lives: Lives = []
    flow = remembering(lives)
    clock = HandClock()
    async with engine(place, flow, clock=clock) as e:
        await seen(await e.start(flow, id="r", attributes={"shop": "Bern"}), t.WaitOpened)
    for turn in range(3):
        clock.move(100)
        async with engine(place, flow, clock=clock) as e:
            handle = await e.get("r")
            await handle.signal(f"go {turn}")
            await (seen(handle, t.WaitOpened, turn + 2) if turn < 2 else handle.result())
    assert len(lives) == 4
    result = lives[-1]
    assert lives[0][:8] == lives[1][:8] == lives[2][:8] == lives[3][:8]
    assert lives[1][8:13] == lives[2][8:13] == lives[3][8:13]
    assert result[:3] == ["r", "draws", {"shop": "Bern"}]
    assert result[3] < result[8] < result[13], "log time goes on"
    assert len({result[4], result[9], result[14]}) == 3
    assert uuid.UUID(result[5]).version == 4


async def test_two_runs_draw_different_numbers(place: Place) -> None:
    @workflow
    async def draws(ctx: Context) -> str:
        return str(ctx.uuid4())

    async with engine(place, draws) as e:
        assert len({await e.run(draws) for _ in range(20)}) == 20


async def test_the_logger_of_a_run_is_silent_while_it_replays(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """C06, and B15: its lines carry the trace id."""
    of_trace = ""

    @workflow
    async def speaks(ctx: Context) -> None:
        ctx.log.warning("before %s", 1)
        await ctx.wait_for_event("go")
        ctx.log.warning("after")

    caplog.set_level(logging.INFO, logger="refold.run")
    for turn in range(3):
        async with engine(place, speaks) as e:
            handle = await e.start(speaks, id="r")
            await seen(handle, t.WaitOpened)
            (of_trace,) = {event.trace for event in of(handle, t.Event)}
            if turn == 2:
                await handle.signal("go")
                await handle.result()
    spoken = [record for record in caplog.records if record.name == "refold.run"]
    assert [record.getMessage() for record in spoken] == ["before 1", "after"]
    assert {getattr(record, "refold_run", "") for record in spoken} == {"r"}
    assert {getattr(record, "refold_trace", "") for record in spoken} == {of_trace}


def _resolve() -> Any:
    return asyncio.get_running_loop().getaddrinfo("localhost", 80)


FORBIDDEN: dict[str, Callable[[], Any]] = {
    "a thread": lambda: asyncio.to_thread(sum, [1]),
    "an executor": lambda: asyncio.get_running_loop().run_in_executor(None, sum, [1]),
    "a connection": lambda: asyncio.open_connection("127.0.0.1", 9),
    "a server": lambda: asyncio.start_server(lambda r, w: None, "127.0.0.1", 0),
    "a process": lambda: asyncio.create_subprocess_exec("true"),
    "a name": _resolve,
    "anyio's thread": lambda: anyio.to_thread.run_sync(sum, [1]),
    "anyio's connection": lambda: anyio.connect_unix("nowhere"),
    "anyio's process": lambda: anyio.run_process(["true"]),
    "anyio's file": lambda: anyio.open_file("x"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_io_and_threads_in_a_handler_are_refused_with_the_remedy(what: str, place: Place) -> None:
    @workflow
    async def misbehaves(ctx: Context) -> str:
        try:
            await FORBIDDEN[what]()
        except ForbiddenInHandler as error:
            return str(error)
        return "?"

    async with engine(place, misbehaves) as e:
        assert "put it in a step" in await e.run(misbehaves)


# ---- other code than that which began the run -----------------------------------------------------

calls: list[str] = []


@step
async def charge(usd: int) -> int:
    calls.append(f"charge {usd}")
    return usd


@step
async def ship(what: str = "") -> str:
    calls.append(f"ship {what}")
    return what


async def _original(ctx: Context) -> list[Any]:
    out = [await charge(5)]
    await asyncio.sleep(0)
    out.append(await ctx.wait_for_event("go"))
    return [*out, await ship("it")]


async def _other_name(ctx: Context) -> Any:
    await ship("early")
    return await ctx.wait_for_event("go")


async def _other_arguments(ctx: Context) -> Any:
    await charge(6)
    return await ctx.wait_for_event("go")


async def _other_kind(ctx: Context) -> Any:
    await asyncio.sleep(1)
    return await ctx.wait_for_event("go")


async def _other_call_kind(ctx: Context) -> Any:
    await ctx.call(charge.fn, 5, name="charge")
    return await ctx.wait_for_event("go")


async def _one_more(ctx: Context) -> Any:
    await asyncio.gather(charge(5), ship("too"))
    return await ctx.wait_for_event("go")


async def _other_event(ctx: Context) -> Any:
    await charge(5)
    return await ctx.wait_for_event("gone")


async def _ends_early(ctx: Context) -> Any:
    await charge(5)
    return "early"


async def _raises(ctx: Context) -> Any:
    await charge(5)
    raise ValueError("new bug")


CHANGES = {
    "another step": (_other_name, "log has  step 'charge' with arguments [5]", "now asks step 'ship'"),
    "other arguments": (_other_arguments, "arguments [5]", "same step, different arguments"),
    "another kind": (_other_kind, "step 'charge'", "now asks timer due"),
    "another kind of call": (_other_call_kind, "log has  step 'charge'", "now asks call 'charge'"),
    "one step more": (_one_more, "nothing more in this activation", "now asks step 'ship'"),
    "another event": (_other_event, "wait for event 'go'", "now asks wait for event 'gone'"),
    "an early end": (_ends_early, "wait for event 'go'", 'now asks end of the run with result "early"'),
    "an error": (_raises, "wait for event 'go'", "end of the run by ValueError: new bug"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_code_diverges_writes_nothing_and_can_be_put_back(change: str, place: Place) -> None:
    """C02."""
    calls.clear()
    right = workflow(name="order")(_original)
    wrong = workflow(name="order")(CHANGES[change][0])
    async with engine(place, right) as e:
        handle = await e.start(right, id="r")
        await seen(handle, t.WaitOpened)
        before = tags(handle)
    for _ in range(2):  # tried again by the next process: noted once
        async with engine(place, wrong) as e:
            handle = await e.get("r")
            await e.signal("r", "wake up")
            with pytest.raises(NonDeterminismError) as diverged:
                await handle.result()
            await seen(handle, t.RunAttention)
        error = diverged.value
        assert all(part in str(error) for part in (*CHANGES[change][1:], "put the code back"))
        assert error.key and error.expected and error.found  # noqa: PT018 - all three are there
    assert calls == ["charge 5"], "the wrong code had no effect"
    async with engine(place, right) as e:
        handle = await e.get("r")
        assert tags(handle)[: len(before) + 1] == [*before, "run.attention"]
        await handle.signal("go", 7)
        assert await handle.result() == [5, 7, "it"]
        assert [(a.kind) for a in of(handle, t.RunAttention)] == ["diverged", "none"]
    assert calls == ["charge 5", "ship it"]


async def test_a_divergence_says_what_changed_since_the_run_began(place: Place) -> None:
    """C02."""
    right, wrong = workflow(name="order")(_original), workflow(name="order")(_other_name)
    async with engine(place, right) as e:
        await seen(await e.start(right, id="r"), t.WaitOpened)
    async with engine(place, wrong) as e:
        await e.signal("r", "wake up")
        with pytest.raises(NonDeterminismError) as diverged:
            await (await e.get("r")).result()
        text = str(diverged.value)
    assert "changed since the run began: the handler's code" in text
    assert "run r: replay diverged at step charge#1" in text
    assert "test_determinism.py:" in text


async def test_a_diverged_run_does_not_hold_up_the_others(place: Place) -> None:
    """C02."""
    right, wrong = workflow(name="order")(_original), workflow(name="order")(_other_name)
    async with engine(place, right) as e:
        for number in range(3):
            await seen(await e.start(right, id=f"r{number}"), t.WaitOpened)
    fine = workflow(name="fine")(_original)
    async with engine(place, wrong, fine) as e:
        for number in range(3):
            await e.signal(f"r{number}", "go")
        handle = await e.start(fine)
        await handle.signal("go", 1)
        assert await handle.result() == [5, 1, "it"]
        assert len(e.worker.blocked) == 3


async def test_a_return_type_that_no_longer_fits_is_a_divergence(place: Place) -> None:
    """C02."""

    @step(name="count")
    async def counts_in_words() -> str:
        return "three"

    @step(name="count")
    async def counts() -> int:
        return 3

    async def _words(ctx: Context) -> Any:
        return [await counts_in_words(), await ctx.wait_for_event("go")]

    async def _numbers(ctx: Context) -> Any:
        return [await counts(), await ctx.wait_for_event("go")]

    words, numbers = workflow(name="w")(_words), workflow(name="w")(_numbers)
    async with engine(place, words) as e:
        await seen(await e.start(words, id="r"), t.WaitOpened)
    async with engine(place, numbers) as e:
        await e.signal("r", "go", 1)
        with pytest.raises(NonDeterminismError, match=r"return type changed.*put it back"):
            await (await e.get("r")).result()
    async with engine(place, words) as e:
        assert await (await e.get("r")).result() == ["three", 1]


async def test_chance_and_clocks_from_outside_are_a_divergence_that_names_them(place: Place) -> None:
    """C02, C06: what a third-party helper draws is out of reach until the replay."""

    async def _helpless(ctx: Context) -> Any:
        await charge(random.randrange(10**9))
        return await ctx.wait_for_event("go")

    flow = workflow(name="helpless")(_helpless)
    async with engine(place, flow, determinism="off") as e:
        await seen(await e.start(flow, id="r"), t.WaitOpened)
    async with engine(place, flow, determinism="off") as e:
        await e.signal("r", "go")
        with pytest.raises(
            NonDeterminismError, match=r"code and versions are those the run began with.*randomness"
        ):
            await (await e.get("r")).result()


async def test_ctx_and_its_chance_outside_the_handler_are_refused(place: Place) -> None:
    kept: list[Context] = []

    @step
    async def borrows(what: str) -> str:
        ctx = kept[0]
        try:
            if what == "random":
                return str(ctx.uuid4())
            await ctx.wait_for_event("x")
        except ForbiddenInHandler as error:
            return str(error)
        return "?"

    @workflow
    async def lends(ctx: Context) -> list[str]:
        kept.append(ctx)
        return [await borrows("random"), await borrows("event")]

    async with engine(place, lends) as e:
        handle = await e.start(lends)
        for text in await handle.result():
            assert "outside its handler" in text
        with pytest.raises(ForbiddenInHandler, match="outside its handler"):
            await kept[0].wait_for_event("x")


async def test_a_handlers_future_cannot_be_set_from_outside(place: Place) -> None:
    futures: list[asyncio.Future[int]] = []

    @workflow
    async def waits(ctx: Context) -> int:
        futures.append(asyncio.get_running_loop().create_future())
        return await futures[-1]

    async with engine(place, waits) as e:
        await e.start(waits, id="r")
        with pytest.raises(ForbiddenInHandler, match="send it a signal instead"):
            futures[0].set_result(1)
    async with engine(place, waits) as e:
        await e.cancel("r")
        with pytest.raises(RunCancelled):
            await (await e.get("r")).result()
