"""Nobody was there when the deadlines passed: late, but in the order in which they were due."""

import asyncio
from pathlib import Path
from typing import Any

from refold import Context, Engine, Retry, Settings, step, workflow
from refold.events import types as t

NIGHT_S = 3 * 3_600.0


class Later:
    """A clock that says it is later than it is."""

    def __init__(self, by: float) -> None:
        self.by = by

    def now(self) -> float:
        return 1_800_000_000.0 + self.by


@workflow
async def punctual(ctx: Context) -> str:
    """The deadline of an hour is set first, and is due last."""
    try:
        async with asyncio.timeout(3_600):
            await asyncio.sleep(60)
            return "in time"
    except TimeoutError:
        return "too late"


@step(retry=Retry(max_attempts=2, initial_interval=60.0, max_interval=60.0, jitter=0.0))
async def failing_once() -> str:
    global failed
    if not failed:
        failed = True
        raise ConnectionError
    return "retried"


failed = False


@workflow
async def paused(ctx: Context) -> None:
    """A sleep of an hour, and beside it a step that pauses for a minute."""
    await asyncio.gather(asyncio.sleep(3_600), failing_once())


def execute(folder: Path, clock: Later, flow: Any, until: str) -> tuple[Any, list[t.Event]]:
    async def main() -> tuple[Any, list[t.Event]]:
        settings = Settings(projections=False, grace=0)
        async with Engine(folder / "log.db", workflows=[flow], clock=clock, settings=settings) as engine:
            handle = await engine.start(flow, id="r")
            while True:
                events = [event for event in handle.events() if isinstance(event, t.Event)]
                if any(until == event.TAG for event in events):
                    break
                await asyncio.sleep(0.001)
            result = await handle.result(timeout=10) if until == "run.completed" else None
            return result, events

    return asyncio.run(main())


def test_a_sleep_that_was_due_before_its_timeout_ends_in_time(tmp_path: Path) -> None:
    execute(tmp_path, Later(0), punctual, "timer.started")
    result, _ = execute(tmp_path, Later(NIGHT_S), punctual, "run.completed")
    assert result == "in time"


def test_a_retry_that_was_due_before_a_timer_begins_before_it_fires(tmp_path: Path) -> None:
    execute(tmp_path, Later(0), paused, "step.attempt_failed")
    _, events = execute(tmp_path, Later(NIGHT_S), paused, "run.completed")
    late = [event.TAG for event in events if isinstance(event, t.TimerFired | t.StepStarted)]
    assert late == ["step.started", "step.started", "timer.fired"]
