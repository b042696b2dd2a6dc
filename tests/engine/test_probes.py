"""Probes: what a cut-off attempt did is found out, and a person asked only when it cannot be."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refold import (
    ConfigurationError,
    Context,
    Engine,
    Happened,
    NotHappened,
    StepFailed,
    step,
    workflow,
)
from refold.engine.bodies import current_step
from refold.events import types as t
from refold.events.errors import StepInterrupted
from tests.engine.children import SETTINGS, child, lines_until
from tests.engine.doubtful import cut_off, in_doubt
from tests.engine.kit import Place, engine, of, seen, waiting, work_agrees
from tests.engine.sagas import WORKFLOWS, effects

pytestmark = pytest.mark.anyio

calls: list[int] = []
"""Number of each attempt that began."""
asked: list[tuple[Any, ...]] = []
"""What the probe was called with."""
answers: list[Any] = []
"""What the probe says next: a value, an error to raise, or a function to call."""
hangs = True


@pytest.fixture(autouse=True)
def _afresh() -> None:
    global hangs
    hangs = True
    for kept in (calls, asked, answers):
        kept.clear()


async def was_sent(cents: int) -> Any:
    asked.append((cents, current_step().idempotency_key))
    answer = answers.pop(0)
    if callable(answer):
        answer = answer()
    if isinstance(answer, Exception):
        raise answer
    return answer


@step(execution="at_most_once", probe=was_sent)
async def wire_probed(cents: int) -> str:
    calls.append(current_step().attempt)
    if hangs:
        await asyncio.Event().wait()
    return f"sent {cents}"


@workflow
async def pays_probed(ctx: Context) -> str:
    try:
        return await wire_probed(5)
    except StepFailed as error:
        return f"{type(error).__name__}: {error.message}"


async def probed(place: Place, *said: Any) -> Any:
    """The result after one crash in the middle of the step, and what the probe came to."""
    answers.extend(said)
    await cut_off(place, pays_probed, calls)
    async with engine(place, pays_probed) as e:
        handle = await e.get("r")
        result = await handle.result()
        return result, [(event.outcome, event.attempt) for event in of(handle, t.StepProbed)]


async def test_what_has_happened_is_not_done_again(place: Place) -> None:
    result, events = await probed(place, Happened("sent already"))
    assert (result, events) == ("sent already", [("happened", 1)])
    assert calls == [1]
    assert asked == [(5, "r/wire_probed#1")]


async def test_what_has_not_happened_is_done_although_it_may_be_attempted_only_once(place: Place) -> None:
    def not_happened() -> NotHappened:
        global hangs
        hangs = False
        return NotHappened()

    result, events = await probed(place, not_happened)
    assert (result, events) == ("sent 5", [("not_happened", 1)])
    assert calls == [1, 2]


NOT_KNOWN: list[tuple[Any, str]] = [
    (None, ""),
    (ConnectionError("the bank is closed"), "ConnectionError"),
    ("perhaps", "ConfigurationError"),
    (Happened(7), "ValueRefused"),
]


@pytest.mark.parametrize(("answer", "error"), NOT_KNOWN, ids=repr)
async def test_what_the_probe_cannot_tell_a_person_has_to(answer: Any, error: str, place: Place) -> None:
    answers.append(answer)
    await cut_off(place, pays_probed, calls)
    async with engine(place, pays_probed) as e:
        handle = await in_doubt(e)
        (event,) = of(handle, t.StepProbed)
        assert (event.outcome, event.error.type if event.error else "") == ("unknown", error)
        await e.resolve_step("r", "wire_probed#1", "completed", "so be it")
        assert await handle.result() == "so be it"
    assert calls == [1]


@pytest.mark.parametrize("policy", ["retry", "fail"])
async def test_or_its_options_say_what_then(policy: Any, place: Place) -> None:
    def unknown(number: int) -> None:
        asked.append((number,))

    @step(probe=unknown, on_unknown=policy)
    async def does(number: int) -> str:
        calls.append(number)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "done"

    @workflow
    async def flow(ctx: Context) -> str:
        try:
            return await does(7)
        except StepInterrupted:
            return "interrupted"

    await cut_off(place, flow, calls)
    async with engine(place, flow) as e:
        handle = await e.get("r")
        assert await handle.result() == ("done" if policy == "retry" else "interrupted")
        assert [event.outcome for event in of(handle, t.StepProbed)] == ["unknown"]
    assert asked == [(7,)], "a `def` probe runs in a thread"


async def test_a_probe_that_is_cut_off_is_asked_again(place: Place) -> None:
    begun = asyncio.Event()

    def for_ever() -> Any:
        begun.set()
        raise asyncio.CancelledError

    async def hangs_once(cents: int) -> Any:
        asked.append((cents,))
        if len(asked) == 1:
            begun.set()
            await asyncio.Event().wait()
        return Happened("found out")

    @step(execution="at_most_once", probe=hangs_once)
    async def wires(cents: int) -> str:
        calls.append(1)
        return str(await asyncio.Event().wait())

    @workflow
    async def flow(ctx: Context) -> str:
        return await wires(5)

    await cut_off(place, flow, calls)
    async with engine(place, flow, grace=0) as e:
        await begun.wait()
        assert work_agrees(e.store)
    async with engine(place, flow) as e:
        handle = await e.get("r")
        assert await handle.result() == "found out"
        assert len(of(handle, t.StepInterrupted)) == 1, "a probe is no attempt"
        assert len(of(handle, t.StepProbed)) == 1
        assert len(of(handle, t.StepReleased)) == 0
    assert len(calls) == 1


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_probe_has_the_steps_timeout(threaded: bool, place: Place) -> None:
    late = threading.Event()

    async def endless(cents: int) -> Any:
        await asyncio.Event().wait()

    def endless_thread(cents: int) -> Any:
        late.wait(20)
        return Happened("too late")

    @step(execution="at_most_once", probe=endless_thread if threaded else endless, timeout=0.05)
    async def wires(cents: int) -> str:
        calls.append(1)
        return str(await asyncio.Event().wait())

    @workflow
    async def flow(ctx: Context) -> str:
        return await wires(5)

    await cut_off(place, flow, calls)
    async with engine(place, flow) as e:
        handle = await in_doubt(e)
        (event,) = of(handle, t.StepProbed)
        assert event.error is not None
        assert event.error.message == "the probe took longer than 0.05 s"
        late.set()
        await e.resolve_step("r", "wires#1", "completed", "x")
        assert await handle.result() == "x"


async def test_a_step_that_is_skipped_while_it_is_probed_is_skipped(place: Place) -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def endless(cents: int) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.set()

    @step(execution="at_most_once", probe=endless)
    async def wires(cents: int) -> str:
        calls.append(1)
        return str(await asyncio.Event().wait())

    @workflow
    async def flow(ctx: Context) -> str:
        return f"{await wires(5)} {await ctx.wait_for_event('go')}"

    await cut_off(place, flow, calls)
    async with engine(place, flow) as e:
        handle = await e.get("r")
        await begun.wait()
        await e.skip_step("r", "wires#1", "never mind")
        await told.wait()
        await waiting(e, "r")
        await handle.signal("go", 1)
        assert await handle.result() == "never mind 1"
        assert not of(handle, t.StepProbed, t.StepInDoubt)


@pytest.mark.parametrize("answer", [Happened("x"), NotHappened(), None], ids=repr)
async def test_a_run_paused_while_it_is_probed_goes_on_when_it_is_resumed(answer: Any, place: Place) -> None:
    global hangs
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly(cents: int) -> Any:
        asked.append((cents,))
        begun.set()
        await gate.wait()
        return answer

    @step(execution="at_most_once", probe=slowly)
    async def wires(cents: int) -> str:
        calls.append(1)
        if hangs:
            await asyncio.Event().wait()
        return "sent"

    @workflow
    async def flow(ctx: Context) -> str:
        return await wires(5)

    await cut_off(place, flow, calls)
    hangs = False
    async with engine(place, flow) as e:
        handle = await e.get("r")
        await begun.wait()
        await e.pause("r")
        gate.set()
        await seen(handle, t.StepProbed)
        assert not of(handle, t.StepCompleted, t.StepInDoubt)
        assert len(calls) == 1
        await e.resume("r")
        if answer is None:
            await seen(handle, t.StepInDoubt)
            await e.resolve_step("r", "wires#1", "completed", "x")
        assert await handle.result() == ("sent" if isinstance(answer, NotHappened) else "x")


def test_a_probe_must_be_a_function() -> None:
    with pytest.raises(ConfigurationError, match="expected a function"):
        step(probe="no")  # type: ignore[call-overload]


# ---- kill -9


WAYS: list[tuple[str, Callable[[Path], None], list[str], str]] = [
    ("happened", lambda folder: None, ["pay"], "paid before"),
    ("not_happened", lambda folder: (folder / "effects").unlink(), ["pay"], "paid"),
]


@pytest.mark.parametrize(("outcome", "then", "effect", "result"), WAYS, ids=lambda value: str(value)[:12])
async def test_killed_in_mid_effect_a_probe_finds_out_whether_it_happened(
    outcome: str, then: Callable[[Path], None], effect: list[str], result: str, tmp_path: Path
) -> None:
    """C03: the effect is the file; in one of the cases it is lost with the process."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("payment", url, tmp_path, module="tests.engine.sagas") as process:
        lines_until(process, "marked pay")
        process.kill()
        process.wait()
    then(tmp_path)
    (tmp_path / "go-pay").touch()
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
        handle = await e.get("r")
        assert await handle.result() == result
        assert [event.outcome for event in of(handle, t.StepProbed)] == [outcome]
        assert e.verify().problems == ()
    assert effects(tmp_path) == effect
