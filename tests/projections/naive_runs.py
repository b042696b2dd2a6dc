"""What `runs` must say, worked out the slow and obvious way from whole histories."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from msgspec import to_builtins

from refold.events import types as t
from refold.events.types import Event
from tests.projections.naive import (
    blocked_on,
    blocked_since,
    end_of,
    is_waiting,
    iso,
    of,
    open_children,
    open_gates,
    said,
    standing,
    value,
)  # fmt: skip
from tests.projections.naive_steps import TOKENS, step_rows


def run_row(run_id: str, history: Sequence[Event]) -> dict[str, Any]:
    start, *_ = of(history, t.RunStarted)
    begins = start.start_at or start.at
    row: dict[str, Any] = {
        "run_id": run_id,
        "workflow": start.workflow,
        "version": start.workflow_version,
        "key": start.key,
        "trigger": start.trigger,
        "args": value(start.args),
        "runtime": start.runtime,
        "trace_id": start.trace,
        "started_at": iso(start.at),
        "started_by": start.by,
        "updated_at": iso(history[-1].at),
        "events": len(history),
        "last_version": len(history),
        "timeout_s": start.timeout_s,
        "deadline_at": iso(begins + timedelta(seconds=start.timeout_s)) if start.timeout_s else "",
        "start_at": iso(start.start_at) if start.start_at else None,
        "triggered_by": None if start.triggered_by is None else to_builtins(start.triggered_by),
        **{f: getattr(start, f) for f in ("queue", "priority", "queue_key", "run_on", "lock")},
    }
    claims, asked = of(history, t.RunClaimed), of(history, t.RunCancelRequested)
    row |= {"owner": claims[-1].owner if claims else "", "generation": len(claims)}
    row["cancel_requested"] = (asked[-1].reason or asked[-1].kind) if asked else None
    row |= origin(run_id, start) | labels(start, history) | counts(history) | children(history)
    return row | state(history) | ending(history) | marks(history)


def origin(run_id: str, start: t.RunStarted) -> dict[str, Any]:
    above = start.ancestors
    return {
        "parent_id": above[-1].run_id if above else "",
        "root_id": above[0].run_id if above else run_id,
        "depth": len(above),
        **{f: getattr(start, f) for f in ("child", "detached", "continued_from", "forked_from", "forked_at")},
    }


def labels(start: t.RunStarted, history: Sequence[Event]) -> dict[str, Any]:
    attributes = dict(start.attributes)
    for _, event in standing(history):
        if isinstance(event, t.AttributesSet | t.AttributesChanged):
            attributes |= event.attributes
    attributes = {name: value for name, value in attributes.items() if value is not None}
    title = attributes.get("title")
    return {
        "attributes": attributes,
        "title": title if isinstance(title, str) and title else start.workflow,
    }


def counts(history: Sequence[Event]) -> dict[str, Any]:
    started = of(history, t.StepStarted)
    costs = of(history, t.CostRecorded)
    stopped = sum(
        len(said(history[:n], t.StepAttemptFailed, t.StepInDoubt, *OPEN_STEP))
        for n, event in enumerate(history)
        if isinstance(event, t.RunTerminated)
    )
    return {
        "first_step_at": iso(started[0].at) if started else None,
        "active_s": round(sum(row["duration_s"] or 0 for row in step_rows("", history)), 6),
        "steps_total": len(of(history, t.StepScheduled)),
        "steps_completed": len(of(history, t.StepCompleted)),
        "steps_failed": len(of(history, t.StepFailed)),
        "steps_cancelled": len(of(history, t.StepCancelled)) + stopped,
        "steps_skipped": len(of(history, t.StepSkipped, t.BranchSkipped)),
        "attempts": len(started) - len(of(history, t.StepReleased)),
        "retries": len(of(history, t.StepAttemptFailed)),
        "recoveries": len(of(history, t.StepInterrupted)),
        "signals": len(of(history, t.SignalReceived)),
        "cost_usd": sum((e.usd for e in costs), Decimal(0)),
        **{f: sum(getattr(e, f) for e in costs) for f in TOKENS},
    }


OPEN_STEP = (t.StepScheduled, t.StepStarted, t.StepInterrupted, t.StepReleased, t.RunRewound)


def children(history: Sequence[Event]) -> dict[str, Any]:
    ends = of(history, t.ChildEnded)
    messages = {e.inbox: e for e in ends}
    usd = sum((e.spent.usd for e in messages.values()), Decimal(0))
    bad = ("failed", "terminated", "compensated", "compensation_failed")
    return {
        "children_total": len(of(history, t.ChildStarted)),
        "children_failed": sum(e.status in bad for e in messages.values()),
        "children_usd": usd,
        **{f"children_{f}": sum(getattr(e.spent, f) for e in messages.values()) for f in TOKENS},
        "total_usd": usd + sum((e.usd for e in of(history, t.CostRecorded)), Decimal(0)),
    }


def state(history: Sequence[Event]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        (
            "blocked_on",
            "blocked_since",
            "attention_since",
            "attention_reason",
            "attention_next_at",
            "paused_since",
        )
    )
    row |= {"blocked_type": "", "paused_since": None, "paused_by": ""}
    end = end_of(history)
    if end is not None:
        over = dict.fromkeys(("steps_running", "children_running", "gates_open"), 0)
        return {**row, **over, "status": end.TAG[4:], "attention": "none"}
    row |= {
        "status": status(history),
        "steps_running": len(said(history, t.StepStarted)),
        "children_running": len(open_children(history)),
        "gates_open": len(open_gates(history)),
        **attention(history),
    }
    if pause := paused(history):
        row |= {"paused_since": iso(pause.at), "paused_by": pause.by, "blocked_since": iso(pause.at)}
        row["blocked_on"] = {"type": "paused"}
    elif row["status"] == "pending" and (reason := not_yet(history)):
        first = None if of(history, t.RunClaimed) else iso(history[0].at)
        row |= {"blocked_on": reason, "blocked_since": first}
    elif is_waiting(history):
        row |= {"blocked_on": blocked_on(history), "blocked_since": blocked_since(history)}
    row["blocked_type"] = row["blocked_on"]["type"] if row["blocked_on"] else ""
    return row


def not_yet(history: Sequence[Event]) -> dict[str, Any] | None:
    start, claimed = of(history, t.RunStarted)[0], of(history, t.RunClaimed)
    if start.start_at and not claimed:
        return {"type": "timer", "timer": 0, "due_at": iso(start.start_at)}
    if start.queue:
        return {"type": "queue", "name": start.queue, "key": start.queue_key}
    return {"type": "worker", "tag": start.run_on} if start.run_on else None


def paused(history: Sequence[Event]) -> Event | None:
    last = of(history, t.RunPaused, t.RunResumed, t.RunRewound, *t.ENDS)
    return last[-1] if last and isinstance(last[-1], t.RunPaused) else None


def status(history: Sequence[Event]) -> str:
    if paused(history):
        return "paused"
    if not has_begun(history):
        return "pending"
    last = of(history, t.CompensationStarted, t.RunRewound, *t.ENDS)
    if last and isinstance(last[-1], t.CompensationStarted):
        return "compensating"
    return "waiting" if is_waiting(history) else "running"


def has_begun(history: Sequence[Event]) -> bool:
    """One of a queue that had ended waits for a place again."""
    signs = (t.RunClaimed, t.StepScheduled, t.TimerStarted, t.WaitOpened, t.GateOpened, t.ChildStarted)
    queue, begun, over = of(history, t.RunStarted)[0].queue, False, False
    for event in history:
        if isinstance(event, t.RunRewound | t.RunReopened):
            begun = not (over and queue)
        over = isinstance(event, t.ENDS) or (over and not isinstance(event, t.RunRewound | t.RunReopened))
        begun = begun or isinstance(event, signs)
    return begun


def attention(history: Sequence[Event]) -> dict[str, Any]:
    retries, doubts = said(history, t.StepAttemptFailed), said(history, t.StepInDoubt)
    row: dict[str, Any] = {"attention_next_at": min((iso(e.retry_at) for e in retries), default=None)}
    ended = max((n for n, e in enumerate(history) if isinstance(e, t.ENDS)), default=-1)
    alerts = of(history[ended + 1 :], t.RunAttention)
    if alerts and alerts[-1].kind != "none":
        same = len(alerts) - 1
        while same and alerts[same - 1].kind == alerts[-1].kind:
            same -= 1
        last = alerts[-1]
        return row | {
            "attention": last.kind, "attention_since": iso(alerts[same].at), "attention_reason": last.reason,
        }  # fmt: skip
    if doubts:
        return row | {
            "attention": "in_doubt",
            "attention_since": iso(doubts[0].at),
            "attention_reason": doubts[0].reason,
        }
    if not retries:
        return row | {"attention": "none", "attention_reason": alerts[-1].reason if alerts else None}
    since = next(n for n in range(len(history), 0, -1) if not said(history[: n - 1], t.StepAttemptFailed))
    error = of(history, t.StepAttemptFailed)[-1].error
    return row | {
        "attention": "retrying",
        "attention_since": iso(history[since - 1].at),
        "attention_reason": f"{error.type}: {error.message}",
    }


def ending(history: Sequence[Event]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("result", "error_type", "error_message", "error_class", "ended_at", "wall_s")
    )
    row |= {"ended_by": "", "continued_to": ""}
    again = (t.RunRewound, t.RunReopened)
    ends = [n for n, e in enumerate(history) if isinstance(e, again) and end_of(history[:n])]
    row["run_attempt"] = 1 + len(ends)
    end: Any = end_of(history)
    if end is None:
        return row
    row |= {"ended_at": iso(end.at), "wall_s": (end.at - history[0].at).total_seconds()}
    error = getattr(end, "error", None)
    if error is not None:
        row |= {f"error_{f}": getattr(error, f) for f in ("type", "message")}
        row["error_class"] = error.error_class
    match end:
        case t.RunCompleted():
            row["result"] = value(end.result)
        case t.RunCancelled():
            row |= {"error_message": end.reason or None, "error_class": end.kind}
        case t.RunTerminated():
            row |= {"error_message": end.reason or None, "ended_by": end.by}
        case t.RunContinued():
            row["continued_to"] = end.next_run
    return row


def marks(history: Sequence[Event]) -> dict[str, Any]:
    """What is only noted."""
    names = [e.name for e in of(history, t.PatchApplied)]
    checkpoints, dismissals = of(history, t.CheckpointRecorded), of(history, t.RunDismissed)
    why = of(history, t.CompensationStarted, t.RunCompensated, t.RunCompensationFailed)
    begun = max((n for n, e in enumerate(history) if isinstance(e, t.CompensationStarted)), default=0)
    plans = of(history, t.CompensationStarted)
    failed = of(history[begun:], t.RunCompensationFailed)
    return {
        "patches": list(dict.fromkeys(names)),
        "last_checkpoint": checkpoints[-1].name if checkpoints else "",
        "dismissed": dismissals[-1].dismissed if dismissals else False,
        "compensation_because": why[-1].because if why else "",
        "compensation_total": len(plans[-1].steps) if plans else 0,
        "compensation_done": len(of(history[begun:], t.StepCompensated)),
        "compensation_failed": list(failed[-1].failed) if failed else [],
    }
