"""Undoing what a run did, on failure and on cancel: in reverse, from arguments in the log."""

import asyncio
from typing import Any

import pytest

from refold import ConfigurationError, Context, step, workflow
from refold.events import types as t
from tests.engine.bookings import (
    book,
    books,
    broken,
    done,
    end,
    note,
    unbook,
    undone,
)
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting

pytestmark = pytest.mark.anyio

gate = asyncio.Event()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    global gate
    done.clear()
    broken.clear()
    gate = asyncio.Event()


# ---- when, and in which order


async def test_a_failed_run_is_undone_in_reverse_with_arguments_and_results(place: Place) -> None:
    """D10."""
    async with engine(place, books) as e:
        handle = await e.start(books, "flight", "hotel", "nothing")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensated)
        assert (ending.because, ending.error and ending.error.message) == (
            "failed", "step book#3 failed: RuntimeError: sold out",
        )  # fmt: skip
        (started,) = of(handle, t.CompensationStarted)
        assert (started.because, started.steps) == ("failed", ("book#2", "book#1"))
    assert done == ["flight", "hotel", "nothing", "unhotel:hotel booked", "unflight:flight booked"]


async def test_undos_are_recorded_as_steps_of_their_own_kind(place: Place) -> None:
    async with engine(place, books) as e:
        handle = await e.start(books, "flight", "nothing")
        await end(e, handle)
        (undo,) = [event for event in of(handle, t.StepScheduled) if event.undoes]
        assert (undo.kind, undo.name, undo.key, undo.undoes) == (
            "compensation", "unbook", "unbook#1", "book#1",
        )  # fmt: skip
        assert undo.compensate == ""
        assert [event.compensate for event in of(handle, t.StepScheduled)[:2]] == ["unbook"] * 2
        assert tags(handle)[-5:] == [
            "step.scheduled", "step.started", "step.completed", "step.compensated", "run.compensated",
        ]  # fmt: skip


async def test_the_order_is_that_of_completion_not_of_the_calls(place: Place) -> None:
    """D10."""
    order: list[str] = []
    turns = [asyncio.Event() for _ in range(3)]

    @step
    async def undo(place: int) -> None:
        order.append(f"undo {place}")

    @step(compensate=undo)
    async def do(place: int) -> None:
        await turns[place].wait()
        order.append(f"do {place}")
        if place < 2:
            turns[place + 1].set()

    @workflow
    async def together(ctx: Context) -> None:
        await asyncio.gather(do(2), do(0), do(1))
        raise ValueError("too late")

    turns[0].set()
    async with engine(place, together) as e:
        await end(e, await e.start(together))
    assert order == ["do 0", "do 1", "do 2", "undo 2", "undo 1", "undo 0"]


async def test_a_cancelled_run_is_undone_and_a_second_cancel_changes_nothing(place: Place) -> None:
    """D10, D12."""
    entered = asyncio.Event()

    @step
    async def slow_undo(what: str) -> None:
        entered.set()
        await gate.wait()
        done.append(f"un{what}")

    @step(compensate=slow_undo)
    async def do(what: str) -> None:
        done.append(what)

    @workflow
    async def waits(ctx: Context) -> None:
        await do("a")
        await do("b")
        await ctx.wait_for_event("never")

    async with engine(place, waits) as e:
        handle = await e.start(waits, id="r")
        await waiting(e, "r")
        await handle.cancel("no longer", by="user:ana")
        await entered.wait()
        await handle.cancel("I said stop")
        gate.set()
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensated)
        assert (ending.because, ending.error) == ("cancelled", None)
        assert len(of(handle, t.RunCancelRequested)) == 2
        assert not of(handle, t.StepCancelled)
    assert done == ["a", "b", "unb", "una"]


POLICIES: list[tuple[tuple[str, ...], str, str]] = [
    (("failure", "cancel"), "failed", "compensated"),
    (("failure", "cancel"), "cancelled", "compensated"),
    (("failure",), "failed", "compensated"),
    (("failure",), "cancelled", "cancelled"),
    (("cancel",), "failed", "failed"),
    (("cancel",), "cancelled", "compensated"),
    ((), "failed", "failed"),
    ((), "cancelled", "cancelled"),
]


@pytest.mark.parametrize(("policy", "how", "status"), POLICIES)
async def test_the_policy_says_when_a_run_undoes_by_itself(
    policy: Any, how: str, status: str, place: Place
) -> None:
    """D12."""

    @workflow(compensate_on=policy)
    async def flow(ctx: Context) -> None:
        await book("flight")
        if how == "failed":
            raise ValueError("no")
        await ctx.wait_for_event("never")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        if how == "cancelled":
            await waiting(e, "r")
            await handle.cancel()
        ending = await end(e, handle)
        assert ending.TAG.endswith(status)
        assert done == (["flight", "unflight:flight booked"] if status == "compensated" else ["flight"])


async def test_a_run_that_completes_is_not_undone(place: Place) -> None:
    """D12."""
    async with engine(place, books) as e:
        handle = await e.start(books, "flight")
        assert await handle.result() == "all booked"
        assert tags(handle)[-1] == "run.completed"
    assert done == ["flight"]


async def test_a_result_that_cannot_be_stored_is_a_failure_like_any_other(place: Place) -> None:
    @workflow
    async def unstorable(ctx: Context) -> Any:
        await book("flight")
        return float("nan")

    async with engine(place, unstorable) as e:
        ending = await end(e, await e.start(unstorable))
        assert isinstance(ending, t.RunCompensated)
        assert ending.error is not None
        assert ending.error.type == "ValueRefused"
    assert done == ["flight", "unflight:flight booked"]


async def test_a_failed_optional_step_triggers_nothing(place: Place) -> None:
    """A37, D12."""

    @step(optional=True, compensate=unbook)
    async def may_fail(what: str) -> str:
        raise RuntimeError("never mind")

    @workflow
    async def tries(ctx: Context) -> Any:
        await book("flight")
        return await may_fail("seat")

    async with engine(place, tries) as e:
        handle = await e.start(tries)
        assert await handle.result() is None
        assert of(handle, t.StepFailed)
    assert done == ["flight"]


async def test_a_step_that_a_person_skipped_is_not_undone(place: Place) -> None:
    @step(compensate=unbook)
    async def stuck(what: str) -> str:
        await asyncio.Event().wait()
        return what

    @workflow
    async def flow(ctx: Context) -> None:
        await book("flight")
        await stuck("hotel")
        raise ValueError("no")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        await seen(handle, t.StepStarted, 2)
        await e.skip_step("r", "stuck#1", "skipped")
        await end(e, handle)
        assert undone(handle) == ["book#1"]


@pytest.mark.parametrize("optional", [False, True])
async def test_items_of_a_map_are_undone_and_forgiven_like_any_step(optional: Any, place: Place) -> None:
    alarms: list[str] = []

    @step
    async def alarm(failed_step: str, failure_reason: str, retry_count: int) -> None:
        alarms.append(failed_step)

    @step(compensate=unbook, optional=optional, on_fail=alarm)  # type: ignore[untyped-decorator]
    async def booked(what: str) -> str:
        done.append(what)
        if what == "nothing":
            raise RuntimeError("sold out")
        return f"{what} booked"

    @workflow
    async def flow(ctx: Context) -> list[Any]:
        return list(await ctx.map(booked, ["flight", "hotel", "nothing"], limit=1))

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        ending = await end(e, handle)
        assert alarms == ["booked#3"]
        if optional:
            assert await handle.result() == ["flight booked", "hotel booked", None]
        else:
            assert isinstance(ending, t.RunCompensated)
            assert undone(handle) == ["booked#2", "booked#1"]


# ---- what is undone


async def test_undos_registered_in_the_handler_take_their_place_among_the_others(place: Place) -> None:
    """D10: by name, with JSON arguments in the log."""

    @workflow
    async def flow(ctx: Context) -> None:
        await book("flight")
        ctx.compensate(note, text="call the hotel")
        await book("car")
        raise ValueError("no")

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        await end(e, handle)
        (said,) = of(handle, t.CompensationRegistered)
        assert (said.name, bytes(said.args), bytes(said.kwargs)) == (
            "note", b"[]", b'{"text":"call the hotel"}',
        )  # fmt: skip
        assert undone(handle) == ["book#2", said.key, "book#1"]
        undone_steps = [row["key"] for row in handle.steps() if row["status"] == "compensated"]
        assert undone_steps == ["book#1", "book#2"]
    assert done == ["flight", "car", "uncar:car booked", "call the hotel", "unflight:flight booked"]


@step
def refund(amount: int, result: Any = "not given") -> None:
    done.append(f"refund {amount} {result}")


@step(compensate="refund")
def charge(amount: int) -> dict[str, int]:
    return {"paid": amount}


@step(compensate="no such step")
async def orphan() -> None:
    done.append("orphan")


async def test_an_undo_may_be_named_and_plain_functions_are_undone_too(place: Place) -> None:
    @workflow
    async def pays(ctx: Context) -> None:
        await charge(7)
        raise ValueError("no")

    async with engine(place, pays) as e:
        await end(e, await e.start(pays))
    assert done == ["refund 7 {'paid': 7}"]


async def test_a_name_that_no_step_has_is_refused_before_anything_is_done(place: Place) -> None:
    @workflow
    async def flow(ctx: Context) -> str:
        try:
            await orphan()
        except ConfigurationError as error:
            return str(error)
        return "?"

    async with engine(place, flow) as e:
        said = await e.run(flow)
        assert "step orphan: compensate='no such step': tests.engine.test_compensation has book" in said
    assert done == []


def test_what_is_no_step_cannot_undo() -> None:
    with pytest.raises(ConfigurationError, match="expected a @step, or the name of one"):
        step(compensate=len)  # type: ignore[call-overload]


async def test_what_still_runs_when_the_handler_fails_is_stopped_before_anything_is_undone(
    place: Place,
) -> None:
    stopped: list[str] = []

    @step(compensate=unbook)
    async def endless(what: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(what)
        return what

    @workflow
    async def flow(ctx: Context) -> None:
        await book("flight")
        beside = [asyncio.ensure_future(c) for c in (endless("car"), ctx.wait_for_event("x"), ctx.sleep(99))]
        await book("hotel")
        assert beside
        raise ValueError("no")

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        await end(e, handle)
        events = tags(handle)
        for event in ("step.cancelled", "wait.cancelled", "timer.cancelled"):
            assert events.index(event) < events.index("compensation.started")
        await until(lambda: stopped)
        assert undone(handle) == ["book#2", "book#1"]
