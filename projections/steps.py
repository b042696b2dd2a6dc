"""`steps`: one row per attempt at a step."""

import copy
from collections.abc import Callable, Sequence
from hashlib import sha1, sha256
from types import MappingProxyType
from typing import Any

from msgspec import json

from ..events.stream import Row as Entry
from . import money, reading as r
from .projection import Events, Index, Key, Look, Scope, Table, table
from .reading import microseconds, text, utc
from .step_row import StepRow
from .vocabulary import events

Group = list[StepRow | None]

_URL_NAMESPACE = bytes.fromhex("6ba7b8119dad11d180b400c04fd430c8")
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""Hex digit of a hash to the one that says, with two of its bits kept, that this is such a UUID."""


def _trace_id(run_id: str, key: str) -> str:
    """`clock.step_trace_id` in 2 µs instead of 7, which is a tenth of what a step may cost a rebuild."""
    name = f"refold:{run_id}/{key}".encode()
    x = sha1(_URL_NAMESPACE + name, usedforsecurity=False).hexdigest()
    return f"{x[:8]}-{x[8:12]}-5{x[13:16]}-{_VARIANT[x[16]]}{x[17:20]}-{x[20:32]}"


# ---- what each event does to the step's rows: the latest attempt, and the earlier one it names ------


def _scheduled(rows: Group, run_id: str, event: r.StepScheduled) -> None:
    args, kwargs, key = text(event.args), text(event.kwargs), event.key
    ordinal = key.rpartition("#")[2]
    row = rows[0] = StepRow(run_id, event.step, 0)
    row.key, row.name, row.kind = key, event.name, event.kind
    row.ordinal = int(ordinal) if ordinal.isdecimal() else 0
    row.iteration, row.task, row.site, row.pure = event.iteration, event.task, event.site, int(event.pure)
    row.args, row.kwargs = args, kwargs
    row.args_hash = sha256(b"%b%b" % (event.args, event.kwargs)).hexdigest()[:16]
    row.scheduled_at = utc(event.at)
    row.max_attempts, row.timeout_s = event.max_attempts, event.timeout_s
    row.idempotency_key, row.trace_id = f"{run_id}/{key}", _trace_id(run_id, key)
    if event.fan_out:
        row.fan_out, row.item = event.fan_out, event.item
    if event.compensate or event.undoes or event.optional or event.total_timeout_s:
        row.compensate, row.undoes, row.optional = event.compensate, event.undoes, int(event.optional)
        row.total_timeout_s = event.total_timeout_s


def _branch_skipped(rows: Group, run_id: str, event: r.BranchSkipped) -> None:
    ordinal = event.key.rpartition("#")[2]
    row = rows[0] = StepRow(run_id, event.step, 0)
    row.key, row.name, row.status, row.reason = event.key, event.name, "skipped", event.reason
    row.ordinal = int(ordinal) if ordinal.isdecimal() else 0
    row.scheduled_at = row.ended_at = utc(event.at)
    row.idempotency_key, row.trace_id = f"{run_id}/{event.key}", _trace_id(run_id, event.key)


def _started(rows: Group, run_id: str, event: r.StepStarted) -> None:
    """A row that has not begun becomes this attempt; one that has steps aside."""
    row = _latest(rows, event)
    if row.status != "scheduled":
        rows[1] = _aside(row)
        row = rows[0] = _afresh(row)
    row.attempt, row.status, row.started_at = event.attempt, "running", utc(event.at)


def _aside(row: StepRow) -> StepRow:
    """The attempt as an earlier one."""
    earlier = copy.copy(row)
    earlier.superseded = earlier.attempt
    if earlier.status == "retrying":
        earlier.status = _failed_status(earlier.error_class)
    return earlier


def _afresh(row: StepRow) -> StepRow:
    """The next attempt at the same call: what the call said, and nothing of what came of it."""
    new = StepRow(row.run_id, row.step, 0)
    for name in _OF_THE_CALL:
        setattr(new, name, getattr(row, name))
    return new


_OF_THE_CALL = (
    "key", "name", "kind", "ordinal", "iteration", "task", "site", "pure", "args", "kwargs", "args_hash",
    "scheduled_at", "max_attempts", "timeout_s", "idempotency_key", "trace_id", "fan_out", "item",
    "compensate", "undoes", "optional", "total_timeout_s",
)  # fmt: skip


def _latest(rows: Group, event: Any) -> StepRow:
    row = rows[0]
    if row is None:
        raise ValueError(f"step {event.step} was never scheduled")
    return row


def _of_attempt(rows: Group, event: Any) -> StepRow:
    """The row of the attempt that the event names: the latest, or an earlier one."""
    row = _latest(rows, event)
    if row.attempt == event.attempt:
        return row
    if len(rows) > 1 and rows[1] is not None:
        return rows[1]
    if not row.attempt:  # refused before any attempt
        return row
    raise ValueError(f"step {event.step} has no attempt {event.attempt}")


def _ended(row: StepRow, status: str, at: str) -> None:
    row.status, row.ended_at = status, utc(at)
    if row.started_at is not None:
        row.duration_s = microseconds(row.started_at, row.ended_at) / 1e6


def _error(row: StepRow, error: r.Failure) -> None:
    row.error_type, row.error_message, row.error_class = error.type, error.message, error.error_class
    row.traceback = error.traceback or None


def _failed_status(error_class: str | None) -> str:
    return {"timed_out": "timed_out", "interrupted": "unknown"}.get(error_class or "", "failed")


def _completed(rows: Group, run_id: str, event: r.StepCompleted) -> None:
    row = _of_attempt(rows, event)
    row.result = text(event.result)
    if event.by != "engine":
        row.resolved_by = _person(event.by)
    if row.ended_at is None:
        _ended(row, "completed", event.at)
    row.status = "completed"


def _failed(rows: Group, run_id: str, event: r.StepFailed) -> None:
    row = _of_attempt(rows, event)
    _error(row, event.error)
    row.resolved_by = _person(event.by)
    if row.ended_at is None:
        _ended(row, "failed", event.at)
    row.status = _failed_status(event.error.error_class)


def _person(by: str) -> str:
    """Who, unless it is the program itself."""
    return "" if by.startswith(("engine", "handler")) else by


def _skipped(rows: Group, run_id: str, event: r.StepSkipped) -> None:
    row = _latest(rows, event)
    row.result, row.reason, row.skipped_by = text(event.result), event.reason, event.by
    if row.ended_at is None:
        _ended(row, "skipped", event.at)
    row.status = "skipped"


def _in_doubt(rows: Group, run_id: str, event: r.StepInDoubt) -> None:
    row = _of_attempt(rows, event)
    row.status, row.reason = "unknown", event.reason
    if row.ended_at is None:
        row.ended_at = utc(event.at)


def _probed(rows: Group, run_id: str, event: r.StepProbed) -> None:
    _of_attempt(rows, event).probe = event.outcome


def _compensated(rows: Group, run_id: str, event: r.StepCompensated) -> None:
    if event.step:  # else what is undone was no step of its own: `ctx.compensate(…)` registered it
        _latest(rows, event).status = "compensated"


def _attempt_failed(rows: Group, run_id: str, event: r.StepAttemptFailed) -> None:
    row = _of_attempt(rows, event)
    _error(row, event.error)
    _ended(row, "retrying", event.at)
    row.retry_at = utc(event.retry_at)


def _interrupted(rows: Group, run_id: str, event: r.StepInterrupted) -> None:
    row = _of_attempt(rows, event)
    _ended(row, "interrupted", event.at)
    if event.reason == "crash":
        row.duration_s = None


def _released(rows: Group, run_id: str, event: r.StepReleased) -> None:
    row = _of_attempt(rows, event)
    row.status, row.started_at = "scheduled", None


def _cancelled(rows: Group, run_id: str, event: r.StepCancelled) -> None:
    row = _latest(rows, event)
    if row.ended_at is None:
        _ended(row, "cancelled", event.at)
    row.status = "cancelled"


def _late(rows: Group, run_id: str, event: r.StepLate) -> None:
    evidence: dict[str, Any] = {"at": utc(event.at)}
    if event.error is not None:
        evidence["error"] = event.error
    else:
        evidence["result"] = event.result
    if rows[0] is not None:  # else of an item that a rewind has taken back
        _of_attempt(rows, event).late = json.encode(evidence).decode()


def _cost(rows: Group, run_id: str, event: r.CostRecorded) -> None:
    if rows[0] is None:
        return  # spent outside of any step, or by one that is gone: `costs` and `runs` have it
    row = _of_attempt(rows, event)
    row.cost_usd = money.add(row.cost_usd, event.usd)
    row.model = event.model or row.model
    row.input_tokens += event.input_tokens
    row.output_tokens += event.output_tokens
    row.cache_tokens += event.cache_tokens
    row.turns += event.turns


_FOLDS: dict[str, Callable[[Group, str, Any], None]] = {
    "step.scheduled": _scheduled,
    "step.started": _started,
    "step.completed": _completed,
    "step.failed": _failed,
    "step.attempt_failed": _attempt_failed,
    "step.interrupted": _interrupted,
    "step.released": _released,
    "step.cancelled": _cancelled,
    "step.skipped": _skipped,
    "step.in_doubt": _in_doubt,
    "step.probed": _probed,
    "step.compensated": _compensated,
    "branch.skipped": _branch_skipped,
    "step.late": _late,
    "cost.recorded": _cost,
}
_LATEST_ONLY = frozenset(_FOLDS) - {"step.started", "step.late", "cost.recorded"}
"""They speak of the latest attempt: only evidence and costs may still arrive for an earlier one."""


# ---- events about several steps -----------------------------------------------------------------------


def _terminated(rows: Group, event: r.RunTerminated) -> Group:
    for row in rows:
        if row is not None:
            if row.ended_at is None:
                _ended(row, "cancelled", event.at)
            row.status = "cancelled"
    return rows


def _rewind_keys(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    """All attempts at the steps that never were, and for each that is open again its latest one; with the
    place that each steps aside to."""
    found: list[Key] = []
    never = set(event.dropped)
    for key in look.keys(entry.stream) if never else ():
        if key[1] in never and key[2] >= 0:
            found.append(key)
            row = look.row(key)
            if row.fan_out:
                found.append((*key[:2], _out_of_the_way(row, entry)))
    for step in event.steps:
        row = look.row((entry.stream, step, 0))
        if row is not None:
            found.append((entry.stream, step, 0))
            if row.started_at is not None:
                found.append((entry.stream, step, row.attempt))
    return found


def _out_of_the_way(row: StepRow, entry: Entry) -> int:
    """An item that was taken back is called again under its number, which its map has reserved."""
    return -(entry.version * 10_000 + row.attempt)


def _rewound(rows: Group, entry: Entry, event: r.RunRewound) -> Group:
    never = set(event.dropped)
    now: Group = []
    for row in rows:
        if row is None or (row.superseded and row.step not in never):
            continue  # the place to step aside to: filled with the row before it
        if row.ended_at is None:  # of a run that was not over; what its body still does, nobody knows
            row.status, row.ended_at = ("interrupted" if row.started_at else "cancelled"), utc(event.at)
        elif row.status == "retrying":
            row.status = _failed_status(row.error_class)
        if row.step not in never:
            now += [_afresh(row), _aside(row)] if row.started_at is not None else [_afresh(row)]
            continue
        row.rewound = 1
        if row.fan_out:
            row.superseded = _out_of_the_way(row, entry)
            now.append(None)
        now.append(row)
    return now


_NOTEWORTHY = "status <> 'completed' AND status <> 'cancelled' AND status <> 'compensated'"


class Steps:
    """`steps`: one row per attempt.

    The latest attempt stays under one key (`superseded` 0) and earlier ones step aside to their own: so an
    event that names only its step finds the row without a search, and a row per step is one condition away.
    """

    name = "steps"
    version = 2
    scope: Scope = "runs"
    creates = frozenset({"step.scheduled", "branch.skipped"})
    events: Events = events(*_FOLDS, "run.terminated", "run.rewound")
    finds = MappingProxyType({"run.rewound": _rewind_keys})
    table: Table = table(
        "steps",
        StepRow,
        key=("run_id", "step", "superseded"),
        indexes=(
            # Not `NOT IN` of three: SQLite builds a table of them for each row that is written, 15 µs.
            Index(("status", "run_id", "step"), where=_NOTEWORTHY),
        ),
        rare=(
            "kind",
            "pure",
            "kwargs",
            "error_type",
            "error_message",
            "error_class",
            "traceback",
            "retry_at",
            "max_attempts",
            "timeout_s",
            "cost_usd",
            "model",
            "input_tokens",
            "output_tokens",
            "cache_tokens",
            "turns",
            "fan_out",
            "item",
            "compensate",
            "undoes",
            "optional",
            "total_timeout_s",
            "rewound",
            "skipped_by",
            "reason",
            "resolved_by",
            "probe",
            "late",
        ),
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        tag = entry.tag
        if tag in _LATEST_ONLY:
            return ((entry.stream, event.step, 0),)
        if tag == "step.started":
            if event.attempt == 1:
                return ((entry.stream, event.step, 0),)
            return ((entry.stream, event.step, 0), (entry.stream, event.step, event.attempt - 1))
        if tag == "run.terminated":
            return [(entry.stream, number, 0) for number in event.open]
        return ((entry.stream, event.step, 0), (entry.stream, event.step, event.attempt))

    def fold(self, rows: Group, entry: Entry, event: Any) -> Sequence[StepRow | None]:
        act = _FOLDS.get(entry.tag)
        if act is not None:
            act(rows, entry.stream, event)
            return rows
        return _rewound(rows, entry, event) if entry.tag == "run.rewound" else _terminated(rows, event)


STEPS = Steps()
