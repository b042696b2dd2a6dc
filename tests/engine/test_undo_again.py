"""Undoing when an undo fails, by hand, over restarts and kill -9: each once, ending honestly."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, Handle, Retry, RunFailed, step, workflow
from refold.engine import compensation
from refold.events import types as t
from refold.events.errors import ActRefused
from tests.engine.bookings import (
    FLOWS,
    book,
    books,
    books_and_waits,
    broken,
    done,
    end,
    note,
    undone,
)
from tests.engine.children import SETTINGS, child, lines_until
from tests.engine.kit import HandClock, Place, engine, of, seen, until, waiting
from tests.engine.sagas import WORKFLOWS, effects, undo_forwards

pytestmark = pytest.mark.anyio

gate = asyncio.Event()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    global gate
    done.clear()
    broken.clear()
    gate = asyncio.Event()


async def test_one_undo_that_fails_does_not_stop_the_others_and_the_run_says_so(place: Place) -> None:
    """D11."""
    broken.add("hotel")
    async with engine(place, *FLOWS) as e:
        handle = await e.start(books, "flight", "hotel", "car", "nothing")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensationFailed)
        assert ending.failed == ("book#2",)
        assert undone(handle) == ["book#3", "book#1"]


@pytest.mark.parametrize("restart", [False, True])
async def test_retry_undoes_exactly_what_is_not_undone_and_nothing_twice(restart: bool, place: Place) -> None:
    """D11."""
    broken.update({"flight", "car"})
    async with engine(place, *FLOWS) as e:
        handle = await e.start(books, "flight", "hotel", "car", "nothing", id="r")
        await end(e, handle)
        if not restart:
            await _retry_twice(e, handle)
    if restart:
        async with engine(place, *FLOWS) as e:
            await _retry_twice(e, await e.get("r"))
    calls = [what.partition(":")[0] for what in done[4:]]
    assert calls == ["uncar", "unhotel", "unflight", "uncar", "unflight", "uncar"]


async def _retry_twice(e: Engine, handle: Handle[Any]) -> None:
    broken.remove("flight")
    await e.retry("r", by="ana")
    ending = await end(e, handle, 2)
    assert isinstance(ending, t.RunCompensationFailed)
    assert ending.failed == ("book#3",)
    broken.remove("car")
    await e.retry("r")
    ending = await end(e, handle, 3)
    assert isinstance(ending, t.RunCompensated)
    assert ending.because == "failed"
    assert [started.steps for started in of(handle, t.CompensationStarted)] == [
        ("book#3", "book#2", "book#1"), ("book#3", "book#1"), ("book#3",),
    ]  # fmt: skip
    with pytest.raises(ActRefused):
        await e.retry("r")
    with pytest.raises(ActRefused):
        await e.compensate("r")


async def test_control_an_engine_that_forgets_what_is_undone_undoes_it_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above would see it."""
    monkeypatch.setattr(compensation, "left", lambda run: list(reversed(run.undos)))
    broken.add("flight")
    async with engine(place, *FLOWS) as e:
        handle = await e.start(books, "flight", "hotel", "nothing", id="r")
        await end(e, handle)
        broken.clear()
        await e.retry("r")
        await end(e, handle, 2)
    assert sum(what.startswith("unhotel") for what in done) == 2


async def test_an_undo_has_the_retries_and_the_failure_step_of_its_own(place: Place) -> None:
    tries = itertools.count(1)

    @step
    async def alarm(failed_step: str, failure_reason: str, retry_count: int) -> None:
        done.append(f"{failed_step}: {failure_reason} ({retry_count})")

    @step(retry=Retry(max_attempts=3, initial_interval=0.001), on_fail=alarm, optional=True)
    async def stubborn(what: str) -> None:
        if next(tries) < 5:
            raise RuntimeError("not yet")

    @step(compensate=stubborn)
    async def do(what: str) -> None:
        pass

    @workflow
    async def flow(ctx: Context) -> None:
        await do("a")
        await do("b")
        raise ValueError("no")

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensationFailed), (
            "optional or not, what is not undone is not undone"
        )
        assert ending.failed == ("do#2",)
        assert undone(handle) == ["do#1"]
    assert done == ["stubborn#1: RuntimeError: not yet (2)"]


# ---- by hand


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_a_run_that_has_ended_can_be_undone_by_hand(how: str, restart: bool, place: Place) -> None:
    """D12: manual."""

    @workflow(compensate_on=())
    async def flow(ctx: Context) -> str:
        await book("flight")
        await book("hotel")
        if how == "failed":
            raise ValueError("no")
        if how == "cancelled":
            await ctx.wait_for_event("never")
        return "yes"

    async def undo(e: Engine) -> None:
        handle = await e.get("r")
        await e.compensate("r", reason="changed our mind", by="ana")
        ending = await end(e, handle, 2)
        assert isinstance(ending, t.RunCompensated)
        assert ending.because == how
        assert (ending.error is not None) is (how == "failed")
        assert undone(handle) == ["book#2", "book#1"]
        (reopened,) = of(handle, t.RunReopened)
        assert (reopened.by, reopened.reason) == ("ana", "changed our mind")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        if how == "cancelled":
            await waiting(e, "r")
            await handle.cancel()
        assert (await end(e, handle)).TAG.endswith(how)
        if not restart:
            await undo(e)
    if restart:
        async with engine(place, flow) as e:
            await undo(e)
    assert done == ["flight", "hotel", "unhotel:hotel booked", "unflight:flight booked"]


async def test_a_run_that_goes_on_is_stopped_and_undone_whatever_its_policy(place: Place) -> None:
    @workflow(compensate_on=())
    async def flow(ctx: Context) -> None:
        await book("flight")
        await ctx.wait_for_event("never")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        await waiting(e, "r")
        await e.compensate("r", by="ana")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensated)
        assert ending.because == "cancelled"
    assert done == ["flight", "unflight:flight booked"]


async def test_a_run_without_anything_to_undo_that_is_to_be_undone_is_just_cancelled(place: Place) -> None:
    @workflow
    async def flow(ctx: Context) -> None:
        await ctx.wait_for_event("never")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        await waiting(e, "r")
        await e.compensate("r", reason="mistake")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCancelled)
        assert ending.reason == "mistake"
        with pytest.raises(ActRefused):
            await e.compensate("r")


async def test_a_run_with_nothing_to_undo_refuses_by_hand(place: Place) -> None:
    @workflow
    async def flow(ctx: Context) -> None:
        await note("x")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        await handle.result()
        with pytest.raises(ActRefused, match="nothing to undo"):
            await e.compensate("r")


@pytest.mark.parametrize("how", ["retry", "reset"])
async def test_a_run_does_not_go_back_to_before_what_has_been_undone(how: str, place: Place) -> None:
    """It would take for done what is undone."""

    @step
    async def slow_undo(what: str) -> None:
        done.append(f"un{what}")
        if what == "a":
            await gate.wait()

    @step(compensate=slow_undo)
    async def do(what: str) -> None:
        done.append(what)

    @workflow
    async def flow(ctx: Context) -> None:
        await do("a")
        await do("b")
        raise ValueError("no")

    async with engine(place, flow) as e:
        handle = await e.start(flow, id="r")
        await until(lambda: "una" in done)
        if how == "retry":
            await e.terminate("r")
            await until(lambda: of(handle, *t.ENDS))
        act = e.retry("r", keep=False) if how == "retry" else e.reset_step("r", "do#2")
        with pytest.raises(ActRefused, match="has been undone since then"):
            await act
        gate.set()
        await until(lambda: of(handle, *t.ENDS))
    assert done == ["a", "b", "unb", "una"]


async def test_a_paused_run_that_is_to_be_undone_is_resumed_for_it(place: Place) -> None:
    async with engine(place, *FLOWS) as e:
        handle = await e.start(books_and_waits, "flight", id="r")
        await waiting(e, "r")
        await e.pause("r")
        await e.compensate("r")
        assert isinstance(await end(e, handle), t.RunCompensated)
        with pytest.raises(RunFailed, match=r"^run 'r' is compensated$"):
            await handle.result()
    assert done == ["flight", "unflight:flight booked"]


async def test_a_fork_does_not_take_for_done_what_has_been_undone(place: Place) -> None:
    async with engine(place, *FLOWS) as e:
        handle = await e.start(books, "flight", "nothing", id="r")
        await end(e, handle)
        with pytest.raises(ActRefused, match="book#1 has been undone"):
            await e.fork("r")
        fork = await e.get(await e.fork("r", at=1, id="again"))
        assert isinstance(await end(e, fork), t.RunCompensated)
    assert done == ["flight", "nothing", "unflight:flight booked"] * 2


# ---- restarts


async def test_a_shutdown_in_the_middle_of_undoing_goes_on_where_it_was(place: Place) -> None:
    """Each undone once, although the engine is restarted in the middle of every undo."""
    undoing: list[str] = []

    @step
    async def slow_undo(what: str) -> None:
        undoing.append(what)
        await gate.wait()
        done.append(f"un{what}")

    @step(compensate=slow_undo)
    async def do(what: str) -> None:
        done.append(what)

    @workflow
    async def flow(ctx: Context) -> None:
        for what in "abc":
            await do(what)
        raise ValueError("no")

    for number in range(3):
        async with engine(place, flow, grace=0) as e:
            handle = await e.start(flow, id="r")
            await until(lambda number=number: len(undoing) > number)  # type: ignore[misc]
    gate.set()
    async with engine(place, flow) as e:
        handle = await e.get("r")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensated)
        assert len(of(handle, t.CompensationStarted)) == 1
    assert done == ["a", "b", "c", "unc", "unb", "una"]


async def test_an_evicted_run_is_undone_from_its_log(place: Place) -> None:
    async with engine(place, books_and_waits, memory_bytes=0) as e:
        handle = await e.start(books_and_waits, "flight", "hotel", id="r")
        await waiting(e, "r")
        assert "r" not in e.worker.live
        await handle.cancel()
        assert isinstance(await end(e, handle), t.RunCompensated)
    assert done == ["flight", "hotel", "unhotel:hotel booked", "unflight:flight booked"]


async def test_a_run_that_waits_to_try_an_undo_again_needs_no_memory(place: Place) -> None:
    clock, tries = HandClock(), list[int]()

    @step(retry=Retry(max_attempts=3, initial_interval=3600, backoff=1, max_interval=3600, jitter=0))
    async def undo() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("not yet")

    @step(compensate=undo)
    async def do() -> None:
        pass

    @workflow
    async def flow(ctx: Context) -> None:
        await do()
        raise ValueError("no")

    async with engine(place, flow, clock=clock, memory_bytes=0) as e:
        handle = await e.start(flow, id="r")
        for count in (1, 2):
            await seen(handle, t.StepAttemptFailed, count)
            await until(lambda: "r" not in e.worker.live)
            clock.move(3601)
        assert isinstance(await end(e, handle), t.RunCompensated)
    assert len(tries) == 3


# ---- kill -9


@pytest.mark.parametrize("cheat", ["", "forwards"])
async def test_killed_in_the_middle_of_undoing_every_undo_happens_and_in_reverse(
    cheat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D10: after kill -9 and a cancel from another process; a sabotaged engine is seen to do it wrongly."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("trip", url, tmp_path, cheat, module="tests.engine.sagas") as process:
        lines_until(process, "waiting")
        async with Engine(url, execute=False, workflows=WORKFLOWS) as outside:
            await outside.cancel("r", "from another process", by="ana")
        lines_until(process, "marked unb")
        process.kill()
        process.wait()
    (tmp_path / "go-unb").touch()
    monkeypatch.setattr(compensation, "left", compensation.left)
    if cheat:
        undo_forwards()
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
        handle = await e.get("r")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensated)
        assert [event.reason for event in of(handle, t.StepInterrupted)] == ["crash"]
        assert e.verify().problems == ()
        right = undone(handle) == ["act#3", "act#2", "act#1"]
    right = right and effects(tmp_path) == ["a", "b", "c", "unc", "unb", "unb", "una"]
    assert right is (not cheat), "the cut-off one again, no other"
