"""Workflows for schedules to start, and what became of their times."""

from datetime import UTC, datetime, timedelta

from refold import Context, Engine, workflow
from refold.events.schedule_events import ScheduleFired, ScheduleSkipped

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = 3_600.0, 86_400.0


@workflow
async def report(ctx: Context, about: str) -> str:
    return f"{about} of {ctx.attributes['scheduled_for']}"


@workflow
async def slow(ctx: Context) -> str:
    await ctx.sleep(5_400)
    return "done"


@workflow
async def patient(ctx: Context) -> str:
    await ctx.wait_for_event("go")
    return "gone"


def at(hour: float, day: int = 1) -> datetime:
    return START + timedelta(days=day - 1, hours=hour)


def fired(engine: Engine, name: str) -> list[datetime]:
    return [event.nominal for event in engine.schedules.history(name) if isinstance(event, ScheduleFired)]


def skipped(engine: Engine, name: str) -> list[tuple[str, int]]:
    events = [event for event in engine.schedules.history(name) if isinstance(event, ScheduleSkipped)]
    return [(event.reason, event.count) for event in events]
