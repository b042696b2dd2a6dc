"""`steps`: one row per attempt at a step."""

import copy
from collections.abc import Callable, Sequence
from hashlib import sha1, sha256
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Struct, json

from ..events.stream import Row as Entry
from . import money, reading as r
from .projection import Events, Index, Key, Scope, Table, column, table
from .reading import microseconds, text, utc


class StepRow(Struct, gc=False):
    """A row of `steps`."""

    run_id: Annotated[str, column("The run.")]
    step: Annotated[int, column("Number of the step: its place among the commands of the run.")]
    superseded: Annotated[
        int,
        column("0 for the latest attempt at the step; for an earlier one, its number. `superseded = 0` is a "
               "row per step."),
    ]  # fmt: skip
    attempt: Annotated[
        int, column("Number of the attempt, from 1; 0: called by the handler, not started yet.")
    ] = 0
    key: Annotated[str, column("Readable and unique in the run: name and ordinal, `charge#2`.")] = ""
    name: Annotated[str, column("Name of the step.")] = ""
    kind: Annotated[str, column("`step`, `call` or `custom:<kind>`.")] = "step"
    ordinal: Annotated[int, column("How many steps of this name the run had called, this one included.")] = 0
    iteration: Annotated[
        int, column("How often this task had called this step from this place before: 0, 1, 2 …")
    ] = 0
    status: Annotated[
        str,
        column(
            "`scheduled` (not begun), `running`, `completed`, `failed`, `timed_out`, `retrying` (failed, the "
            "next attempt is at `retry_at`), `cancelled` (given up), `interrupted` (the process "
            "ended while it ran) or `unknown` (interrupted, and not to be repeated).",
            "step_status",
        ),
    ] = "scheduled"
    task: Annotated[str, column("Path of the task that called it; `m` is the handler itself.")] = ""
    site: Annotated[str, column("Where the handler called it: `shop.py:41`.")] = ""
    pure: Annotated[int, column("1: declared to have no effect outside, so running it again is harmless.",
                                "flag")] = 0  # fmt: skip
    args: Annotated[str, column("Positional arguments: a JSON array.", "json")] = "[]"
    kwargs: Annotated[str, column("Keyword arguments: a JSON object.", "json")] = "{}"
    args_hash: Annotated[
        str, column("First 16 hex digits of the SHA-256 of `args` and `kwargs` as stored.")
    ] = ""
    result: Annotated[str | None, column("What it returned, once completed: JSON.", "json")] = None
    error_type: Annotated[str | None, column("Class of the error of this attempt.")] = None
    error_message: Annotated[str | None, column("Its message.")] = None
    error_class: Annotated[
        str | None,
        column("`error`, `non_retryable`, `timed_out`, `interrupted`, `value_refused` or `divergence`."),
    ] = None
    traceback: Annotated[str | None, column("Its traceback, cut to 8 KiB.")] = None
    scheduled_at: Annotated[str, column("When the handler called it.")] = ""
    started_at: Annotated[str | None, column("When this attempt was allowed to begin.")] = None
    ended_at: Annotated[
        str | None, column("When this attempt ended; for an interrupted one, when that was found out.")
    ] = None
    duration_s: Annotated[
        float | None,
        column("Seconds from `started_at` to `ended_at`; empty after a crash, for nobody knows."),
    ] = None
    retry_at: Annotated[str | None, column("When the next attempt is, or was, due.")] = None
    max_attempts: Annotated[int, column("How many attempts it may have.")] = 1
    timeout_s: Annotated[float, column("Limit of one attempt in seconds; 0: none.")] = 0.0
    idempotency_key: Annotated[str, column("`run_id/key`: the same for all attempts.")] = ""
    trace_id: Annotated[
        str, column("UUIDv5 of run and key: the same for all attempts and on every replay.")
    ] = ""
    cost_usd: Annotated[str, column("US dollars this attempt has spent: exact decimal text.", "money")] = "0"
    model: Annotated[str, column("The model last named in its costs.")] = ""
    input_tokens: Annotated[int, column("Tokens this attempt sent to models.")] = 0
    output_tokens: Annotated[int, column("Tokens it received from models.")] = 0
    cache_tokens: Annotated[int, column("Tokens served from a cache.")] = 0
    turns: Annotated[int, column("Turns of agents.")] = 0
    late: Annotated[
        str | None,
        column(
            'Evidence: what its body came to when nobody waited any more, `{"at":…,"result":…}` or '
            '`{"at":…,"error":…}`.',
            "json",
        ),
    ] = None


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
    row.args_hash = sha256((args + kwargs).encode()).hexdigest()[:16]
    row.scheduled_at = utc(event.at)
    row.max_attempts, row.timeout_s = event.max_attempts, event.timeout_s
    row.idempotency_key, row.trace_id = f"{run_id}/{key}", _trace_id(run_id, key)


def _started(rows: Group, run_id: str, event: r.StepStarted) -> None:
    """A row that has not begun becomes this attempt; one that has steps aside."""
    row = _latest(rows, event)
    if row.status != "scheduled":
        earlier = copy.copy(row)
        earlier.superseded = earlier.attempt
        if earlier.status == "retrying":
            earlier.status = _failed_status(earlier.error_class)
        rows[1] = earlier
        row = rows[0] = _afresh(row)
    row.attempt, row.status, row.started_at = event.attempt, "running", utc(event.at)


def _afresh(row: StepRow) -> StepRow:
    """The next attempt at the same call: what the call said, and nothing of what came of it."""
    new = StepRow(row.run_id, row.step, 0)
    for name in _OF_THE_CALL:
        setattr(new, name, getattr(row, name))
    return new


_OF_THE_CALL = (
    "key", "name", "kind", "ordinal", "iteration", "task", "site", "pure", "args", "kwargs", "args_hash",
    "scheduled_at", "max_attempts", "timeout_s", "idempotency_key", "trace_id",
)  # fmt: skip


def _latest(rows: Group, event: Any) -> StepRow:
    row = rows[0]
    if row is None:
        raise ValueError(f"step {event.step} was never scheduled")
    return row


def _of_attempt(rows: Group, event: Any) -> StepRow:
    """The row of the attempt that the event names: the latest, or an earlier one."""
    row = _latest(rows, event)
    if row.attempt in (event.attempt, 0):  # 0: refused before any attempt
        return row
    if len(rows) > 1 and rows[1] is not None:
        return rows[1]
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
    _ended(row, "completed", event.at)


def _failed(rows: Group, run_id: str, event: r.StepFailed) -> None:
    row = _of_attempt(rows, event)
    _error(row, event.error)
    if row.ended_at is None:
        _ended(row, "failed", event.at)
    row.status = _failed_status(event.error.error_class)


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
    _of_attempt(rows, event).late = json.encode(evidence).decode()


def _cost(rows: Group, run_id: str, event: r.CostRecorded) -> None:
    if rows[0] is None:
        return  # spent by the run outside of any step: `costs` and `runs` have it
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
    "step.late": _late,
    "cost.recorded": _cost,
}
_LATEST_ONLY = frozenset(_FOLDS) - {"step.started", "step.late", "cost.recorded"}
"""They speak of the latest attempt: only evidence and costs may still arrive for an earlier one."""


class Steps:
    """`steps`: one row per attempt.

    The latest attempt stays under one key (`superseded` 0) and earlier ones step aside to their own: so an
    event that names only its step finds the row without a search, and a row per step is one condition away.
    """

    name = "steps"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"step.scheduled"})
    events: Events = MappingProxyType({tag: r.EVENTS[tag] for tag in _FOLDS})
    table: Table = table(
        "steps",
        StepRow,
        key=("run_id", "step", "superseded"),
        indexes=(Index(("status", "run_id", "step"), where="status NOT IN ('completed', 'cancelled')"),),
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        tag = entry.tag
        if tag in _LATEST_ONLY:
            return ((entry.stream, event.step, 0),)
        if tag == "step.started":
            if event.attempt == 1:
                return ((entry.stream, event.step, 0),)
            return ((entry.stream, event.step, 0), (entry.stream, event.step, event.attempt - 1))
        return ((entry.stream, event.step, 0), (entry.stream, event.step, event.attempt))

    def fold(self, rows: Group, entry: Entry, event: Any) -> Sequence[StepRow | None]:
        _FOLDS[entry.tag](rows, entry.stream, event)
        return rows


STEPS = Steps()
