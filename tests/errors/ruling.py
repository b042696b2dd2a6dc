"""Handlers that break a rule, and runs that nobody here can go on with."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from refold import (
    Context,
    StepFailed,
    step,
    workflow,
)
from refold.engine import guard
from refold.engine.loop import Loop
from refold.engine.recovery import Recovery
from refold.engine.run import Run
from refold.errors import AppendRefused
from refold.events import types as t
from refold.events.memory import MemoryStore
from tests.engine.kit import HandClock, engine, waiting
from tests.errors.cases import Said, in_handler, meets
from tests.errors.handling import charge, one, waits


@meets(
    "HandlerStuck",
    "run …: the handler ran … callbacks without waiting for …",
)
async def a_handler_that_never_waits(folder: Path) -> None:
    @workflow
    async def busy(ctx: Context) -> None:
        while True:  # noqa: ASYNC110 - that is the fault
            await asyncio.sleep(0)

    with mock.patch.object(Loop, "MAX_CALLBACKS", 100):
        async with engine("memory://", busy) as e:
            await e.run(busy)


@meets(
    "NonDeterminismError",
    "run …: replay diverged at … log has … now asks … put the code …",
)
async def other_code(folder: Path) -> None:
    await changed(lambda ctx: charge(1), lambda ctx: charge(2))


async def changed(before: Any, after: Any, was: tuple[Any, ...] = (), now: tuple[Any, ...] = ()) -> None:
    """Run a handler up to a wait, then another one in its place."""
    code = [before]

    @workflow
    async def shop(ctx: Context) -> None:
        await code[0](ctx)
        await ctx.wait_for_event("paid")

    store, clock = MemoryStore(), HandClock()
    async with engine(store, shop, *was, clock=clock) as e:
        run = await e.start(shop, id="r")
        await waiting(e, "r")
    code[0] = after
    async with engine(store, shop, *now, clock=clock) as e:
        await e.signal("r", "paid")
        await (await e.get(run.id)).result()


@meets(
    "NonDeterminismError",
    "run … step …: …. The step's return type changed since the run …",
)
async def another_return_type(folder: Path) -> None:
    @step(name="quote")
    async def text() -> str:
        return "ten"

    @step(name="quote")
    async def number() -> int:
        return 10

    await changed(lambda ctx: text(), lambda ctx: number())


@meets("NonDeterminismError", "run …: …. The return type of …")
async def another_return_type_of_a_child(folder: Path) -> None:
    @workflow(name="quoted")
    async def text(ctx: Context) -> str:
        return "ten"

    @workflow(name="quoted")
    async def number(ctx: Context) -> int:
        return 10

    await changed(lambda ctx: ctx.child(text), lambda ctx: ctx.child(number), (text,), (number,))


@meets(
    "ForbiddenInHandler",
    "run …: ctx.random was used outside its handler, no replay …",
)
async def chance_in_a_step(folder: Path) -> Said:
    found: list[Said] = []

    async def draw(ctx: Context) -> None:
        try:
            await ctx.call(lambda: ctx.random.random())
        except StepFailed as error:
            found.append(Said(error.type, error.message))
            raise

    await in_handler(draw)
    return found[0]


@meets(
    "ForbiddenInHandler",
    "run …: `ctx` or a step was used outside its handler; send the …",
)
async def the_context_in_a_step(folder: Path) -> Said:
    found: list[Said] = []

    async def pause(ctx: Context) -> None:
        async def body() -> None:
            await ctx.child(one)

        try:
            await ctx.call(body)
        except StepFailed as error:
            found.append(Said(error.type, error.message))
            raise

    await in_handler(pause)
    return found[0]


@meets(
    "ForbiddenInHandler",
    "run …: something of its handler was touched from outside of …",
)
async def an_event_set_from_outside(folder: Path) -> None:
    made: list[asyncio.Event] = []

    @workflow
    async def waits_for_it(ctx: Context) -> None:
        made.append(asyncio.Event())
        await made[0].wait()

    async with engine("memory://", waits_for_it) as e:
        await e.start(waits_for_it, id="r")
        await waiting(e, "r")
        made[0].set()


@meets("ForbiddenInHandler", "…() in a handler, at …:…: …")
async def a_clock_in_a_handler(folder: Path) -> Said:
    def reads_the_clock(ctx: Context) -> None:
        code = reads_the_clock.__code__
        guard._on_call(code, 0, time.time, None)  # what `sys.monitoring` calls, from Python 3.12 on

    return await in_handler(reads_the_clock)


@meets(
    "HandlerError",
    "run …: workflow … version … is not registered: no engine here …",
)
async def nobody_has_the_workflow(folder: Path) -> None:
    await without_code()


@meets(
    "HandlerError",
    "run …: workflow … version … is not registered: this engine …",
)
async def nobody_has_the_version(folder: Path) -> None:
    await without_code(workflow(name="waits", version="2")(waits.fn))


async def without_code(*others: Any) -> None:
    store = MemoryStore()
    async with engine(store, waits, execute=False) as outside:
        await outside.start(waits, id="r")
    async with engine(store, *others) as e:
        await (await e.get("r")).result()


@meets("HandlerError", "run …: … while its handler ran: …")
async def something_nobody_thought_of(folder: Path) -> None:
    async with engine("memory://", waits) as e:
        run = await e.start(waits, id="r")
        await waiting(e, "r")
        with mock.patch.object(Run, "activate", side_effect=ZeroDivisionError("by zero")):
            await run.signal("never")
        await run.result()


@meets("HandlerError", "run …: its handler was interrupted; …")
async def a_person_interrupts_a_handler(folder: Path) -> None:
    told: list[Any] = []
    async with engine("memory://", waits) as e:
        await e.start(waits, id="r")
        await waiting(e, "r")
        live = e.worker.live["r"]
        asked = t.RunCancelRequested(**live.head())
        with (
            mock.patch.object(Run, "activate", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            live.deliver(asked, told=told.append)
    raise told[0]


@meets("HandlerStuck", "run …: append to … refused: …")
async def another_stream_is_always_in_the_way(folder: Path) -> None:
    blocked: list[Exception] = []
    keeper = SimpleNamespace(
        block=lambda run_id, error: blocked.append(error), live={}, blocked={}, has_room=False
    )
    recovery = Recovery(keeper)
    live: Any = SimpleNamespace(
        run_id="r", refusal=AppendRefused("r~1", 0, 1), alarms=mock.Mock(), run=mock.Mock()
    )
    while not blocked:
        recovery.rebuild(live)
    raise blocked[0]
