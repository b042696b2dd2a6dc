"""Undoing what a run did: on failure, on cancel and by hand; in reverse, each once, ending honestly."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from refold import ConfigurationError, Context, Engine, Handle, Retry, step, workflow
from refold.engine import compensation
from refold.events import types as t
from refold.events.errors import ActRefused
from tests.engine.children import SETTINGS, child, lines_until
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting
from tests.engine.sagas import WORKFLOWS, effects

pytestmark = pytest.mark.anyio

done: list[str] = []
broken: set[str] = set()
"""Undos that fail now."""
gate = asyncio.Event()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    global gate
    done.clear()
    broken.clear()
    gate = asyncio.Event()


@step
async def unbook(what: str, price: int = 0, *, result: str) -> None:
    done.append(f"un{what}:{result}")
    if what in broken:
        raise RuntimeError(f"{what} cannot be undone")


@step(compensate=unbook)
async def book(what: str, price: int = 0) -> str:
    done.append(what)
    if what == "nothing":
        raise RuntimeError("sold out")
    return f"{what} booked"


@step
async def note(text: str) -> None:
    done.append(text)


@workflow
async def books(ctx: Context, *what: str) -> str:
    for one in what:
        await book(one, price=1)
    return "all booked"


@workflow(name="by_hand", compensate_on=())
async def by_hand(ctx: Context, *what: str) -> str:
    for one in what:
        await book(one)
    return "all booked"


@workflow
async def books_and_waits(ctx: Context, *what: str) -> Any:
    for one in what:
        await book(one)
    return await ctx.wait_for_event("go")


FLOWS = (books, by_hand, books_and_waits)


async def end(e: Engine, handle: Handle[Any], count: int = 1) -> Any:
    """The run's `count`-th end, and that its whole history replays."""
    await until(lambda: len(of(handle, *t.ENDS)) >= count)
    work = e.store.work(handle.id)
    assert work is not None
    assert (work.state, work.status) == ("done", of(handle, *t.ENDS)[-1].TAG.removeprefix("run."))
    return of(handle, *t.ENDS)[-1]


def undone(handle: Handle[Any]) -> list[str]:
    return [event.key for event in of(handle, t.StepCompensated)]


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
    assert done == ["flight", "hotel", "nothing", "unhotel:hotel booked", "unflight:flight booked"]
    (started,) = of_place(place, handle.id, t.CompensationStarted)
    assert (started.because, started.steps) == ("failed", ("book#2", "book#1"))


def of_place(place: Place, run_id: str, kind: type[t.Event]) -> list[Any]:
    """The run's events of a kind, from the log alone."""
    from refold.events.open import open_store

    store = open_store(place) if isinstance(place, str) else place
    try:
        return [event for row in store.read(run_id) if isinstance(event := row.event(), kind)]
    finally:
        if isinstance(place, str):
            store.close()


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


# ---- when an undo fails


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
        act = e.retry("r") if how == "retry" else e.reset_step("r", "do#2")
        with pytest.raises(ActRefused, match="has been undone since then"):
            await act
        gate.set()
        await until(lambda: of(handle, *t.ENDS))
    assert done == ["a", "b", "unb", "una"]


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


# ---- kill -9


async def test_killed_in_the_middle_of_undoing_every_undo_happens_and_in_reverse(tmp_path: Path) -> None:
    """D10: after kill -9 and a cancel from another process."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("trip", url, tmp_path, module="tests.engine.sagas") as process:
        lines_until(process, "waiting")
        async with Engine(url, execute=False, workflows=WORKFLOWS) as outside:
            await outside.cancel("r", "from another process", by="ana")
        lines_until(process, "marked unb")
        process.kill()
        process.wait()
    (tmp_path / "go-unb").touch()
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
        handle = await e.get("r")
        ending = await end(e, handle)
        assert isinstance(ending, t.RunCompensated)
        assert undone(handle) == ["act#3", "act#2", "act#1"]
        assert [event.reason for event in of(handle, t.StepInterrupted)] == ["crash"]
        assert e.verify().problems == ()
    assert effects(tmp_path) == ["a", "b", "c", "unc", "unb", "unb", "una"], "the cut-off one again, no other"
