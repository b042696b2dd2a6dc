"""Runs that failed are retried, resumed, forked and dismissed; what they had completed is kept."""

import asyncio
from typing import Any

import pytest

from refold import RunFailed
from refold.errors import ActRefused, RunNotFound
from refold.events import types as t

from .kit import Place, of, tags, work_agrees
from .shop import broken, cleans_up, counting, flaky_pair, gate, ran, restart, shop, slowly

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
