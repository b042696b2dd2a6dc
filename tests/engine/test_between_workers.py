"""What one worker starts and another one executes: begun at once, and heard of wherever somebody waits."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from refold import Context, Engine, step, workflow
from refold.events import types as t
from refold.schedules import Schedule
from tests.engine.kit import Place, engine, until

pytestmark = pytest.mark.anyio


@workflow
async def quick(ctx: Context) -> str:
    return ctx.run_id


async def test_a_worker_for_tagged_runs_only_leaves_others_to_others(postgres: str) -> None:
    other = Engine(postgres, workflows=[quick], tags=["gpu"], only_tagged=True)
    async with engine(postgres, quick) as plain, other as tagged:
        run = await tagged.start(quick)
        await run.result(timeout=60)
        owners = [event.owner for event in run.events() if isinstance(event, t.RunClaimed)]
        assert owners == [plain.worker.owner]


async def test_a_worker_without_room_hears_that_a_run_has_ended_elsewhere(postgres: str) -> None:
    enough = asyncio.Event()

    @step
    async def waits() -> None:
        await enough.wait()

    @workflow
    async def busy(ctx: Context) -> None:
        await waits()

    async with engine(postgres, busy, quick, max_active=1) as full, engine(postgres, quick):
        holding = await full.start(busy)
        await until(lambda: not full.worker.room)
        run = await full.start(quick, id="elsewhere")
        assert await run.result(timeout=60) == "elsewhere"
        assert full.worker.live.keys() == {holding.id}
        enough.set()
        await holding.result(timeout=60)


async def test_a_schedule_goes_on_with_nobody_else_there(place: Place) -> None:
    def missed(history: Any) -> list[Any]:
        return [event for event in history if isinstance(event, t.ScheduleSkipped)]

    anchor = datetime(2026, 1, 1, tzinfo=UTC)
    often = Schedule(
        "often", quick, every=0.3, anchor=anchor, overlap="allow_all", catch_up="skip", window=5.0
    )
    async with Engine(place, workflows=[quick], schedules=[often]) as e:
        await until(lambda: e.schedules.get("often").fired >= 6)
        assert not missed(e.schedules.history("often"))
