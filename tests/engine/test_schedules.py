"""Schedules: what fires when, what is skipped and why, and that no time becomes a run twice or is lost."""

import asyncio
import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, Settings, workflow
from refold.engine.schedule_times import times_of
from refold.errors import ActRefused, ConfigurationError, RunNotFound, ScheduleNotFound, ValueRefused
from refold.events.dispatch import rebuild_work, work_differences
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.schedule_events import ScheduleSkipped
from refold.events.transfer import export_log, import_log
from refold.events.triggers import trigger_of
from refold.events.types import RunStarted
from refold.queues import Queue
from refold.schedules import Schedule
from refold.testing import TestEngine
from tests.engine import kit
from tests.engine.clockwork import DAY, HOUR, START, at, fired, patient, report, skipped, slow
from tests.engine.kit import HandClock, Place, of

pytestmark = pytest.mark.anyio


async def test_a_month_of_nights_passes_in_no_time() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("nightly", report, "sales", cron="30 2 * * *", timezone="Europe/Madrid")
        await engine.advance(31 * DAY)
        assert fired(engine, "nightly") == [at(1.5, day) for day in range(1, 32)]
        handle = await engine.get("nightly-20260131T013000Z")
        assert await handle.result() == "sales of 2026-01-31T01:30:00+00:00"
        (started, *_) = of(handle, RunStarted)
        assert str(trigger_of(started)) == "schedule nightly of 2026-01-31 01:30 UTC"
        assert len(engine.runs.list(attributes={"schedule": "nightly"}, limit=50).runs) == 31
        assert engine.schedules.get("nightly").fired == 31
        assert engine.schedules.next("nightly", 2) == [at(1.5, 32), at(1.5, 33)]


# ---- on every store


def _is_last(engine: Engine, moment: datetime) -> bool:
    return fired(engine, "hourly")[-1:] == [moment]


async def test_a_schedule_goes_on_in_the_next_process_and_makes_up_for_the_last_time_only(
    place: Place,
) -> None:
    clock = HandClock(START.timestamp())
    async with kit.engine(place, report, clock=clock) as engine:
        await engine.schedules.create("hourly", report, "x", every=HOUR)
        for hour in (1, 2):
            clock.move(HOUR)
            await kit.until(partial(_is_last, engine, at(hour)))
        handle = await engine.get("hourly-20260101T020000Z")
        assert await handle.result() == "x of 2026-01-01T02:00:00+00:00"
    clock.move(7.5 * HOUR)
    async with kit.engine(place, report, clock=clock) as engine:
        await kit.until(lambda: len(fired(engine, "hourly")) == 3)
        assert fired(engine, "hourly") == [at(1), at(2), at(9)]
        assert skipped(engine, "hourly") == [("missed", 6)]
        await engine.schedules.pause("hourly")
        await engine.schedules.resume("hourly")
        assert not work_differences(engine.store)
        assert not engine.verify().problems


async def test_runs_of_a_schedule_wait_in_its_queue(place: Place) -> None:
    async with kit.engine(place, report) as engine:
        await engine.queues.set("one", concurrency=1)
        await engine.schedules.create("x", report, "x", every=HOUR, queue="one")
        runs = [await engine.schedules.trigger("x") for _ in range(3)]
        await kit.until(
            lambda: all((work := engine.store.work(run)) and work.state == "done" for run in runs)
        )


async def test_the_dispatch_table_is_built_again_and_an_export_carries_schedules(
    place: Place, tmp_path: Path
) -> None:
    async with kit.engine(place, report) as engine:
        await engine.schedules.create("hourly", report, "x", every=HOUR)
        await engine.schedules.create("gone", report, "x", every=HOUR)
        await engine.schedules.delete("gone")
        run_id = await engine.schedules.trigger("hourly")
        await kit.until(lambda: (work := engine.store.work(run_id)) is not None and work.state == "done")
        await engine.schedules.pause("hourly", "stocktaking")
    store = open_store(place) if isinstance(place, str) else place
    before = store.all_work()
    rebuild_work(store)
    assert store.all_work() == before
    other = open_store(tmp_path / "other.db")
    try:
        import_log(other, export_log(store))
        assert not work_differences(other)
    finally:
        other.close()
        if isinstance(place, str):
            store.close()
    async with kit.engine(str(tmp_path / "other.db"), report) as engine:
        (info,) = engine.schedules.list()
        assert (info.name, info.status, info.note, info.last_run) == (
            "hourly", "paused", "stocktaking", run_id,
        )  # fmt: skip


# ---- catching up


@pytest.mark.parametrize(
    ("catch_up", "hours", "options", "made", "left"),
    [
        ("latest", 5.5, {}, [5], [("missed", 4)]),
        ("skip", 5.5, {}, [], [("late", 5)]),
        ("skip", 5.01, {}, [5], [("missed", 4)]),
        ("all", 3.5, {"overlap": "allow_all"}, [1, 2, 3], []),
        ("all", 30.5, {"overlap": "allow_all", "window": 2 * HOUR}, [29, 30], [("late", 28)]),
        ("latest", 50.5, {"window": 60.0}, [], [("late", 50)]),
        ("all", 0.5, {}, [], []),
    ],
)
async def test_what_was_missed_is_made_up_for_or_skipped_with_its_reason(
    catch_up: Any, hours: float, options: dict[str, Any], made: list[int], left: list[tuple[str, int]]
) -> None:
    log = MemoryStore()
    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR, catch_up=catch_up, **options)
    async with TestEngine(log, workflows=[report], start=at(hours)) as engine:
        await engine.settle()
        assert (fired(engine, "x"), skipped(engine, "x")) == ([at(hour) for hour in made], left)


async def test_a_schedule_that_is_years_behind_is_bounded() -> None:
    log = MemoryStore()
    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("second", report, "x", every=1.0, catch_up="latest")
        await engine.schedules.create(
            "minute", report, "x", cron="* * * * *", catch_up="all", overlap="allow_all", window=HOUR * 5
        )
    async with TestEngine(log, workflows=[report], start=START + timedelta(days=3_650)) as engine:
        await engine.settle()
        assert len(fired(engine, "second")) == 1
        assert len(fired(engine, "minute")) == 301, "both ends of the window are in it"
        reason, count = skipped(engine, "minute")[0]
        assert (reason, count) == ("late", 1_000), "there were more, and it says so"
        event = next(e for e in engine.schedules.history("minute") if isinstance(e, ScheduleSkipped))
        assert event.more
        assert len(engine.schedules.history("minute")) < 310


# ---- overlapping


async def test_a_time_that_comes_while_the_last_run_goes_on_is_skipped_and_names_it() -> None:
    async with TestEngine(workflows=[slow]) as engine:
        await engine.schedules.create("x", slow, every=HOUR)
        await engine.advance(4 * HOUR)
        assert fired(engine, "x") == [at(1), at(3)]
        events = [e for e in engine.schedules.history("x") if isinstance(e, ScheduleSkipped)]
        assert [(e.reason, e.detail) for e in events] == [
            ("overlap", "x-20260101T010000Z"),
            ("overlap", "x-20260101T030000Z"),
        ]


async def test_one_time_can_wait_for_the_run_before() -> None:
    async with TestEngine(workflows=[patient]) as engine:
        await engine.schedules.create("x", patient, every=HOUR, overlap="buffer_one")
        await engine.advance(4 * HOUR)
        assert fired(engine, "x") == [at(1)]
        assert skipped(engine, "x") == [("overlap", 1), ("overlap", 1)]
        assert engine.schedules.get("x").buffered == at(2)
        await (await engine.get("x-20260101T010000Z")).signal("go")
        await engine.settle()
        assert fired(engine, "x") == [at(1), at(2)]
        assert engine.schedules.get("x").buffered is None
        assert not work_differences(engine.store)


async def test_the_run_before_can_be_asked_to_stop() -> None:
    async with TestEngine(workflows=[patient]) as engine:
        await engine.schedules.create("x", patient, every=HOUR, overlap="cancel_other")
        await engine.advance(2 * HOUR)
        assert fired(engine, "x") == [at(1), at(2)]
        status = (await engine.get("x-20260101T010000Z")).status()
        assert status["status"] == "cancelled"
        assert "schedule x starts its next run" in status["error_message"]


async def test_runs_of_a_schedule_can_go_on_beside_each_other() -> None:
    async with TestEngine(workflows=[patient]) as engine:
        await engine.schedules.create("x", patient, every=HOUR, overlap="allow_all")
        await engine.advance(30 * HOUR)
        assert len(fired(engine, "x")) == 30
        assert len(engine.runs.list(status="waiting", limit=50).runs) == 30


async def test_a_queue_limits_how_many_runs_of_a_schedule_are_at_it() -> None:
    places = [Queue("reports", concurrency=2)]
    hourly = Schedule("x", patient, every=HOUR, overlap="allow_all", queue="reports")
    async with TestEngine(workflows=[patient, report], queues=places, schedules=[hourly]) as engine:
        await engine.advance(4 * HOUR)
        assert len(fired(engine, "x")) == 4
        states = [work.state for work, _ in engine.store.all_work() if work.workflow == "patient"]
        assert sorted(states) == ["pending", "pending", "waiting", "waiting"]
        for run_id in ("x-20260101T010000Z", "x-20260101T020000Z"):
            await (await engine.get(run_id)).signal("go")
        await engine.settle()
        states = [work.state for work, _ in engine.store.all_work() if work.workflow == "patient"]
        assert sorted(states) == ["done", "done", "waiting", "waiting"]
        with pytest.raises(ConfigurationError, match="nobody has declared queue 'letters'"):
            await engine.schedules.create("y", report, "y", every=HOUR, queue="letters")


async def test_runs_of_a_schedule_go_to_the_workers_with_its_tag() -> None:
    async with TestEngine(workflows=[report], tags=["gpu"]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR, run_on="gpu")
        await engine.schedules.create("y", report, "y", every=HOUR, run_on="tape")
        await engine.advance(HOUR)
        states = {work.run_id[0]: work.state for work, _ in engine.store.all_work() if work.workflow}
        assert states == {"x": "done", "y": "pending"}


# ---- when things do not fit


async def test_a_schedule_whose_workflow_nobody_has_waits_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryStore()
    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
    async with TestEngine(log, workflows=[slow]) as engine:
        await engine.advance(3 * HOUR)
        assert not fired(engine, "x")
    assert "no engine here has its workflow 'report'" in caplog.text
    async with TestEngine(log, workflows=[report], start=at(3.5)) as engine:
        await engine.settle()
        assert fired(engine, "x") == [at(3)]


async def test_arguments_that_no_longer_fit_are_a_reason_and_stop_nothing() -> None:
    log = MemoryStore()

    @workflow(name="report")
    async def counts(ctx: Context, number: int) -> int:
        return number

    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("x", report, "text", every=HOUR)
    async with TestEngine(log, workflows=[counts]) as engine:
        await engine.advance(2 * HOUR)
        assert skipped(engine, "x") == [("refused", 1), ("refused", 1)]
        event = next(e for e in engine.schedules.history("x") if isinstance(e, ScheduleSkipped))
        assert "argument 1 of report" in event.detail
        await engine.schedules.update("x", counts, 3, every=HOUR)
        await engine.advance(HOUR)
        assert fired(engine, "x") == [at(3)]


async def test_a_new_version_of_the_workflow_is_used_when_the_old_one_is_gone() -> None:
    log = MemoryStore()

    @workflow(name="report", version="2")
    async def newer(ctx: Context, about: str) -> str:
        return "newer"

    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("x", report, "text", every=HOUR)
    async with TestEngine(log, workflows=[newer]) as engine:
        await engine.advance(HOUR)
        assert await (await engine.get("x-20260101T010000Z")).result() == "newer"


async def test_a_run_that_has_the_id_already_is_no_reason_to_stop() -> None:
    async with TestEngine(workflows=[report, slow]) as engine:
        await engine.start(slow, id="x-20260101T010000Z")
        await engine.schedules.create("x", report, "x", every=HOUR)
        await engine.advance(2 * HOUR)
        assert (fired(engine, "x"), skipped(engine, "x")) == ([at(2)], [("exists", 1)])


async def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
        await engine.advance(3 * HOUR)
        engine.time._now -= 2 * HOUR
        await engine.advance(3 * HOUR)
        assert fired(engine, "x") == [at(hour) for hour in range(1, 5)]


async def test_what_cannot_work_is_refused_before_anything_is_written() -> None:
    async with TestEngine(workflows=[report]) as engine:
        create = engine.schedules.create
        for options, said in (
            ({}, "one of cron"),
            ({"cron": "* * * * *", "every": 5.0}, "one of cron"),
            ({"cron": "61 * * * *"}, "Bad minute"),
            ({"cron": "0 0 * * * *"}, "five fields"),
            ({"cron": "@daily"}, "five fields"),
            ({"cron": "0 0 31 2 *"}, "Bad day-of-month"),
            ({"cron": "0 0 29 2 MON#5", "timezone": "Mars/Olympus"}, "time zone"),
            ({"every": 0.01}, "0.1 or more"),
            ({"at": datetime(2026, 1, 1)}, "time zone"),
            ({"every": 5.0, "overlap": "sometimes"}, "buffer_one"),
            ({"every": 5.0, "catch_up": "sometimes"}, "latest"),
            ({"every": 5.0, "window": 0}, "window"),
            ({"cron": "* * * * *", "anchor": at(0)}, "anchor"),
        ):
            with pytest.raises(ConfigurationError, match=said):
                await create("x", report, "x", **options)
        for name in ("", "a/b", " x", "x" * 151, 5):
            with pytest.raises(ConfigurationError, match="name"):
                await create(name, report, "x", every=5.0)  # type: ignore[arg-type]
        with pytest.raises(ValueRefused):
            await create("x", report, 5, every=5.0)
        with pytest.raises(ConfigurationError, match="@workflow"):
            Schedule("x", print, every=5.0)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="no such day"):
            await create("x", report, "x", cron="0 0 */20 * MON#5")
        with pytest.raises(RunNotFound):
            await engine.get("schedule/x")
        with pytest.raises(ScheduleNotFound):
            engine.schedules.next("\ud800")
        assert engine.store.position() == 0


async def test_without_its_library_a_cron_expression_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryStore()
    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", cron="0 * * * *")
    monkeypatch.setitem(sys.modules, "cronsim", None)
    times_of.cache_clear()
    with pytest.raises(ConfigurationError, match=r"refold\[schedules\]"):
        Schedule("x", report, "x", cron="0 * * * *")
    async with TestEngine(log, workflows=[report]) as engine:
        await engine.schedules.create("y", report, "y", every=HOUR)
        await engine.advance(HOUR)
        assert (fired(engine, "x"), fired(engine, "y")) == ([], [at(1)])
    assert "schedule x cannot be fired here: cron=… needs the library cronsim" in caplog.text


async def test_too_many_runs_asked_for_by_hand_are_refused() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
        async with Engine(engine.door, execute=False, clock=engine.time) as other:
            for _ in range(100):
                await other.schedules.trigger("x")
            with pytest.raises(ActRefused, match="100 runs"):
                await other.schedules.trigger("x")
        engine.worker.look()
        await engine.settle()
        assert engine.schedules.get("x").fired == 100
        with pytest.raises(ConfigurationError, match="how many"):
            engine.schedules.next("x", -1)
    with pytest.raises(ConfigurationError, match="expects Schedule"):
        async with TestEngine(workflows=[report], schedules=["x"]):  # type: ignore[list-item]
            pass


async def test_large_arguments_lie_beside_the_log() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x" * 300_000, every=HOUR)
        await engine.advance(HOUR)
        assert len(await (await engine.get("x-20260101T010000Z")).result()) > 300_000
        assert engine.schedules.get("x").args == ["x" * 300_000]
        assert max(len(row.state) for row in engine.store.scan()) < 2_000
        assert not engine.verify().problems


# ---- crashes


@pytest.mark.parametrize("events", range(1, 9))
async def test_a_crash_at_any_event_loses_no_time_and_doubles_none(events: int, tmp_path: Path) -> None:
    place = str(tmp_path / "log.db") if events % 2 else None
    async with TestEngine(place, workflows=[report], settings=Settings(projections=False)) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR, catch_up="all", overlap="allow_all")
        engine.crash_after(events)
        await engine.advance(3 * HOUR)
        await engine.alive()
        await engine.advance(HOUR)
        assert engine.crashes == 1
        assert fired(engine, "x") == [at(hour) for hour in range(1, 5)]
        runs = engine.runs.list(limit=50).runs
        assert [row["status"] for row in runs] == ["completed"] * 4
        assert not work_differences(engine.store)
        await asyncio.sleep(0)
