"""Operators hold, stop and repair runs; each act is an event with its author, and survives a restart."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, Retry, RunCancelled, RunFailed, step, workflow
from refold.events import types as t
from refold.events.errors import ActRefused, RunEnded, RunNotFound

from .kit import HandClock, Place, engine, of, seen, tags, until, waiting, work_agrees

pytestmark = pytest.mark.anyio

ran: Counter[str] = Counter()
broken = {"pay"}


@pytest.fixture(autouse=True)
def _afresh() -> None:
    ran.clear()
    broken.clear()
    broken.add("pay")


@step
async def reserve(order: str) -> str:
    ran[f"reserve {order}"] += 1
    return f"reserved {order}"


@step
async def pay(order: str) -> str:
    ran[f"pay {order}"] += 1
    if "pay" in broken:
        raise ValueError("card declined")
    return f"paid {order}"


@step
async def ship(order: str) -> str:
    ran[f"ship {order}"] += 1
    return f"shipped {order}"


@workflow
async def shop(ctx: Context, order: str) -> list[str]:
    return [await reserve(order), await pay(order), await ship(order)]


@workflow
async def patient(ctx: Context) -> list[Any]:
    first = await ctx.wait_for_event("go")
    await asyncio.sleep(5)
    second = await ctx.wait_for_event("go")
    return [first, await reserve("x"), second]


gate: dict[str, asyncio.Event] = {}


@step
async def slow(order: str) -> str:
    ran[f"slow {order}"] += 1
    gate["entered"].set()
    await gate["open"].wait()
    return f"slow {order}"


@workflow
async def slowly(ctx: Context) -> list[str]:
    return [await slow("a"), await reserve("b")]


@pytest.fixture
def gates() -> dict[str, asyncio.Event]:
    gate.update(entered=asyncio.Event(), open=asyncio.Event())
    return gate


def restart(place: Place, **options: Any) -> Engine:
    return engine(place, shop, patient, slowly, flaky_pair, cleans_up, counting, reset_me, **options)


# ---- retry


async def test_a_failed_run_is_retried_from_the_failed_step(place: Place) -> None:
    async with restart(place) as first:
        handle = await first.start(shop, "o", id="r")
        with pytest.raises(RunFailed, match="card declined"):
            await handle.result(10)
        broken.clear()
        await handle.retry(reason="card replaced", by="ana")
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]
        assert ran == {"reserve o": 1, "pay o": 2, "ship o": 1}, "what was completed is kept"
        (rewound,) = of(handle, t.RunRewound)
        assert (rewound.by, rewound.reason, rewound.verb) == ("ana", "card replaced", "retry")
        attempts = [e.attempt for e in of(handle, t.StepStarted) if e.step == 2]
        assert attempts == [1, 2], "one more attempt of the same step"
        keys = {e.key for e in of(handle, t.StepScheduled)}
        assert keys == {"reserve#1", "pay#1", "ship#1"}, "with the same idempotency key"
        assert work_agrees(first.store)
        assert not first.verify().problems
    async with restart(place) as second:  # and what came of it replays
        assert await (await second.get("r")).result(10) == ["reserved o", "paid o", "shipped o"]


async def test_a_retry_is_durable_and_goes_on_in_another_process(place: Place) -> None:
    async with restart(place) as first:
        handle = await first.start(shop, "o", id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
    async with restart(place, execute=False) as outside:
        await outside.retry("r", by="ana")
        with pytest.raises(ActRefused, match="has not ended"):
            await outside.retry("r", by="ben")
    broken.clear()
    async with restart(place) as second:
        assert await (await second.get("r")).result(10) == ["reserved o", "paid o", "shipped o"]
    assert ran == {"reserve o": 1, "pay o": 2, "ship o": 1}


async def test_a_retry_that_fails_again_can_be_retried_again(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r")
        for _ in range(3):
            with pytest.raises(RunFailed):
                await handle.result(10)
            await handle.retry()
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        await handle.retry()
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]
        assert ran["pay o"] == 5
        assert ran["reserve o"] == 1
        assert work_agrees(it.store)


async def test_nothing_is_kept_when_that_is_asked_for(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        await handle.retry(keep=False)
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]
        assert ran == {"reserve o": 2, "pay o": 2, "ship o": 1}
        keys = [e.key for e in of(handle, t.StepScheduled)]
        assert keys == ["reserve#1", "pay#1", "reserve#2", "pay#2", "ship#1"], "what runs anew has new keys"
        numbers = [e.step for e in of(handle, t.StepScheduled)]
        assert len(set(numbers)) == len(numbers)
        assert work_agrees(it.store)


async def test_it_can_go_back_to_any_event(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        version = 1 + tags(handle).index("step.completed")
        await handle.retry(at=version)
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]
        assert ran == {"reserve o": 1, "pay o": 2, "ship o": 1}
        with pytest.raises(ActRefused, match="is completed"):
            await handle.retry()


@step
async def left(n: int) -> int:
    ran["left"] += 1
    return n


@step(retry=Retry(max_attempts=2, initial_interval=0.001))
async def right(n: int) -> int:
    ran["right"] += 1
    if "pay" in broken:
        raise ValueError("no")
    return n


@workflow
async def flaky_pair(ctx: Context) -> list[Any]:
    found = await asyncio.gather(left(1), right(2), left(3), right(4), return_exceptions=True)
    if any(isinstance(value, Exception) for value in found):
        raise ValueError("one failed")
    return list(found)


async def test_all_steps_that_failed_together_are_tried_again_and_their_siblings_are_not(
    place: Place,
) -> None:
    async with restart(place) as it:
        handle = await it.start(flaky_pair, id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        assert ran == {"left": 2, "right": 4}
        broken.clear()
        await handle.retry()
        assert await handle.result(10) == [1, 2, 3, 4]
        assert ran == {"left": 2, "right": 6}
        assert work_agrees(it.store)


@workflow
async def cleans_up(ctx: Context) -> str:
    try:
        return await pay("c")
    except Exception:
        await ship("apology")
        raise


async def test_what_the_handler_did_after_the_failure_is_dropped_and_kept_in_the_history(
    place: Place,
) -> None:
    async with restart(place) as it:
        handle = await it.start(cleans_up, id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        await handle.retry()
        assert await handle.result(10) == "paid c"
        assert ran == {"pay c": 2, "ship apology": 1}
        (rewound,) = of(handle, t.RunRewound)
        assert rewound.dropped == (2,)
        assert [e.key for e in of(handle, t.StepScheduled)] == ["pay#1", "ship#1"]


@workflow
async def counting(ctx: Context) -> list[Any]:
    found = [await ctx.wait_for_event("n"), await ctx.wait_for_event("n")]
    if "pay" in broken:
        raise ValueError("broken")
    return found


async def test_signals_in_the_dropped_part_are_delivered_again(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(counting, id="r")
        await handle.signal("n", 1)
        await handle.signal("n", 2)
        with pytest.raises(RunFailed, match="broken"):
            await handle.result(10)
        broken.clear()
        await handle.retry(keep=False)
        assert await handle.result(10) == [1, 2]
        assert work_agrees(it.store)


async def test_runs_that_cannot_be_retried_say_why(place: Place, gates: dict[str, asyncio.Event]) -> None:
    broken.clear()
    async with restart(place) as it:
        done = await it.start(shop, "o", id="done")
        await done.result(10)
        with pytest.raises(ActRefused, match="only runs that are failed, cancelled or terminated"):
            await done.retry()
        running = await it.start(slowly, id="running")
        await gates["entered"].wait()
        with pytest.raises(ActRefused, match="has not ended"):
            await running.retry()
        with pytest.raises(RunNotFound):
            await it.retry("nobody")
        before = len(running.events())
        with pytest.raises(ActRefused):
            await it.resume("running")
        assert len(running.events()) == before
        gates["open"].set()
        assert await running.result(10) == ["slow a", "reserved b"]


# ---- resume


async def test_resume_says_what_it_did(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        assert await it.resume_one("shop", by="ana") == "r"
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]
        with pytest.raises(ActRefused, match="0 runs to resume"):
            await it.resume_one("shop")
        broken.add("pay")
        for number in range(2):
            with pytest.raises(RunFailed):
                await (await it.start(shop, f"p{number}", id=f"p{number}")).result(10)
        with pytest.raises(ActRefused, match="2 runs to resume"):
            await it.resume_one("shop")


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


@workflow
async def reset_me(ctx: Context) -> list[Any]:
    return [await reserve("one"), await reserve("two"), await ctx.wait_for_event("go")]


# ---- fork and dismiss


async def test_a_fork_shares_the_history_and_nothing_is_done_again(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r", attributes={"shop": "Bern"})
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        at = tags(handle).index("step.failed")  # the event before it
        forked = await handle.fork(at=at, id="f", by="ana")
        assert await forked.result(10) == ["reserved o", "paid o", "shipped o"]
        assert ran == {"reserve o": 1, "pay o": 2, "ship o": 1}
        (started,) = of(forked, t.RunStarted)
        assert (started.forked_from, started.by, started.attributes) == ("r", "ana", {"shop": "Bern"})
        assert isinstance(handle.events()[-1], t.RunFailed), "the original stays as it was"
        assert not it.verify().problems
        assert work_agrees(it.store)


async def test_dismissing_hides_and_deletes_nothing(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        before = len(handle.events())
        await handle.dismiss(by="ana")
        events: list[Any] = handle.events()
        assert len(events) == before + 1
        assert isinstance(events[-1], t.RunDismissed)
        with pytest.raises(RunFailed, match="card declined"):
            await handle.result(10)
        broken.clear()
        await handle.retry()
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]


async def test_of_many_retries_at_once_one_counts(place: Place) -> None:
    async with restart(place) as it:
        handle = await it.start(shop, "o", id="r")
        with pytest.raises(RunFailed):
            await handle.result(10)
        broken.clear()
        outcomes = await asyncio.gather(
            *[handle.retry(by=f"u{n}") for n in range(20)], return_exceptions=True
        )
        assert outcomes.count(None) == 1, outcomes
        assert await handle.result(10) == ["reserved o", "paid o", "shipped o"]
        assert ran["pay o"] == 2
