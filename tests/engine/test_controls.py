"""Controls: with the mechanism taken out, the promise is seen to break, so its test would have noticed."""

from typing import Any

import pytest

from refold import Context, WaitTimeout, step, workflow
from refold.engine.bodies import Body
from refold.engine.live import LiveRun
from refold.engine.worker import Worker
from refold.events import types as t
from refold.events.clock import to_datetime
from tests.engine.kit import HandClock, Place, engine, of, seen, waiting

pytestmark = pytest.mark.anyio


@workflow
async def patient(ctx: Context) -> Any:
    try:
        return await ctx.wait_for_event("ok", timeout=60)
    except WaitTimeout:
        return "lost to the deadline"


async def overdue_mail(place: Place) -> Any:
    clock = HandClock()
    async with engine(place, patient, clock=clock) as e:
        await e.start(patient, id="r")
        await waiting(e, "r")
    async with engine(place, patient, clock=clock, execute=False) as outside:
        await outside.signal("r", "ok", "in time")
    clock.move(3600)
    async with engine(place, patient, clock=clock) as e:
        return await (await e.get("r")).result()


async def test_control_without_a_look_into_the_inbox_an_acknowledged_signal_loses(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "drain_inbox", lambda self, live: None)
    assert await overdue_mail(place) == "lost to the deadline"


async def test_with_it_the_same_signal_is_delivered(place: Place) -> None:
    assert await overdue_mail(place) == "in time"


async def test_control_values_that_are_not_decoded_live_differ_after_a_restart(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    @step
    async def pair() -> Any:
        return (1, 2)

    @workflow
    async def looks(ctx: Context) -> str:
        kind = type(await pair()).__name__
        await ctx.wait_for_event("go")
        return kind

    completed = Body._completed
    monkeypatch.setattr(Body, "_completed", lambda self, value: completed(self, value)._replace(value=value))
    results = []
    async with engine(place, looks) as e:
        for run_id in ("live", "restarted"):
            handle = await e.start(looks, id=run_id)
            await seen(handle, t.WaitOpened)
        await e.signal("live", "go")
        results.append(await (await e.get("live")).result())
    async with engine(place, looks) as e:
        await e.signal("restarted", "go")
        results.append(await (await e.get("restarted")).result())
    assert results == ["tuple", "list"]


async def test_control_with_the_wall_clock_alone_the_log_goes_back_in_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = LiveRun.head

    def wall(self: LiveRun, cause: str = "", by: str = "engine", at: float | None = None) -> dict[str, Any]:
        now = self.host.clock.now() if at is None else at
        return {**head(self, cause, by, at), "at": to_datetime(now)}

    monkeypatch.setattr(LiveRun, "head", wall)
    clock = HandClock()
    async with engine(place, patient, clock=clock) as e:
        handle = await e.start(patient, id="r")
        await waiting(e, "r")
        clock.move(-7200)
        await handle.signal("ok")
        await handle.result()
        times = [event.at for event in of(handle, t.Event)]
        assert times != sorted(times)
