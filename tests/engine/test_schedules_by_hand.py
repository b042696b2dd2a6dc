"""Schedules that people pause, trigger, backfill, delete and make again; and those that code declares."""

from datetime import UTC, datetime

import pytest

from refold.errors import ConfigurationError, ScheduleNotFound
from refold.events.dispatch import work_differences
from refold.events.memory import MemoryStore
from refold.schedules import Schedule
from refold.testing import TestEngine
from tests.engine.clockwork import HOUR, at, fired, report, skipped

pytestmark = pytest.mark.anyio

# ---- by hand


async def test_pause_and_resume_with_a_note() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
        await engine.schedules.pause("x", "stocktaking", by="user:ana")
        await engine.advance(3 * HOUR)
        info = engine.schedules.get("x")
        assert (info.status, info.note, info.fired) == ("paused", "stocktaking", 0)
        await engine.schedules.resume("x")
        assert skipped(engine, "x") == [("paused", 3)]
        await engine.advance(HOUR)
        assert fired(engine, "x") == [at(4)]
        by = {getattr(event, "by", "") for event in engine.schedules.history("x")}
        assert "user:ana" in by


async def test_a_run_now_even_while_it_is_paused() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
        await engine.schedules.pause("x")
        one, two = await engine.schedules.trigger("x"), await engine.schedules.trigger("x")
        assert one != two
        await engine.settle()
        for run_id in (one, two):
            assert await (await engine.get(run_id)).result()


async def test_a_past_span_is_made_up_for_and_what_ran_then_is_left_out() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
        await engine.advance(2 * HOUR)
        assert await engine.schedules.backfill("x", at(-3), at(2)) == 6
        await engine.settle()
        assert sorted(fired(engine, "x")) == [at(hour) for hour in range(-3, 3)]
        assert skipped(engine, "x") == [("exists", 2)]
        assert await engine.schedules.backfill("x", at(-200), at(-1)) == 200
        await engine.settle()
        assert len(fired(engine, "x")) == 6 + 197
        nine = datetime(1970, 1, 1, 9, tzinfo=UTC)
        assert await engine.schedules.backfill("x", datetime.min.replace(tzinfo=UTC), nine) == 10
        await engine.settle()
        with pytest.raises(ConfigurationError, match="past"):
            await engine.schedules.backfill("x", at(0), at(100))
        with pytest.raises(ConfigurationError, match="time zone"):
            await engine.schedules.backfill("x", datetime(2026, 1, 1), at(1))
        with pytest.raises(ConfigurationError, match="10,000"):
            await engine.schedules.backfill("x", at(0, -1_000), at(0))


async def test_a_deleted_schedule_is_not_found_and_its_name_can_be_used_again() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", every=HOUR)
        await engine.advance(HOUR)
        await engine.schedules.delete("x", "not needed")
        await engine.advance(HOUR)
        with pytest.raises(ScheduleNotFound):
            engine.schedules.get("x")
        with pytest.raises(ScheduleNotFound):
            await engine.schedules.trigger("x")
        assert [one.status for one in engine.schedules.list(deleted=True)] == ["deleted"]
        await engine.schedules.create("x", report, "y", every=2 * HOUR)
        await engine.advance(2 * HOUR)
        assert fired(engine, "x") == [at(1), at(4)]
        assert not work_differences(engine.store)


async def test_one_moment_fires_once() -> None:
    async with TestEngine(workflows=[report]) as engine:
        await engine.schedules.create("x", report, "x", at=at(5))
        await engine.advance(10 * HOUR)
        assert fired(engine, "x") == [at(5)]
        assert engine.schedules.get("x").status == "finished"
        assert engine.schedules.next("x") == []


# ---- declared in code


async def test_code_declares_schedules_and_a_new_process_changes_what_differs() -> None:
    log = MemoryStore()
    hourly = Schedule("x", report, "x", every=HOUR)
    async with TestEngine(log, workflows=[report], schedules=[hourly]) as engine:
        await engine.advance(HOUR)
    async with TestEngine(log, workflows=[report], schedules=[hourly]) as engine:
        assert len(engine.schedules.history("x")) == 2
        assert engine.schedules.get("x").fired == 1
    changed = Schedule("x", report, "y", every=HOUR)
    async with TestEngine(log, workflows=[report], schedules=[changed]) as engine:
        assert [getattr(event, "TAG", "?") for event in engine.schedules.history("x")] == [
            "schedule.created", "schedule.fired", "schedule.changed",
        ]  # fmt: skip
        await engine.advance(HOUR)
        assert (await (await engine.get("x-20260101T020000Z")).result()).startswith("y")
        with pytest.raises(ConfigurationError, match="does something else"):
            await engine.schedules.create("x", report, "z", every=HOUR)
        await engine.schedules.create("x", report, "y", every=HOUR)
        await engine.schedules.update("x", report, "y", every=2 * HOUR)
        assert engine.schedules.next("x", 1) == [at(4)]
