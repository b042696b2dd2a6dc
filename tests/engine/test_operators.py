"""Operators hold and stop runs, and say what steps came to; each act is an event with its author."""

import asyncio
from pathlib import Path

import pytest

from refold import RunCancelled
from refold.errors import ActRefused, RunEnded
from refold.events import types as t

from .kit import HandClock, Place, engine, of, seen, tags, until, waiting, work_agrees
from .shop import broken, gate, patient, ran, reset_me, restart, shop, slowly

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _afresh() -> None:
    ran.clear()
    broken.clear()
    broken.add("pay")


@pytest.fixture
def gates() -> dict[str, asyncio.Event]:
    gate.update(entered=asyncio.Event(), open=asyncio.Event())
    return gate


# ---- pause


async def test_a_paused_run_delivers_nothing_until_it_is_resumed(place: Place) -> None:
    clock = HandClock()
    async with restart(place, clock=clock) as it:
        handle = await it.start(patient, id="r")
        await waiting(it, "r")
        await handle.pause("audit", by="ana")
        await handle.signal("go", 1)
        await handle.signal("go", 2)
        assert "signal.received" not in tags(handle)
        assert tags(handle).count("cause.held") == 2
        with pytest.raises(ActRefused, match="paused already"):
            await handle.pause()
        assert (work := it.store.work("r")) is not None
        assert (work.state, work.due_at) == ("waiting", None), "it costs nothing"
        assert work_agrees(it.store)
    async with restart(place, clock=clock) as again:  # held causes are in the log
        handle = await again.get("r")
        assert await handle.resume("done", by="ana") == "resumed"
        await seen(handle, t.TimerStarted)
        clock.move(5)
        assert await handle.result(10) == [1, "reserved x", 2]
        (paused,), (resumed,) = of(handle, t.RunPaused), of(handle, t.RunResumed)
        assert (paused.by, paused.reason, resumed.by) == ("ana", "audit", "ana")
        assert work_agrees(again.store)


async def test_a_body_that_ends_while_paused_is_not_run_again(
    place: Place, gates: dict[str, asyncio.Event]
) -> None:
    async with restart(place) as it:
        handle = await it.start(slowly, id="r")
        await gates["entered"].wait()
        await handle.pause()
        gates["open"].set()
        await seen(handle, t.CauseHeld)
        assert ran == {"slow a": 1}, "the handler has not gone on"
    async with restart(place) as again:
        handle = await again.get("r")
        await handle.resume()
        assert await handle.result(10) == ["slow a", "reserved b"]
        assert ran == {"slow a": 1, "reserve b": 1}
        assert work_agrees(again.store)


async def test_a_body_cut_off_while_paused_begins_again_only_when_resumed(
    place: Place, gates: dict[str, asyncio.Event]
) -> None:
    async with restart(place, grace=0.0) as it:
        handle = await it.start(slowly, id="r")
        await gates["entered"].wait()
        await handle.pause()
    gates["open"].set()
    async with restart(place) as again:
        handle = await again.get("r")
        await again.signal("r", "wake", None)
        await seen(handle, t.CauseHeld)
        assert ran == {"slow a": 1}
        await handle.resume()
        assert await handle.result(10) == ["slow a", "reserved b"]
        assert ran["slow a"] == 2


async def test_deadlines_wait_while_paused(place: Place) -> None:
    clock = HandClock()
    async with restart(place, clock=clock) as it:
        handle = await it.start(patient, id="r")
        await handle.signal("go", 1)
        await seen(handle, t.TimerStarted)
        await handle.pause()
        clock.move(100)
        await it.signal("r", "other", None)
        assert "timer.fired" not in tags(handle)
        await handle.resume()
        await handle.signal("go", 2)
        assert await handle.result(10) == [1, "reserved x", 2]


async def test_a_paused_run_can_be_cancelled(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(patient, id="r")
        await waiting(it, "r")
        await handle.pause()
        await handle.cancel("enough", by="ana")
        with pytest.raises(RunCancelled, match="enough"):
            await handle.result(10)
        assert [e.by for e in of(handle, t.RunResumed)] == ["ana"]


# ---- terminate


async def test_terminate_ends_a_run_at_once_and_its_bodies_with_it(
    place: Place, gates: dict[str, asyncio.Event]
) -> None:
    async with restart(place) as it:
        handle = await it.start(slowly, id="r")
        await gates["entered"].wait()
        await handle.terminate("runaway", by="ana")
        with pytest.raises(RunCancelled, match="terminated: runaway"):
            await handle.result(10)
        (end,) = of(handle, t.RunTerminated)
        assert (end.by, end.open) == ("ana", (1,))
        with pytest.raises(RunEnded, match="terminated"):
            await handle.terminate()
        await until(lambda: not it.worker.live)
        assert work_agrees(it.store)


async def test_acts_from_another_process_reach_the_owner(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with restart(url) as it, restart(url, execute=False) as outside:
        handle = await it.start(patient, id="r")
        await waiting(it, "r")
        await outside.pause("r", by="ben")
        await seen(handle, t.RunPaused)
        await outside.resume("r", by="ben")
        await seen(handle, t.RunResumed)
        await outside.set_attributes("r", {"vip": True}, by="ben")
        (changed,) = await seen(handle, t.AttributesChanged)
        assert changed.attributes == {"vip": True}
        await outside.resume("r", by="ben")  # refused by the owner, and said so
        (skipped,) = await seen(handle, t.InboxSkipped)
        assert "not paused" in skipped.reason
        await outside.terminate("r", "enough", by="ben")
        with pytest.raises(RunCancelled, match="enough"):
            await handle.result(10)
        assert [e.by for e in of(handle, t.RunTerminated)] == ["ben"]


async def test_a_run_that_nobody_can_execute_can_still_be_terminated(place: Place) -> None:
    async with restart(place) as it:
        await it.start(patient, id="r")
        await waiting(it, "r")
    async with engine(place, shop) as other:  # it does not know `patient`
        await other.signal("r", "go", 1)
        await until(lambda: "r" in other.worker.blocked)
        handle = await other.get("r")
        await handle.terminate("gone", by="ana")
        with pytest.raises(RunCancelled, match="gone"):
            await handle.result(10)
        (end,) = of(handle, t.RunTerminated)
        assert end.open == (1,), "the wait that was open"
        assert work_agrees(other.store)


# ---- steps by hand


async def test_a_step_can_be_skipped_with_a_result(place: Place, gates: dict[str, asyncio.Event]) -> None:
    async with restart(place) as it:
        handle = await it.start(slowly, id="r")
        await gates["entered"].wait()
        with pytest.raises(ActRefused, match="open steps: slow#1"):
            await handle.skip_step("slow#2", "x")
        with pytest.raises(ActRefused, match="result for step slow#1"):
            await handle.skip_step("slow#1", 3)
        await handle.skip_step("slow#1", "by hand", reason="it hangs", by="ana")
        assert await handle.result(10) == ["by hand", "reserved b"]
        (skipped,) = of(handle, t.StepSkipped)
        assert (skipped.by, skipped.reason) == ("ana", "it hangs")
        assert "step.completed" not in tags(handle)[: tags(handle).index("step.skipped")]
    async with restart(place) as again:
        assert await (await again.get("r")).result(10) == ["by hand", "reserved b"]


async def test_a_step_can_be_reset_while_the_run_goes_on(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(reset_me, id="r")
        await until(lambda: (work := it.store.work("r")) is not None and work.state == "waiting")
        assert ran == {"reserve one": 1, "reserve two": 1}
        await until(lambda: it.worker.live["r"].idle)
        await handle.reset_step("reserve#1", reason="wrong shelf", by="ana")
        await until(lambda: ran["reserve two"] == 2)
        await handle.signal("go", "now")
        assert await handle.result(10) == ["reserved one", "reserved two", "now"]
        assert ran == {"reserve one": 2, "reserve two": 2}
        (rewound,) = of(handle, t.RunRewound)
        assert (rewound.verb, rewound.by, rewound.reason) == ("reset", "ana", "wrong shelf")
        assert [e.key for e in of(handle, t.StepScheduled)] == ["reserve#1", "reserve#2", "reserve#3"]
        assert work_agrees(it.store)
