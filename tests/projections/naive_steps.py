"""What `steps`, `step_edges` and `costs` must say, worked out the slow and obvious way."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec import Raw

from refold.events import types as t
from refold.events.clock import step_trace_id
from refold.events.types import Event
from tests.projections.naive import Rows, iso, of, value

TOKENS = ("input_tokens", "output_tokens", "cache_tokens", "turns")


def dropped(history: Sequence[Event]) -> set[int]:
    """Numbers that a rewind has taken back."""
    return {number for e in of(history, t.RunRewound) for number in e.dropped}


def calls(whole: Sequence[Event]) -> list[tuple[t.StepScheduled, Sequence[Event]]]:
    """The calls of steps, each with the events up to the next one under the same number."""
    scheduled = [(n, e) for n, e in enumerate(whole) if isinstance(e, t.StepScheduled)]
    found: list[tuple[t.StepScheduled, Sequence[Event]]] = []
    for n, call in scheduled:
        end = next((m for m, e in scheduled if m > n and e.step == call.step), len(whole))
        nothing = [t.CauseHeld(id="", at=call.at, tag="", body=Raw(b""))] * n
        found.append((call, [*nothing, *whole[n:end]]))  # so that versions stay what they are
    return found


def step_rows(run_id: str, history: Sequence[Event]) -> Rows:
    rows = [left_out(run_id, event, history) for event in of(history, t.BranchSkipped)]
    for call, since in calls(history):
        numbers = [e.attempt for e in of(since, t.StepStarted) if e.step == call.step]
        released = [e.attempt for e in of(since, t.StepReleased) if e.step == call.step]
        # A start that was taken back counts only when nothing came after it.
        now = current(since, call.step)
        attempts = sorted(n for n in set(numbers) if n == now or numbers.count(n) > released.count(n))
        if not now:
            attempts.append(0)
        for attempt in attempts:
            rows.append(attempt_row(run_id, call, attempt, attempt == attempts[-1], since))
    return rows


def current(history: Sequence[Event], step: int) -> int:
    """The latest attempt at the step; 0: none, or not since it was opened again."""
    attempt = 0
    for e in history:
        if isinstance(e, t.StepStarted) and e.step == step:
            attempt = e.attempt
        elif isinstance(e, t.RunRewound) and step in e.steps:
            attempt = 0
    return attempt


def concerning(history: Sequence[Event], step: int, attempt: int) -> list[Any]:
    """What is said of one attempt, by its number or because it is the latest."""
    found: list[Any] = []
    for n, e in enumerate(history):
        open_again = isinstance(e, t.RunRewound) and step in e.steps
        named_attempt = getattr(e, "attempt", None)
        if getattr(e, "step", None) == step:
            now = current(history[:n], step) if named_attempt is None else named_attempt
            concerned = now == attempt
        else:
            named = (
                {*getattr(e, "steps", ()), *getattr(e, "dropped", ())} if isinstance(e, t.RunRewound) else ()
            )
            left = e.open if isinstance(e, t.RunTerminated) else ()
            concerned = (step in named or step in left) and current(history[:n], step) == attempt
        if concerned:
            found.append(e)
        if open_again and len(of(found, t.StepStarted)) == len(of(found, t.StepReleased)):
            found = []  # a call that has not begun is made anew
    return found


def attempt_row(
    run_id: str, call: t.StepScheduled, attempt: int, latest: bool, history: Sequence[Event]
) -> dict[str, Any]:
    mine = concerning(history, call.step, attempt)
    starts, gone = of(mine, t.StepStarted), of(mine, t.StepReleased)
    began = starts[-1].at if len(starts) > len(gone) else None
    row: dict[str, Any] = {
        "run_id": run_id,
        "step": call.step,
        "superseded": place(call, attempt, latest, history),
        "attempt": attempt,
        **{f: getattr(call, f) for f in OF_THE_CALL},
        "ordinal": int(call.key.split("#")[1]),
        "args": value(call.args),
        "kwargs": value(call.kwargs),
        "idempotency_key": f"{run_id}/{call.key}",
        "trace_id": step_trace_id(run_id, call.key),
        "scheduled_at": iso(call.at),
        "started_at": iso(began) if began else None,
        "rewound": call.step in dropped(history),
    }
    return row | outcome(mine, began, latest) | spent(mine)


def place(call: t.StepScheduled, attempt: int, latest: bool, history: Sequence[Event]) -> int:
    taken_back = next((n for n, e in enumerate(history, 1) if call.step in getattr(e, "dropped", ())), 0)
    if call.fan_out and taken_back:
        return -(taken_back * 10_000 + attempt)
    return 0 if latest else attempt


OF_THE_CALL = (
    "key", "name", "kind", "iteration", "task", "site", "pure", "max_attempts", "timeout_s", "fan_out",
    "item", "compensate", "undoes", "optional", "total_timeout_s",
)  # fmt: skip
ENDINGS = (
    t.StepCompleted, t.StepFailed, t.StepAttemptFailed, t.StepInterrupted, t.StepInDoubt, t.StepSkipped,
    t.StepCancelled, t.StepCompensated, t.RunTerminated, t.RunRewound,
)  # fmt: skip


def outcome(mine: list[Any], began: Any, latest: bool) -> dict[str, Any]:
    ends = of(mine, *ENDINGS)
    first = ends[0] if ends else None
    unclear = isinstance(first, t.StepInDoubt | t.RunRewound) or getattr(first, "reason", "") == "crash"
    errors = of(mine, t.StepFailed, t.StepAttemptFailed)
    error = errors[-1].error if errors else None
    given, late = of(mine, t.StepCompleted, t.StepSkipped), of(mine, t.StepLate)
    retries, reasons = of(mine, t.StepAttemptFailed), of(mine, t.StepInDoubt, t.StepSkipped)
    decided = [e.by for e in of(mine, t.StepCompleted, t.StepFailed)]
    probes, skips = of(mine, t.StepProbed), of(mine, t.StepSkipped)
    return {
        "status": attempt_status(ends, bool(began), latest),
        "ended_at": iso(first.at) if first else None,
        "duration_s": (first.at - began).total_seconds() if first and began and not unclear else None,
        "result": value(given[-1].result) if given else None,
        **{f"error_{f}": getattr(error, f, None) for f in ("type", "message")},
        "error_class": error.error_class if error else None,
        "traceback": None,
        "retry_at": iso(retries[-1].retry_at) if retries else None,
        "late": evidence(late[-1]) if late else None,
        "resolved_by": decided[-1] if decided and decided[-1] != "engine" else "",
        "reason": reasons[-1].reason if reasons else "",
        "skipped_by": skips[-1].by if skips else "",
        "probe": probes[-1].outcome if probes else "",
    }


def spent(mine: list[Any]) -> dict[str, Any]:
    costs = of(mine, t.CostRecorded)
    models = [e.model for e in costs if e.model]
    return {
        "cost_usd": sum((e.usd for e in costs), Decimal(0)),
        "model": models[-1] if models else "",
        **{f: sum(getattr(e, f) for e in costs) for f in TOKENS},
    }


def left_out(run_id: str, event: t.BranchSkipped, history: Sequence[Event]) -> dict[str, Any]:
    """A step that a condition left out."""
    call = t.StepScheduled(
        id="", at=event.at, step=event.step, name=event.name, key=event.key, args=Raw(b"[]")
    )
    row = attempt_row(run_id, call, 0, True, history)
    return row | {"status": "skipped", "ended_at": iso(event.at), "reason": event.reason}


def attempt_status(ends: Sequence[Any], began: bool, latest: bool) -> str:
    if not ends:
        return "running" if began else "scheduled"
    last = ends[-1]
    if isinstance(last, t.RunRewound):  # it closes what was open, and changes nothing of what was not
        if len(ends) == 1:
            return "interrupted" if began else "cancelled"
        return attempt_status(ends[:-1], began, False)
    match last:
        case t.StepCompleted():
            return "completed"
        case t.StepCompensated():
            return "compensated"
        case t.StepCancelled() | t.RunTerminated():
            return "cancelled"
        case t.StepSkipped():
            return "skipped"
        case t.StepInDoubt():
            return "unknown"
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
        for call, since in sorted(calls(history), key=lambda pair: pair[0].step)
        for before in sorted(call.after)
        if call.step not in dropped(since)
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
