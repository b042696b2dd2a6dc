"""What events of steps, and of what they cost, do to the row of their run."""

from collections.abc import Callable
from typing import Any

from . import money, reading as r
from .reading import microseconds, utc
from .run_memory import RunState
from .run_open import Doubt, Open


def _scheduled(row: RunState, event: r.StepScheduled) -> None:
    state = row.state
    row.steps_total += 1
    state.queued += 1
    state.begun = True
    state.keys[event.step] = event.key


def _started(row: RunState, event: r.StepStarted) -> None:
    state, step = row.state, event.step
    row.attempts += 1
    if row.first_step_at is None:
        row.first_step_at = utc(event.at)
    if step in state.retries:
        _drop_retry(state, step)
    elif step in state.doubts:
        del state.doubts[step]
    elif step not in state.running:
        state.queued -= 1
    state.running[step] = event.at


def _drop_retry(state: Open, step: int) -> None:
    del state.retries[step]
    if not state.retries:
        state.retrying_since = None


def _leave(row: RunState, step: int, at: str, *, counts: bool = True) -> None:
    """The step is no longer queued, running, in doubt or waiting for its next attempt."""
    state = row.state
    start = state.running.pop(step, None)
    if start is not None:
        if counts:
            row.active_s = (round(row.active_s * 1e6) + microseconds(start, at)) / 1e6
    elif step in state.retries:
        _drop_retry(state, step)
    elif step in state.doubts:
        del state.doubts[step]
    else:
        state.queued -= 1


def _completed(row: RunState, event: r.StepCompleted) -> None:
    row.steps_completed += 1
    row.state.keys.pop(event.step, None)
    _leave(row, event.step, event.at)


def _failed(row: RunState, event: r.StepFailed) -> None:
    row.steps_failed += 1
    row.state.keys.pop(event.step, None)
    _leave(row, event.step, event.at)


def _cancelled(row: RunState, event: r.StepCancelled) -> None:
    row.steps_cancelled += 1
    row.state.keys.pop(event.step, None)
    _leave(row, event.step, event.at)


def _skipped(row: RunState, event: r.StepSkipped) -> None:
    row.steps_skipped += 1
    row.state.keys.pop(event.step, None)
    _leave(row, event.step, event.at)


def _branch_skipped(row: RunState, event: r.BranchSkipped) -> None:
    row.steps_skipped += 1


def _attempt_failed(row: RunState, event: r.StepAttemptFailed) -> None:
    state = row.state
    row.retries += 1
    _leave(row, event.step, event.at)
    state.retries[event.step] = utc(event.retry_at)
    state.retrying_since = state.retrying_since or utc(event.at)
    state.retrying_reason = f"{event.error.type}: {event.error.message}"


def _interrupted(row: RunState, event: r.StepInterrupted) -> None:
    row.recoveries += 1
    _leave(row, event.step, event.at, counts=event.reason != "crash")
    row.state.queued += 1


def _in_doubt(row: RunState, event: r.StepInDoubt) -> None:
    state = row.state
    _leave(row, event.step, event.at, counts=False)
    state.doubts[event.step] = Doubt(state.keys.get(event.step, ""), utc(event.at), event.reason)


def _released(row: RunState, event: r.StepReleased) -> None:
    row.attempts -= 1
    _leave(row, event.step, event.at, counts=False)
    row.state.queued += 1


def _compensated(row: RunState, event: r.StepCompensated) -> None:
    row.compensation_done += 1


def stop_all(row: RunState, at: str) -> None:
    """The run was terminated: no step of it goes on."""
    state = row.state
    for step in [*state.running, *state.retries, *state.doubts]:
        row.steps_cancelled += 1
        _leave(row, step, at)
    row.steps_cancelled += state.queued
    state.queued = 0


def _cost(row: RunState, event: r.CostRecorded) -> None:
    row.cost_usd = money.add(row.cost_usd, event.usd)
    row.total_usd = money.add(row.total_usd, event.usd)
    row.input_tokens += event.input_tokens
    row.output_tokens += event.output_tokens
    row.cache_tokens += event.cache_tokens
    row.turns += event.turns


FOLDS: dict[type[r.Seen], Callable[[RunState, Any], None]] = {
    r.StepScheduled: _scheduled,
    r.StepStarted: _started,
    r.StepCompleted: _completed,
    r.StepFailed: _failed,
    r.StepSkipped: _skipped,
    r.StepCancelled: _cancelled,
    r.StepAttemptFailed: _attempt_failed,
    r.StepInterrupted: _interrupted,
    r.StepInDoubt: _in_doubt,
    r.StepReleased: _released,
    r.StepCompensated: _compensated,
    r.BranchSkipped: _branch_skipped,
    r.CostRecorded: _cost,
}
