"""Runs that are not to begin before their time: on every store, across restarts, and spoken to meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from refold import ConfigurationError, Context, RunCancelled, RunNotFound, step, workflow
from refold.events import types as t
from refold.events.clock import to_datetime
from refold.testing import TestEngine
from refold.testing.replay import replay_history
from tests.engine.kit import HandClock, Place, engine, of, tags, until, work_agrees

pytestmark = pytest.mark.anyio


begun: list[str] = []


@step
async def notes(run_id: str) -> str:
    begun.append(run_id)
    return run_id


@workflow
async def job(ctx: Context) -> str:
    return await notes(ctx.run_id)


@workflow
async def hears(ctx: Context) -> list[Any]:
    return [await ctx.wait_for_event("word"), await ctx.wait_for_event("word"), ctx.attributes.get("shop")]


@workflow
async def slow(ctx: Context) -> None:
    await ctx.sleep(100)


@pytest.fixture(autouse=True)
def nothing_has_begun() -> None:
    begun.clear()


async def test_it_begins_at_its_time_and_not_before_whoever_looks(place: Place) -> None:
    clock = HandClock()
    async with engine(place, job, clock=clock) as e:
        late = await e.start(job, id="late", start_at=to_datetime(clock.now() + 60))
        await e.start(job, id="later", delay=3600)
        await e.run(job, id="now")
        assert e.store.work("late").due_at == clock.now() + 60  # type: ignore[union-attr]
        clock.move(59.9)
        e.worker.look()
        e.worker.recovery.enqueue("late")
        await until(lambda: not e.worker.recovery.holds("late"))
        assert tags(late) == ["run.started"]
        clock.move(0.2)
        assert await late.result() == "late"
        assert begun == ["now", "late"]
        assert work_agrees(e.store)


async def test_it_survives_that_nobody_is_there(place: Place) -> None:
    clock = HandClock()
    async with engine(place, job, clock=clock, execute=False) as outside:
        await outside.start(job, id="r", delay=60)
    async with engine(place, job, clock=clock) as e:
        await e.run(job, id="other")
        assert tags(await e.get("r")) == ["run.started"]
    clock.move(3600)
    async with engine(place, job, clock=clock) as e:
        assert await (await e.get("r")).result() == "r"


RARER = [pytest.param(how, marks=pytest.mark.slow) for how in ("terminate", "compensate")]


@pytest.mark.parametrize("how", ["cancel", *RARER])
async def test_it_can_be_ended_before_it_has_begun(place: Place, how: str) -> None:
    clock = HandClock()
    async with engine(place, job, clock=clock) as e:
        run = await e.start(job, id="r", delay=60, lock="k")
        await getattr(e, how)("r", reason="not any more", by="ana")
        with pytest.raises(RunCancelled, match="not any more") as ended:
            await run.result()
        assert ended.value.status == ("terminated" if how == "terminate" else "cancelled")
        assert e.locks.holder("k") is None
        clock.move(120)
        e.worker.look()
        assert await e.run(job, id="other", lock="k") == "other"
        assert begun == ["other"]
        assert work_agrees(e.store)
        await run.retry()  # who brings it back means now
        assert await run.result() == "r"
        replay_history(job, run.events(), run="r")


async def test_paused_before_it_has_begun_it_waits_until_it_is_resumed(place: Place) -> None:
    clock = HandClock()
    async with engine(place, job, clock=clock) as e:
        run = await e.start(job, id="r", delay=60)
        await run.pause(by="ana")
        await until(lambda: of(run, t.RunPaused))
        clock.move(120)
        e.worker.look()
        await e.run(job, id="other")
        assert begun == ["other"]
        assert e.store.work("r").state == "pending"  # type: ignore[union-attr]
        await run.resume()
        assert await run.result() == "r"
        assert work_agrees(e.store)


async def test_what_is_said_to_it_before_is_delivered_in_order_once_it_has_begun(place: Place) -> None:
    clock = HandClock()
    async with engine(place, hears, clock=clock) as e:
        run = await e.start(hears, id="r", delay=60)
        await run.signal("word", "one", id="a")
        await run.signal("word", "one", id="a")
        await run.set_attributes({"shop": "Bern"})
        await run.pause()
        await run.signal("word", "two")
        await run.resume()
        await until(lambda: len(of(run, t.CauseHeld)) == 3)
        assert not of(run, t.RunClaimed)
        clock.move(61)
        assert await run.result() == ["one", "two", "Bern"]
        assert sum(isinstance(event, t.InboxSkipped) for event in run.events()) == 1
        replay_history(hears, run.events(), run="r")


async def test_its_time_limit_counts_from_its_start() -> None:
    clock = HandClock()
    async with engine("memory://", slow, clock=clock) as e:
        run = await e.start(slow, id="r", delay=60, timeout=50)
        clock.move(61)
        e.worker.look()
        await until(lambda: of(run, t.TimerStarted))
        clock.move(48)
        e.worker.look()
        assert not of(run, t.RunCancelRequested)
        clock.move(2)
        with pytest.raises(RunCancelled, match="took longer than 50 s"):
            await run.result()


async def test_a_clock_that_is_set_ahead_begins_it_and_one_that_is_set_back_waits_again() -> None:
    clock = HandClock()
    async with engine("memory://", job, clock=clock) as e:
        run = await e.start(job, id="r", delay=60)
        clock.move(-3600)
        e.worker.look()
        await e.run(job, id="other")
        assert tags(run) == ["run.started"]
        clock.move(3661)
        assert await run.result() == "r"


async def test_a_test_need_not_wait_for_it() -> None:
    async with TestEngine(workflows=[job]) as e:
        began = e.now
        run = await e.start(job, id="r", start_at=began + timedelta(days=30))
        await e.advance(86_400)
        assert tags(run) == ["run.started"]
        assert await run.result() == "r"
        assert e.now - began == timedelta(days=30)


async def test_why_says_when_it_may_begin_and_what_it_holds() -> None:
    clock = HandClock()
    async with engine("memory://", job, clock=clock) as e:
        run = await e.start(job, id="r", delay=90, lock="/srv/data", by="ana")
        why = run.why()
        assert [(wait.type, wait.until) for wait in why.standing.waits] == [
            ("start", to_datetime(clock.now() + 90))
        ]
        head, begins, *rest = str(why).splitlines()
        assert head.startswith("r has not begun, since 2027-01-15 08:00:00 UTC")
        assert head.endswith(", lock /srv/data")
        assert begins == "it is not to begin before 2027-01-15 08:01:30 UTC (in 1 min 30 s)"
        assert rest[-1] == "next, at 2027-01-15 08:01:30 UTC (in 1 min 30 s): it may begin"
        assert e.why("r") == why
        with pytest.raises(RunNotFound):
            e.why("nobody")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start_at": datetime(2030, 1, 1)}, "a datetime with a time zone"),
        ({"start_at": 1_900_000_000}, "a datetime with a time zone"),
        ({"delay": -1}, "0 or more"),
        ({"delay": float("nan")}, "seconds"),
        ({"delay": 5, "start_at": datetime(2030, 1, 1, tzinfo=UTC)}, "no start_at beside it"),
    ],
)
async def test_a_time_that_is_none_is_refused(options: dict[str, Any], words: str) -> None:
    async with engine("memory://", job) as e:
        with pytest.raises(ConfigurationError, match=words):
            await e.start(job, **options)
        assert e.store.position() == 0


async def test_a_time_that_is_past_is_no_reason_to_wait() -> None:
    async with engine("memory://", job) as e:
        run = await e.start(job, start_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert await run.result() == run.id
        assert of(run, t.RunStarted)[0].start_at is None
