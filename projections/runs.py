"""`runs`: one row per run, how it stands and what it has cost so far."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..events.stream import Row as Entry
from . import money, reading as r
from .projection import Events, Index, Key, Scope, Table, Value, table
from .reading import microseconds, text, utc
from .run_row import Open, RunRow


class _Run(RunRow, gc=False):
    """The row as the fold sees it, with the hidden column parsed."""

    state: Open = msgspec.field(default_factory=Open)


_encode = msgspec.json.Encoder().encode
_decode_open = msgspec.json.Decoder(Open).decode
_decode_attributes = msgspec.json.Decoder(dict[str, Any]).decode


def _load(values: Sequence[Any]) -> _Run:
    row = _Run(*values)
    if row.open:
        row.state = _decode_open(row.open)
    return row


def _dump(row: _Run) -> tuple[Value, ...]:
    if row.ended_at is None:
        _derive(row, row.state)
        row.open = _encode(row.state).decode()
    return msgspec.structs.astuple(row)[:-1]


def _derive(row: _Run, state: Open) -> None:
    """The columns that follow from the state alone."""
    row.status = "pending" if not state.begun else "waiting" if state.waiting else "running"
    row.blocked_on = _blocked_on(state) if row.status == "waiting" else None
    row.blocked_since = state.blocked_since if row.status == "waiting" else None
    row.steps_running = len(state.running)
    row.attention_next_at = min(state.retries.values(), default=None)
    if state.alert == "none" and state.retries:
        row.attention, row.attention_since = "retrying", state.retrying_since
        row.attention_reason = state.retrying_reason
    else:
        row.attention, row.attention_since = state.alert, state.alert_since
        row.attention_reason = state.alert_reason or None


def _blocked_on(state: Open) -> str:
    reason: dict[str, Any]
    if state.waits:
        wait, name = next(iter(state.waits.items()))
        reason = {"type": "event", "wait": wait, "name": name}
        if state.timers:
            reason["due_at"] = min(state.timers.values())
    elif state.retries:
        due_at, step = min((due, step) for step, due in state.retries.items())
        reason = {"type": "retry", "step": step, "due_at": due_at}
    else:
        due_at, timer = min((due, timer) for timer, due in state.timers.items())
        reason = {"type": "timer", "timer": timer, "due_at": due_at}
    return _encode(reason).decode()


# ---- what each event does to the row ------------------------------------------------------------


def _started(row: _Run, event: r.RunStarted) -> None:
    row.workflow, row.version = event.workflow, event.workflow_version
    row.args, row.attributes, row.runtime = text(event.args), text(event.attributes), text(event.runtime)
    row.key, row.trigger, row.trace_id = event.key, event.trigger, event.trace
    title = _decode_attributes(event.attributes).get("title") if "title" in row.attributes else None
    row.title = title if title and isinstance(title, str) else event.workflow
    row.started_at = utc(event.at)


def _claimed(row: _Run, event: r.RunClaimed) -> None:
    row.owner, row.generation, row.state.begun = event.owner, event.generation, True


def _cancel_requested(row: _Run, event: r.RunCancelRequested) -> None:
    row.cancel_requested = event.reason or event.kind


def _end(row: _Run, status: str, at: str) -> None:
    row.status, row.ended_at = status, utc(at)
    row.wall_s = microseconds(row.started_at, row.ended_at) / 1e6
    row.state, row.open = Open(), None
    row.blocked_on = row.blocked_since = None
    row.attention, row.steps_running = "none", 0
    row.attention_since = row.attention_reason = row.attention_next_at = None


def _completed(row: _Run, event: r.RunCompleted) -> None:
    row.result = text(event.result)
    _end(row, "completed", event.at)


def _failed(row: _Run, event: r.RunFailed) -> None:
    error = event.error
    row.error_type, row.error_message, row.error_class = error.type, error.message, error.error_class
    _end(row, "failed", event.at)


def _cancelled(row: _Run, event: r.RunCancelled) -> None:
    row.error_message, row.error_class = event.reason or None, event.kind
    _end(row, "cancelled", event.at)


def _attention(row: _Run, event: r.RunAttention) -> None:
    state = row.state
    if event.kind != state.alert:
        state.alert_since = None if event.kind == "none" else utc(event.at)
    state.alert, state.alert_reason = event.kind, event.reason


def _step_scheduled(row: _Run, event: r.StepScheduled) -> None:
    row.steps_total += 1
    row.state.queued += 1
    row.state.begun = True


def _step_started(row: _Run, event: r.StepStarted) -> None:
    state = row.state
    row.attempts += 1
    row.first_step_at = row.first_step_at or utc(event.at)
    if event.step in state.retries:
        _drop_retry(state, event.step)
    elif event.step not in state.running:
        state.queued -= 1
    state.running[event.step] = event.at


def _drop_retry(state: Open, step: int) -> None:
    del state.retries[step]
    if not state.retries:
        state.retrying_since = None


def _leave(row: _Run, step: int, at: str, *, counts: bool = True) -> None:
    """The step is no longer queued, running or waiting for its next attempt."""
    state = row.state
    start = state.running.pop(step, None)
    if start is not None:
        if counts:
            row.active_s = (round(row.active_s * 1e6) + microseconds(start, at)) / 1e6
    elif step in state.retries:
        _drop_retry(state, step)
    else:
        state.queued -= 1


def _step_completed(row: _Run, event: r.StepCompleted) -> None:
    row.steps_completed += 1
    _leave(row, event.step, event.at)


def _step_failed(row: _Run, event: r.StepFailed) -> None:
    row.steps_failed += 1
    _leave(row, event.step, event.at)


def _step_cancelled(row: _Run, event: r.StepCancelled) -> None:
    row.steps_cancelled += 1
    _leave(row, event.step, event.at)


def _attempt_failed(row: _Run, event: r.StepAttemptFailed) -> None:
    state = row.state
    row.retries += 1
    _leave(row, event.step, event.at)
    state.retries[event.step] = utc(event.retry_at)
    state.retrying_since = state.retrying_since or utc(event.at)
    state.retrying_reason = f"{event.error.type}: {event.error.message}"


def _interrupted(row: _Run, event: r.StepInterrupted) -> None:
    row.recoveries += 1
    _leave(row, event.step, event.at, counts=event.reason != "crash")
    row.state.queued += 1


def _released(row: _Run, event: r.StepReleased) -> None:
    row.attempts -= 1
    _leave(row, event.step, event.at, counts=False)
    row.state.queued += 1


def _cost(row: _Run, event: r.CostRecorded) -> None:
    row.cost_usd = money.add(row.cost_usd, event.usd)
    row.input_tokens += event.input_tokens
    row.output_tokens += event.output_tokens
    row.cache_tokens += event.cache_tokens
    row.turns += event.turns


def _timer_started(row: _Run, event: r.TimerStarted) -> None:
    row.state.timers[event.timer] = utc(event.due_at)
    row.state.begun = True


def _timer_ended(row: _Run, event: r.TimerEnded) -> None:
    row.state.timers.pop(event.timer, None)


def _wait_opened(row: _Run, event: r.WaitOpened) -> None:
    state = row.state
    state.begun = True
    kept = state.kept.pop(event.name, 0)
    if not kept:
        state.waits[event.wait] = event.name
    elif kept > 1:
        state.kept[event.name] = kept - 1


def _wait_cancelled(row: _Run, event: r.WaitCancelled) -> None:
    row.state.waits.pop(event.wait, None)


def _signal(row: _Run, event: r.SignalReceived) -> None:
    """The first open wait of that name takes it, or it is kept for the next one."""
    state = row.state
    row.signals += 1
    taker = next((wait for wait, name in state.waits.items() if name == event.name), None)
    if taker is None:
        state.kept[event.name] = state.kept.get(event.name, 0) + 1
    else:
        del state.waits[taker]


_FOLDS: dict[type[r.Seen], Callable[[_Run, Any], None]] = {
    r.RunStarted: _started,
    r.RunClaimed: _claimed,
    r.RunCancelRequested: _cancel_requested,
    r.RunCompleted: _completed,
    r.RunFailed: _failed,
    r.RunCancelled: _cancelled,
    r.RunAttention: _attention,
    r.StepScheduled: _step_scheduled,
    r.StepStarted: _step_started,
    r.StepCompleted: _step_completed,
    r.StepFailed: _step_failed,
    r.StepAttemptFailed: _attempt_failed,
    r.StepInterrupted: _interrupted,
    r.StepReleased: _released,
    r.StepCancelled: _step_cancelled,
    r.CostRecorded: _cost,
    r.TimerStarted: _timer_started,
    r.TimerEnded: _timer_ended,
    r.TimerFired: _timer_ended,
    r.WaitOpened: _wait_opened,
    r.WaitCancelled: _wait_cancelled,
    r.SignalReceived: _signal,
}
_ACTIVATES = (
    r.RunStarted,
    r.StepCompleted,
    r.StepFailed,
    r.TimerFired,
    r.SignalReceived,
    r.RunCancelRequested,
)
"""Causes: the handler has run, so what it waits for it has waited for since then."""


class Runs:
    """`runs`: one row per run."""

    name = "runs"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"run.started"})
    events: Events = r.EVENTS
    table: Table = table(
        "runs",
        RunRow,
        key=("run_id",),
        indexes=(
            Index(("started_at", "run_id")),
            Index(("status", "started_at", "run_id")),
            Index(("workflow", "started_at", "run_id")),
            Index(("attention", "started_at", "run_id"), where="attention <> 'none'"),
            Index(("started_at", "run_id"), where="attention <> 'none'"),
        ),
        load=_load,
        dump=_dump,
    )

    def keys(self, entry: Entry, event: r.Seen) -> Sequence[Key]:
        return ((entry.stream,),)

    def fold(self, rows: list[_Run | None], entry: Entry, event: r.Seen) -> Sequence[_Run | None]:
        row, kind = rows[0], type(event)
        if row is None:
            if kind is not r.RunStarted:
                raise ValueError(f"{entry.tag} of a run that has not started")
            row = rows[0] = _Run(entry.stream)
        act = _FOLDS.get(kind)
        if act is not None and (row.ended_at is None or kind is r.CostRecorded):
            act(row, event)
        row.updated_at = utc(event.at)
        row.last_version = entry.version
        row.events += 1
        state = row.state
        waits = not state.queued and not state.running and bool(state.waits or state.timers or state.retries)
        if waits and (kind in _ACTIVATES or not state.waiting):
            state.blocked_since = row.updated_at
        state.waiting = waits
        return rows


RUNS = Runs()
