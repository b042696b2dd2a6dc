"""How a step ends when it does not just return: timeouts, cancellations, shutdowns, unknown outcomes."""

import asyncio
import threading
from typing import Any

import pytest

from refold import Context, StepFailed, current_step, step, workflow
from refold.errors import StepInterrupted, StepTimedOut
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen, tags, until

pytestmark = pytest.mark.anyio


async def test_a_step_that_takes_too_long_is_ended_and_the_handler_told(place: Place) -> None:
    """D09: the body itself ends, not only a token."""
    ended = asyncio.Event()

    @step(timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @workflow
    async def handles(ctx: Context) -> str:
        try:
            await slow()
        except StepTimedOut as error:
            return str(error)
        return "?"

    async with engine(place, handles) as e:
        handle = await e.start(handles)
        assert await handle.result() == "step slow#1 failed: StepTimedOut: attempt 1 took longer than 0.05 s"
        assert ended.is_set()
        assert of(handle, t.StepFailed)[0].error.error_class == "timed_out"


async def test_a_def_that_takes_too_long_is_left_alone_and_its_result_kept_as_evidence(place: Place) -> None:
    """D09."""
    go_on = threading.Event()

    @step(timeout=0.05)
    def slow() -> str:
        go_on.wait(30)
        return "late"

    @workflow
    async def handles(ctx: Context) -> str:
        try:
            return await slow()
        except StepTimedOut:
            await ctx.wait_for_event("go")
            return "went on"

    async with engine(place, handles) as e:
        handle = await e.start(handles)
        await seen(handle, t.StepFailed)
        go_on.set()
        await handle.signal("go")
        assert await handle.result() == "went on"


async def test_a_body_that_swallows_its_cancellation_holds_up_nobody(place: Place) -> None:
    """D09, and what it comes to after all is evidence."""
    finish = asyncio.Event()

    @step(timeout=0.05)
    async def stubborn() -> str:
        while not finish.is_set():
            try:
                await finish.wait()
            except asyncio.CancelledError:
                continue
        return "done after all"

    @workflow
    async def goes_on(ctx: Context) -> str:
        try:
            return await stubborn()
        except StepTimedOut:
            await ctx.wait_for_event("go")
            return "without it"

    async with engine(place, goes_on) as e:
        handle = await e.start(goes_on)
        await seen(handle, t.StepFailed)
        finish.set()
        (late,) = await seen(handle, t.StepLate)
        assert bytes(late.result or b"") == b'"done after all"'
        await handle.signal("go")
        assert await handle.result() == "without it"


async def test_a_cancelled_step_is_told_and_what_it_still_does_is_evidence(place: Place) -> None:
    heard = asyncio.Event()

    @step
    async def careful() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.set()
        return "cleaned up"

    @workflow
    async def gives_up(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.02):
                await careful()
        except TimeoutError:
            await ctx.wait_for_event("go")
        return "gave up"

    async with engine(place, gives_up) as e:
        handle = await e.start(gives_up)
        await heard.wait()
        await seen(handle, t.StepLate)
        await handle.signal("go")
        assert await handle.result() == "gave up"
        assert "step.cancelled" in tags(handle)


async def test_a_step_that_raises_cancelled_error_itself_has_failed(place: Place) -> None:
    @step
    async def odd() -> None:
        raise asyncio.CancelledError("of my own")

    @step
    def odd_in_a_thread() -> None:
        raise asyncio.CancelledError("of my own")

    @workflow
    async def sees(ctx: Context) -> list[str]:
        out = []
        for s in (odd, odd_in_a_thread):
            try:
                await s()
            except StepFailed as error:
                out.append(error.type)
        return out

    async with engine(place, sees) as e:
        assert await e.run(sees) == ["CancelledError", "CancelledError"]


async def test_an_attempt_cut_off_is_kept_and_repeated_with_the_same_idempotency_key(place: Place) -> None:
    """C03."""
    keys: list[tuple[str, int]] = []
    hang = True

    @step
    async def charge() -> str:
        info = current_step()
        keys.append((info.idempotency_key, info.attempt))
        if hang:
            await asyncio.Event().wait()
        return "charged"

    @workflow
    async def pays(ctx: Context) -> str:
        return await charge()

    while len(keys) < 2:
        async with engine(place, pays, grace=0) as e:
            before = len(keys)
            await e.start(pays, id="r")
            await until(lambda before=before: len(keys) > before)  # type: ignore[misc]
    hang = False
    async with engine(place, pays) as e:
        handle = await e.get("r")
        assert await handle.result() == "charged"
        assert keys == [("r/charge#1", 1), ("r/charge#1", 2), ("r/charge#1", 3)]
        assert [event.attempt for event in of(handle, t.StepInterrupted)] == [1, 2]
        assert len(of(handle, t.StepScheduled)) == 1


@pytest.mark.parametrize(
    "options", [{"execution": "at_most_once", "on_unknown": "fail"}, {"on_unknown": "fail"}]
)
async def test_a_step_that_may_not_be_repeated_fails_visibly(options: dict[str, Any], place: Place) -> None:
    """C03."""
    calls: list[int] = []

    @step(**options)  # type: ignore[untyped-decorator]  # which overload it is, nobody can know
    async def ship() -> None:
        calls.append(1)
        await asyncio.Event().wait()

    @workflow
    async def ships(ctx: Context) -> str:
        try:
            await ship()
        except StepInterrupted as error:
            return str(error)
        return "?"

    async with engine(place, ships, grace=0) as e:
        await e.start(ships, id="r")
        await until(lambda: calls)
    async with engine(place, ships) as e:
        assert "outcome is unknown" in await (await e.get("r")).result()
    assert len(calls) == 1
