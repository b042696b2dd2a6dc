"""What the read models must say, worked out the slow and obvious way from whole histories.

Nothing is carried along from event to event: every column asks the list of events anew.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from refold.events import types as t
from refold.events.clock import step_trace_id
from refold.events.types import Event

Rows = list[dict[str, Any]]
CAUSES = t.CAUSES


def iso(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def of(events: Sequence[Event], *kinds: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


def value(raw: Any) -> Any:
    return msgspec.json.decode(raw)


# ---- what is open after some events -----------------------------------------------------------------


def last_word(events: Sequence[Event], step: int) -> Event | None:
    """The last event that says how a step stands."""
    kinds = (
        t.StepScheduled, t.StepStarted, t.StepCompleted, t.StepFailed, t.StepAttemptFailed,
        t.StepInterrupted, t.StepReleased, t.StepCancelled,
    )  # fmt: skip
    return next((e for e in reversed(of(events, *kinds)) if e.step == step), None)


def steps_of(events: Sequence[Event]) -> list[int]:
    return [e.step for e in of(events, t.StepScheduled)]


def open_waits(events: Sequence[Event]) -> list[t.WaitOpened]:
    waits: list[t.WaitOpened] = []
    early: list[str] = []
    for e in events:
        if isinstance(e, t.WaitOpened):
            if e.name in early:
                early.remove(e.name)
            else:
                waits.append(e)
        elif isinstance(e, t.WaitCancelled):
            waits = [w for w in waits if w.wait != e.wait]
        elif isinstance(e, t.SignalReceived):
            taker = next((w for w in waits if w.name == e.name), None)
            if taker is None:
                early.append(e.name)
            else:
                waits.remove(taker)
    return waits


def open_timers(events: Sequence[Event]) -> list[t.TimerStarted]:
    closed = {e.timer for e in of(events, t.TimerFired, t.TimerCancelled)}
    return [e for e in of(events, t.TimerStarted) if e.timer not in closed]


def backoffs(events: Sequence[Event]) -> list[t.StepAttemptFailed]:
    words = [last_word(events, step) for step in steps_of(events)]
    return [word for word in words if isinstance(word, t.StepAttemptFailed)]


def is_waiting(events: Sequence[Event]) -> bool:
    busy = (t.StepScheduled, t.StepStarted, t.StepInterrupted, t.StepReleased)
    if any(isinstance(last_word(events, step), busy) for step in steps_of(events)):
        return False
    return bool(open_waits(events) or open_timers(events) or backoffs(events))


def blocked_on(events: Sequence[Event]) -> dict[str, Any]:
    waits, timers, retries = open_waits(events), open_timers(events), backoffs(events)
    due = [iso(timer.due_at) for timer in timers]
    if waits:
        deadline = {"due_at": min(due)} if due else {}
        return {"type": "event", "wait": waits[0].wait, "name": waits[0].name, **deadline}
    if retries:
        first = min(retries, key=lambda e: (e.retry_at, e.step))
        return {"type": "retry", "step": first.step, "due_at": iso(first.retry_at)}
    timer = min(timers, key=lambda e: (e.due_at, e.timer))
    return {"type": "timer", "timer": timer.timer, "due_at": iso(timer.due_at)}


def blocked_since(events: Sequence[Event]) -> str:
    """The last event after which the run came to wait: a cause, or one before which it did not wait."""
    for n in range(len(events), 0, -1):
        if isinstance(events[n - 1], CAUSES) or not is_waiting(events[: n - 1]):
            return iso(events[n - 1].at)
    raise AssertionError("a run begins with a cause")


# ---- runs -------------------------------------------------------------------------------------------


def run_row(run_id: str, history: Sequence[Event]) -> dict[str, Any]:
    start, *_ = of(history, t.RunStarted)
    title = start.attributes.get("title")
    row: dict[str, Any] = {
        "run_id": run_id,
        "workflow": start.workflow,
        "version": start.workflow_version,
        "title": title if isinstance(title, str) and title else start.workflow,
        "key": start.key,
        "trigger": start.trigger,
        "attributes": start.attributes,
        "args": value(start.args),
        "runtime": start.runtime,
        "trace_id": start.trace,
        "started_at": iso(start.at),
        "updated_at": iso(history[-1].at),
        "events": len(history),
        "last_version": len(history),
    }
    (end,) = of(history, *t.ENDS) or [None]
    before = history if end is None else history[: history.index(end)]
    row |= counts(history, before) | state(before, end) | ending(start, end)
    claims = of(before, t.RunClaimed)
    row |= {"owner": claims[-1].owner if claims else "", "generation": len(claims)}
    asked = of(before, t.RunCancelRequested)
    row["cancel_requested"] = (asked[-1].reason or asked[-1].kind) if asked else None
    return row


def counts(history: Sequence[Event], before: Sequence[Event]) -> dict[str, Any]:
    started = of(before, t.StepStarted)
    costs = of(history, t.CostRecorded)
    attempts = step_rows("", history)
    return {
        "first_step_at": iso(started[0].at) if started else None,
        "active_s": round(sum(row["duration_s"] or 0 for row in attempts), 6),
        "steps_total": len(of(before, t.StepScheduled)),
        "steps_completed": len(of(before, t.StepCompleted)),
        "steps_failed": len(of(before, t.StepFailed)),
        "steps_cancelled": len(of(before, t.StepCancelled)),
        "attempts": len(started) - len(of(before, t.StepReleased)),
        "retries": len(of(before, t.StepAttemptFailed)),
        "recoveries": len(of(before, t.StepInterrupted)),
        "signals": len(of(before, t.SignalReceived)),
        "cost_usd": sum((e.usd for e in costs), Decimal(0)),
        **{f: sum(getattr(e, f) for e in costs) for f in TOKENS},
    }


TOKENS = ("input_tokens", "output_tokens", "cache_tokens", "turns")


def state(before: Sequence[Event], end: Event | None) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("blocked_on", "blocked_since", "attention_since", "attention_reason", "attention_next_at")
    )
    if end is not None:
        return {**nothing, "status": end.TAG[4:], "attention": "none", "steps_running": 0}
    begun = of(before, t.RunClaimed, t.StepScheduled, t.TimerStarted, t.WaitOpened)
    status = "pending" if not begun else "waiting" if is_waiting(before) else "running"
    running = [step for step in steps_of(before) if isinstance(last_word(before, step), t.StepStarted)]
    row = {**nothing, "status": status, "steps_running": len(running), **attention(before)}
    if status == "waiting":
        row |= {"blocked_on": blocked_on(before), "blocked_since": blocked_since(before)}
    return row


def attention(before: Sequence[Event]) -> dict[str, Any]:
    retries = backoffs(before)
    next_at = min((iso(e.retry_at) for e in retries), default=None)
    said = of(before, t.RunAttention)
    if said and said[-1].kind != "none":
        same = len(said) - 1
        while same and said[same - 1].kind == said[-1].kind:
            same -= 1
        return {
            "attention": said[-1].kind,
            "attention_since": iso(said[same].at),
            "attention_reason": said[-1].reason,
            "attention_next_at": next_at,
        }
    if not retries:
        return {"attention": "none", "attention_reason": said[-1].reason if said else None}
    since = next(n for n in range(len(before), 0, -1) if not backoffs(before[: n - 1]))
    last = of(before, t.StepAttemptFailed)[-1]
    return {
        "attention": "retrying",
        "attention_since": iso(before[since - 1].at),
        "attention_reason": f"{last.error.type}: {last.error.message}",
        "attention_next_at": next_at,
    }


def ending(start: Event, end: Event | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("result", "error_type", "error_message", "error_class", "ended_at", "wall_s")
    )
    if end is None:
        return row
    row |= {"ended_at": iso(end.at), "wall_s": (end.at - start.at).total_seconds()}
    if isinstance(end, t.RunCompleted):
        row["result"] = value(end.result)
    elif isinstance(end, t.RunFailed):
        row |= {f"error_{f}": getattr(end.error, f) for f in ("type", "message")}
        row["error_class"] = end.error.error_class
    elif isinstance(end, t.RunCancelled):
        row |= {"error_message": end.reason or None, "error_class": end.kind}
    return row


# ---- steps ------------------------------------------------------------------------------------------


def step_rows(run_id: str, history: Sequence[Event]) -> Rows:
    rows: Rows = []
    for call in of(history, t.StepScheduled):
        numbers = [e.attempt for e in of(history, t.StepStarted) if e.step == call.step]
        released = [e.attempt for e in of(history, t.StepReleased) if e.step == call.step]
        # A start that was taken back counts only when nothing came after it.
        attempts = sorted(n for n in set(numbers) if n == numbers[-1] or numbers.count(n) > released.count(n))
        for attempt in attempts or [0]:
            latest = attempt == (attempts or [0])[-1]
            rows.append(attempt_row(run_id, call, attempt, latest, history))
    return rows


def attempt_row(
    run_id: str, call: t.StepScheduled, attempt: int, latest: bool, history: Sequence[Event]
) -> dict[str, Any]:
    mine = [
        e for e in history if getattr(e, "step", None) == call.step and getattr(e, "attempt", 0) == attempt
    ]
    starts, gone = of(mine, t.StepStarted), of(mine, t.StepReleased)
    began = starts[-1].at if len(starts) > len(gone) else None
    row: dict[str, Any] = {
        "run_id": run_id,
        "step": call.step,
        "superseded": 0 if latest else attempt,
        "attempt": attempt,
        **{f: getattr(call, f) for f in ("key", "name", "kind", "iteration", "task", "site", "pure")},
        **{f: getattr(call, f) for f in ("max_attempts", "timeout_s")},
        "ordinal": int(call.key.split("#")[1]),
        "args": value(call.args),
        "kwargs": value(call.kwargs),
        "idempotency_key": f"{run_id}/{call.key}",
        "trace_id": step_trace_id(run_id, call.key),
        "scheduled_at": iso(call.at),
        "started_at": iso(began) if began else None,
    }
    cancelled = [e for e in of(history, t.StepCancelled) if e.step == call.step and latest]
    ends = of(mine, t.StepCompleted, t.StepFailed, t.StepAttemptFailed, t.StepInterrupted) + cancelled
    errors = of(mine, t.StepFailed, t.StepAttemptFailed)
    error = errors[-1].error if errors else None
    results, late = of(mine, t.StepCompleted), of(mine, t.StepLate)
    retries, costs = of(mine, t.StepAttemptFailed), of(mine, t.CostRecorded)
    models = [e.model for e in costs if e.model]
    crashed = bool(ends) and isinstance(ends[0], t.StepInterrupted) and ends[0].reason == "crash"
    return row | {
        "status": attempt_status(ends, bool(began), latest),
        "ended_at": iso(ends[0].at) if ends else None,
        "duration_s": (ends[0].at - began).total_seconds() if ends and began and not crashed else None,
        "result": value(results[0].result) if results else None,
        **{f"error_{f}": getattr(error, f, None) for f in ("type", "message")},
        "error_class": error.error_class if error else None,
        "traceback": None,
        "retry_at": iso(retries[-1].retry_at) if retries else None,
        "late": evidence(late[-1]) if late else None,
        "cost_usd": sum((e.usd for e in costs), Decimal(0)),
        "model": models[-1] if models else "",
        **{f: sum(getattr(e, f) for e in costs) for f in TOKENS},
    }


def attempt_status(ends: Sequence[Any], began: bool, latest: bool) -> str:
    if not ends:
        return "running" if began else "scheduled"
    match last := ends[-1]:
        case t.StepCompleted():
            return "completed"
        case t.StepCancelled():
            return "cancelled"
        case t.StepInterrupted():
            return "interrupted"
        case t.StepAttemptFailed() if latest:
            return "retrying"
    return {"timed_out": "timed_out", "interrupted": "unknown"}.get(last.error.error_class, "failed")


def evidence(late: t.StepLate) -> dict[str, Any]:
    if late.error is None:
        return {"at": iso(late.at), "result": value(late.result)}
    error = {f: getattr(late.error, f) for f in ("type", "message", "error_class", "traceback")}
    return {"at": iso(late.at), "error": error}


# ---- edges and costs ---------------------------------------------------------------------------------


def edge_rows(run_id: str, history: Sequence[Event]) -> Rows:
    return [
        {"run_id": run_id, "to_step": call.step, "from_step": before}
        for call in of(history, t.StepScheduled)
        for before in sorted(call.after)
    ]


def cost_rows(run_id: str, history: Sequence[Event]) -> Rows:
    costs = of(history, t.CostRecorded)
    rows: Rows = []
    for step, model, day in sorted({(e.step, e.model, iso(e.at)[:10]) for e in costs}):
        same = [e for e in costs if (e.step, e.model, iso(e.at)[:10]) == (step, model, day)]
        rows.append(
            {
                "run_id": run_id,
                "step": step,
                "model": model,
                "day": day,
                "usd": sum((e.usd for e in same), Decimal(0)),
                **{f: sum(getattr(e, f) for e in same) for f in TOKENS},
                "entries": len(same),
            }
        )
    return rows
