"""What a handler takes for the time, after its run has waited for a place in a queue."""

import asyncio

import pytest

from refold import Context, workflow
from refold.events import types as t
from tests.engine.kit import HandClock, Place, engine, of, until, waiting

pytestmark = pytest.mark.anyio


@workflow
async def naps(ctx: Context) -> str:
    began = ctx.now()
    await asyncio.sleep(60)
    return began.isoformat()


async def test_sleeps_count_from_when_it_began_and_so_they_do_in_replay_and_forks(place: Place) -> None:
    clock = HandClock()
    async with engine(place, naps, clock=clock) as e:
        await e.queues.set("q", concurrency=0)
        run = await e.start(naps, id="late", queue="q")
        clock.move(3_600)
        await e.queues.set("q", concurrency=2)
        await until(lambda: of(run, t.TimerStarted))
        (claim,), (timer,) = of(run, t.RunClaimed), of(run, t.TimerStarted)
        assert claim.at.timestamp() == clock.now()
        assert timer.due_at.timestamp() == clock.now() + 60
        await waiting(e, "late")
    async with engine(place, naps, clock=clock) as e:
        again = await e.get("late")
        clock.move(30)
        twin = await again.fork(id="twin")
        clock.move(31)
        assert await again.result() == await twin.result() == claim.at.isoformat()
