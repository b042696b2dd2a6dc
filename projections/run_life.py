"""What the events of its life do to the row of a run: started, claimed, paused, repaired, ended."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw

from . import reading as r
from .reading import microseconds, text, utc
from .run_memory import RunState
from .run_open import REMEMBERED, Open, OpenGate, encode
from .run_steps import stop_all

_decode_attributes = msgspec.json.Decoder(dict[str, Raw]).decode
_NULL = b"null"


def _started(row: RunState, event: r.RunStarted) -> None:
    row.workflow, row.version = event.workflow, event.workflow_version
    row.args, row.attributes, row.runtime = text(event.args), text(event.attributes), text(event.runtime)
    row.key, row.trigger, row.trace_id = event.key, event.trigger, event.trace
    row.started_by, row.started_at, row.root_id = event.by, utc(event.at), row.run_id
    row.title = _title(row)
    if event.ancestors:
        row.root_id, row.parent_id = event.ancestors[0].run_id, event.ancestors[-1].run_id
        row.depth, row.child, row.detached = len(event.ancestors), event.child, int(event.detached)
    row.continued_from, row.forked_from, row.forked_at = (
        event.continued_from,
        event.forked_from,
        event.forked_at,
    )
    if event.carried:
        row.state.kept.carry(signal.name for signal in event.carried)
    came = bytes(event.triggered_by)
    row.triggered_by = None if came == _NULL else came.decode()
    row.start_at = None if event.start_at is None else utc(event.start_at)
    row.queue, row.priority, row.queue_key = event.queue, event.priority, event.queue_key
    row.run_on, row.lock = event.run_on, event.lock
    if event.timeout_s:
        deadline = datetime.fromisoformat(row.start_at or row.started_at) + timedelta(seconds=event.timeout_s)
        row.timeout_s, row.deadline_at = event.timeout_s, utc(deadline.isoformat())


def _title(row: RunState) -> str:
    """The attribute `title` if it is a text, else the name of the workflow."""
    if '"title"' not in row.attributes:
        return row.workflow
    title = _decode_attributes(row.attributes).get("title")
    value = None if title is None else msgspec.json.decode(title)
    return value if value and isinstance(value, str) else row.workflow


def _attributes_set(row: RunState, event: r.AttributesSet) -> None:
    labels = row.state.labels or [(1, row.attributes)]
    merged = {**_decode_attributes(row.attributes), **event.attributes}
    row.attributes = encode({name: value for name, value in merged.items() if bytes(value) != _NULL}).decode()
    row.title = _title(row)
    row.state.labels = [*labels, (row.last_version, row.attributes)][-REMEMBERED:]


def _claimed(row: RunState, event: r.RunClaimed) -> None:
    row.owner, row.generation, row.state.begun = event.owner, event.generation, True


def _cancel_requested(row: RunState, event: r.RunCancelRequested) -> None:
    row.cancel_requested = event.reason or event.kind


def _attention(row: RunState, event: r.RunAttention) -> None:
    state = row.state
    if event.kind != state.alert:
        state.alert_since = None if event.kind == "none" else utc(event.at)
    state.alert, state.alert_reason = event.kind, event.reason


def _paused(row: RunState, event: r.RunPaused) -> None:
    row.state.paused = True
    row.paused_since, row.paused_by = utc(event.at), event.by


def _resumed(row: RunState, event: r.RunResumed) -> None:
    row.state.paused = False
    row.paused_since, row.paused_by = None, ""


def _dismissed(row: RunState, event: r.RunDismissed) -> None:
    row.dismissed = int(event.dismissed)


def _compensation_started(row: RunState, event: r.CompensationStarted) -> None:
    row.state.compensating = True
    row.compensation_because, row.compensation_failed = event.because, "[]"
    row.compensation_total, row.compensation_done = len(event.steps), 0


# ---- ends, and what takes them back -----------------------------------------------------------------


def _end(row: RunState, status: str, at: str) -> None:
    row.status, row.ended_at = status, utc(at)
    row.wall_s = microseconds(row.started_at, row.ended_at) / 1e6
    row.state = row.state.over()
    row.blocked_on = row.blocked_since = None
    row.blocked_type = row.paused_by = ""
    row.attention = "none"
    row.steps_running = row.children_running = row.gates_open = 0
    row.attention_since = row.attention_reason = row.attention_next_at = row.paused_since = None


def _completed(row: RunState, event: r.RunCompleted) -> None:
    row.result = text(event.result)
    _end(row, "completed", event.at)


def _error(row: RunState, error: r.Failure | None) -> None:
    if error is not None:
        row.error_type, row.error_message, row.error_class = error.type, error.message, error.error_class


def _failed(row: RunState, event: r.RunFailed) -> None:
    _error(row, event.error)
    _end(row, "failed", event.at)


def _cancelled(row: RunState, event: r.RunCancelled) -> None:
    row.error_message, row.error_class = event.reason or None, event.kind
    _end(row, "cancelled", event.at)


def _terminated(row: RunState, event: r.RunTerminated) -> None:
    row.error_message, row.ended_by = event.reason or None, event.by
    stop_all(row, event.at)
    _end(row, "terminated", event.at)


def _continued(row: RunState, event: r.RunContinued) -> None:
    row.continued_to = event.next_run
    _end(row, "continued", event.at)


def _compensated(row: RunState, event: r.RunCompensated) -> None:
    _error(row, event.error)
    row.compensation_because = event.because or row.compensation_because
    _end(row, "compensated", event.at)


def _compensation_failed(row: RunState, event: r.RunCompensationFailed) -> None:
    _error(row, event.error)
    row.compensation_because = event.because or row.compensation_because
    row.compensation_failed = encode(event.failed).decode()
    _end(row, "compensation_failed", event.at)


def _go_on(row: RunState) -> None:
    """The run is not over any more."""
    begun = row.ended_at is None or not row.queue  # else it waits for a place again
    if row.ended_at is not None:
        row.run_attempt += 1
    row.ended_at = row.wall_s = row.result = None
    row.error_type = row.error_message = row.error_class = None
    row.ended_by = row.continued_to = ""
    row.paused_since, row.paused_by = None, ""
    row.state.begun = begun
    row.state.paused = False


def _reopened(row: RunState, event: r.RunReopened) -> None:
    _go_on(row)


def _rewound(row: RunState, event: r.RunRewound) -> None:
    """What is open is exactly what the event says; counters and costs keep all that has happened."""
    _go_on(row)
    old = row.state
    gates, children = {**old.past_gates, **old.gates}, {**old.past_children, **old.children}
    old.kept.rewind(event.to, event.dropped)
    for gate in gates.values():
        gate.stages = [stage for stage in gate.stages if stage[0] <= event.to]
    labels = [stand for stand in old.labels if stand[0] <= event.to]
    if old.labels:
        row.attributes = labels[-1][1] if labels else row.attributes
        row.title = _title(row)
    row.state = Open(
        begun=old.begun,
        queued=len(event.steps),
        keys={step: old.keys[step] for step in event.steps if step in old.keys},
        timers={timer: utc(due_at) for timer, due_at in event.timers.items()},
        waits=dict(event.waits),
        gates={number: gates.pop(number, OpenGate()) for number in event.gates},
        children={child: children.pop(child, "") for child in event.children},
        labels=labels,
        past_gates=gates,
        past_children=children,
        kept=old.kept,
        alert=old.alert,
        alert_since=old.alert_since,
        alert_reason=old.alert_reason,
        child_mail=old.child_mail,
    )


FOLDS: dict[type[r.Seen], Callable[[RunState, Any], None]] = {
    r.RunStarted: _started,
    r.RunClaimed: _claimed,
    r.RunCancelRequested: _cancel_requested,
    r.RunAttention: _attention,
    r.RunPaused: _paused,
    r.RunResumed: _resumed,
    r.RunDismissed: _dismissed,
    r.AttributesSet: _attributes_set,
    r.AttributesChanged: _attributes_set,
    r.CompensationStarted: _compensation_started,
    r.RunCompleted: _completed,
    r.RunFailed: _failed,
    r.RunCancelled: _cancelled,
    r.RunTerminated: _terminated,
    r.RunContinued: _continued,
    r.RunCompensated: _compensated,
    r.RunCompensationFailed: _compensation_failed,
    r.RunRewound: _rewound,
    r.RunReopened: _reopened,
}
