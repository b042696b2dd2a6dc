"""`runs`: one row per run, how it stands and what it has cost so far."""

from collections.abc import Sequence

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w, run_life, run_steps, run_waits
from .projection import Events, Index, Key, Scope, Table, table
from .reading import utc
from .run_memory import RunState, dump, load
from .run_row import RunRow
from .vocabulary import EVENTS

_FOLDS = {**run_steps.FOLDS, **run_waits.FOLDS, **run_life.FOLDS}
_AFTER_THE_END = frozenset(
    {
        r.CostRecorded, w.ChildCopied, r.AttributesSet, r.AttributesChanged, r.RunDismissed, r.RunRewound,
        r.RunReopened,
    }
)  # fmt: skip
"""What may still happen to a run that is over: bodies unwind, children end, people look at it."""
_ACTIVATES = frozenset(
    {
        r.RunStarted, r.StepCompleted, r.StepFailed, r.StepSkipped, w.TimerFired, w.SignalReceived,
        w.GateVoted, w.ChildCopied, r.RunCancelRequested, r.CompensateRequested, r.RunReopened,
        r.AttributesChanged,
    }
)  # fmt: skip
"""Causes: the handler has run, so what it waits for it has waited for since then."""
_LISTED = "dismissed = 0"


class Runs:
    """`runs`: one row per run."""

    name = "runs"
    version = 3
    scope: Scope = "runs"
    creates = frozenset({"run.started"})
    per_run = True
    events: Events = EVENTS
    table: Table = table(
        "runs",
        RunRow,
        key=("run_id",),
        indexes=(
            Index(("started_at", "run_id"), _LISTED),
            Index(("status", "started_at", "run_id"), _LISTED),
            Index(("workflow", "version", "started_at", "run_id"), _LISTED),
            Index(("workflow", "version", "status"), "ended_at IS NULL"),
            Index(("started_at", "run_id"), "dismissed <> 0"),
            Index(("attention", "started_at", "run_id"), "attention <> 'none'"),
            Index(("started_at", "run_id"), "attention <> 'none'"),
            Index(("blocked_type", "started_at", "run_id"), "blocked_type <> ''"),
            Index(("parent_id", "started_at", "run_id"), "parent_id <> ''"),
            Index(("root_id", "started_at", "run_id"), "parent_id <> ''"),
            Index(("lock", "started_at", "run_id"), "lock <> '' AND ended_at IS NULL"),
            Index(("trigger", "started_at", "run_id"), "trigger NOT IN ('manual', 'parent')"),
        ),
        load=load,
        dump=dump,
        rare=(
            "blocked_on", "blocked_type", "blocked_since", "attention", "attention_since", "attention_reason",
            "attention_next_at", "key", "triggered_by", "start_at", "queue", "priority", "queue_key",
            "run_on", "lock", "parent_id", "depth", "child", "detached", "continued_from",
            "continued_to", "forked_from", "forked_at", "error_type", "error_message", "error_class",
            "ended_by", "timeout_s", "deadline_at", "run_attempt", "steps_failed", "steps_cancelled",
            "steps_skipped", "retries", "recoveries", "signals", "cost_usd", "input_tokens", "output_tokens",
            "cache_tokens", "turns", "children_total", "children_running", "children_failed", "children_usd",
            "children_input_tokens", "children_output_tokens", "children_cache_tokens", "children_turns",
            "total_usd", "gates_open", "cancel_requested", "paused_since", "paused_by", "dismissed",
            "patches",
            "last_checkpoint", "compensation_because", "compensation_total", "compensation_done",
            "compensation_failed",
        ),
    )  # fmt: skip

    def keys(self, entry: Entry, event: r.Seen) -> Sequence[Key]:
        return ((entry.stream,),)

    def fold(self, rows: list[RunState | None], entry: Entry, event: r.Seen) -> Sequence[RunState | None]:
        row, kind = rows[0], type(event)
        if row is None:
            if kind is not r.RunStarted:
                raise ValueError(f"{entry.tag} of a run that has not started")
            row = rows[0] = RunState(entry.stream)
        at = event.at
        row.updated_at = at if len(at) == 27 and at[-1] == "Z" else utc(at)  # spares a call per event
        row.last_version = entry.version
        row.events += 1
        act = _FOLDS.get(kind)
        if act is not None and (row.ended_at is None or kind in _AFTER_THE_END):
            act(row, event)
        state = row.state
        if state.queued or state.running:
            state.waiting = False
            return rows
        waits = bool(
            state.waits or state.timers or state.retries or state.children or state.gates or state.doubts
        )
        if waits and (kind in _ACTIVATES or not state.waiting):
            state.blocked_since = row.updated_at
        state.waiting = waits
        return rows


RUNS = Runs()
