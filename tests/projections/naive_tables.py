"""What the other tables must say, worked out the slow and obvious way from whole histories."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from refold.events import types as t
from refold.events.types import Event
from tests.projections.naive import Rows, iso, of, open_gates, open_timers, open_waits, standing, value


def kept(history: Sequence[Event]) -> list[tuple[int, Event]]:
    """What no rewind has taken back, and how it ends, once that is not taken back either."""
    return [pair for pair in standing(history) if not isinstance(pair[1], t.RunRewound)]


def end_after(events: list[tuple[int, Event]], version: int) -> Event | None:
    return next((e for v, e in events if v > version and isinstance(e, t.ENDS)), None)


# ---- timers, waits and gates --------------------------------------------------------------------------


def timer_rows(run_id: str, history: Sequence[Event]) -> Rows:
    alive = kept(history)
    still = {e.timer for e in open_timers(history)}
    rows: Rows = []
    for version, e in alive:
        if not isinstance(e, t.TimerStarted):
            continue
        closing = next(
            (x for _, x in alive if isinstance(x, t.TimerFired | t.TimerCancelled) and x.timer == e.timer),
            None,
        )
        over = closing or end_after(alive, version)
        words: dict[Any, str] = {t.TimerFired: "fired", t.TimerCancelled: "cancelled"}
        status = "open" if e.timer in still else words.get(type(over), "ended")
        rows.append(
            {
                "run_id": run_id, "timer": e.timer, "due_at": iso(e.due_at), "status": status,
                "started_at": iso(e.at), "closed_at": iso(over.at) if over and status != "open" else None,
            }
        )  # fmt: skip
    return rows


def wait_rows(run_id: str, history: Sequence[Event]) -> Rows:
    alive = kept(history)
    rows: dict[int, dict[str, Any]] = {}
    early: list[str] = []
    for _, e in alive:
        if isinstance(e, t.RunStarted):
            early += [signal.name for signal in e.carried]
        elif isinstance(e, t.WaitOpened):
            rows[e.wait] = {
                "run_id": run_id, "wait": e.wait, "name": e.name, "status": "open", "opened_at": iso(e.at),
                "closed_at": None, "received_by": "", "signal_id": "", "early": None,
            }  # fmt: skip
            if e.name in early:
                early.remove(e.name)
                rows[e.wait] |= {"status": "received", "closed_at": iso(e.at)}
        elif isinstance(e, t.WaitCancelled):
            if rows[e.wait]["status"] == "open":
                rows[e.wait] |= {"status": "cancelled", "closed_at": iso(e.at)}
        elif isinstance(e, t.SignalReceived):
            taker = next((r for r in rows.values() if r["status"] == "open" and r["name"] == e.name), None)
            if taker is None:
                early.append(e.name)
            else:
                taker |= {
                    "status": "received", "closed_at": iso(e.at), "received_by": e.by,
                    "signal_id": e.signal_id,
                }  # fmt: skip
        elif isinstance(e, t.ENDS):
            for row in rows.values():
                if row["status"] == "open":
                    row |= {"status": "ended", "closed_at": iso(e.at)}
    still = {w.wait for w in open_waits(history)}
    assert still == {wait for wait, row in rows.items() if row["status"] == "open"}
    return [early_row(early), *rows.values()] if early or came_early(history) else list(rows.values())


def early_row(names: list[str]) -> dict[str, Any]:
    return {"wait": 0, "status": "early", "early": dict(Counter(names))}


def came_early(history: Sequence[Event]) -> bool:
    """Whether any signal ever came before its wait, rewound or not."""
    start = of(history, t.RunStarted)[0]
    if start.carried:
        return True
    for n, e in enumerate(history):
        if isinstance(e, t.SignalReceived) and not any(w.name == e.name for w in open_waits(history[:n])):
            return True
    return False


def gate_rows(run_id: str, history: Sequence[Event]) -> Rows:
    alive = kept(history)
    still = {e.gate for e in open_gates(history)}
    return [gate_row(run_id, v, e, alive, e.gate in still) for v, e in alive if isinstance(e, t.GateOpened)]


def gate_row(
    run_id: str, version: int, gate: t.GateOpened, alive: list[tuple[int, Event]], is_open: bool
) -> dict[str, Any]:
    mine = [(v, e) for v, e in alive if getattr(e, "gate", None) == gate.gate]
    votes = [(v, e) for v, e in mine if isinstance(e, t.GateVoted)]
    stages: list[tuple[int, Any]] = [(v, e) for v, e in mine if isinstance(e, t.GateOpened | t.GateEscalated)]
    decision = next((e for _, e in votes if e.decides), None)
    closed = next((e for _, e in mine if isinstance(e, t.GateClosed)), None)
    over: Any = decision or closed or (None if is_open else end_after(alive, version))
    status = "open"
    if over is not None:
        status = decision.decides if decision else closed.outcome if closed else "ended"
    now = stages[-1][1]
    plain = ("kind", "name", "prompt", "digest", "token", "on_timeout", "task", "site")
    return {
        "run_id": run_id,
        "gate": gate.gate,
        **{f: getattr(gate, f) for f in plain},
        "shown": value(gate.shown),
        "schema": value(gate.schema),
        "options": list(gate.options),
        "excluded": list(gate.excluded),
        "status": status,
        "approvals_needed": now.approvers,
        "voters": list(now.voters),
        "due_at": iso(now.due_at) if now.due_at else None,
        "stage": len(stages) - 1,
        "opened_at": iso(gate.at),
        "approvals": sum(e.vote == "approve" for _, e in votes),
        "votes": [
            {
                "by": e.by, "at": iso(e.at), "vote": e.vote, "selections": list(e.selections),
                "feedback": e.feedback, "answer": value(e.answer), "digest": e.digest, "version": v,
                "decides": e.decides,
            }
            for v, e in votes
        ],
        "stages": [
            {
                "voters": list(e.voters), "approvers": e.approvers, "at": iso(e.at), "version": v,
                "due_at": iso(e.due_at) if e.due_at else None,
            }
            for v, e in stages
        ],
        "decided_at": iso(over.at) if over else None,
        "decided_by": decision.by if decision else "",
        "selections": list(decision.selections) if decision else [],
        "feedback": decision.feedback if decision else "",
        "answer": value(decision.answer) if decision else None,
        "timeout_means": closed.then if closed and not decision else "",
    }  # fmt: skip


# ---- fan-outs -----------------------------------------------------------------------------------------


def item_rows(history: Sequence[Event]) -> Rows:
    """Their keys and what they say of how the item stands."""
    alive = kept(history)
    rows: Rows = []
    for version, opened in alive:
        if not isinstance(opened, t.FanOutOpened):
            continue
        closing = [v for v, e in alive if isinstance(e, t.FanOutClosed) and e.fan_out == opened.fan_out]
        closing += [v for v, e in alive if isinstance(e, t.ENDS) and v > version]
        values = value(opened.items)
        for place in range(opened.count):
            row = {"fan_out": opened.fan_out, "item": place, "value": values[place]}
            if place in opened.skipped:
                rows.append(row | {"status": "skipped"})
                continue
            number = opened.fan_out + 1 + place
            rows.append(row | {"status": item_status(number, alive, closing)})
    return rows


def item_status(number: int, alive: list[tuple[int, Event]], closing: list[int]) -> str:
    words: dict[Any, str] = {
        t.StepCompleted: "completed", t.StepFailed: "failed", t.StepSkipped: "skipped",
        t.StepCancelled: "cancelled",
    }  # fmt: skip
    begun = [v for v, e in alive if isinstance(e, t.StepScheduled) and e.step == number]
    if begun:
        ends = [e for _, e in alive if type(e) in words and getattr(e, "step", 0) == number]
        if ends:
            return words[type(ends[-1])]
    return "cancelled" if closing else "running" if begun else "pending"


# ---- data ---------------------------------------------------------------------------------------------


def attribute_rows(run_id: str, history: Sequence[Event]) -> Rows:
    values: dict[str, Any] = dict(of(history, t.RunStarted)[0].attributes)
    for _, e in standing(history):
        if isinstance(e, t.AttributesSet | t.AttributesChanged):
            values |= e.attributes
    return [{"run_id": run_id, "key": key, "value": values[key]} for key in sorted(values)]


def context_rows(history: Sequence[Event]) -> dict[str, list[Any]]:
    """By key: the values that stood, in order, the last of them now."""
    found: dict[str, list[Any]] = {}
    for _, e in standing(history):
        if isinstance(e, t.ContextSet) and not e.refused:
            found.setdefault(e.key, []).append(value(e.value))
    return found


def checkpoint_rows(run_id: str, history: Sequence[Event]) -> Rows:
    alive = {version for version, _ in standing(history)}
    return [
        {
            "run_id": run_id, "version": version, "name": e.name, "data": value(e.data), "task": e.task,
            "at": iso(e.at), "rewound": version not in alive,
        }
        for version, e in enumerate(history, 1)
        if isinstance(e, t.CheckpointRecorded)
    ]  # fmt: skip


def artifact_rows(run_id: str, history: Sequence[Event]) -> Rows:
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for e in of(history, t.ArtifactRecorded, t.ArtifactChanged):
        key = (e.step, e.name)
        if isinstance(e, t.ArtifactRecorded):
            rows[key] = {"digest": e.digest, "recorded_at": iso(e.at), "changed_at": None, "found": None}
        else:
            rows.setdefault(key, {"digest": e.expected, "recorded_at": ""})
            rows[key] |= {"changed_at": iso(e.at), "found": e.found}
    return [{"run_id": run_id, "step": k[0], "name": k[1], **rows[k]} for k in sorted(rows)]


def child_rows(parent: str, history: Sequence[Event], inbox: Sequence[Event]) -> Rows:
    """The inbox may be ahead of the parent."""
    gone = {number for e in of(history, t.RunRewound) for number in e.dropped}
    rows: Rows = []
    for e in of(history, t.ChildStarted):
        told = [m for m in of(inbox, t.ChildEndSent) if m.child == e.child]
        taken = [m for m in of(history, t.ChildEnded) if m.child == e.child]
        last = told[-1] if told else None
        rows.append(
            {
                "parent_id": parent, "child": e.child, "run_id": e.run_id, "first_run_id": e.run_id,
                "workflow": e.workflow, "detached": e.detached, "status": last.status if last else "running",
                "ended_at": iso(last.at) if last else None, "taken_at": iso(taken[-1].at) if taken else None,
                "usd": sum((m.spent.usd for m in told), Decimal(0)), "rewound": e.child in gone,
                "error_type": last.error.type if last and last.error else None,
            }
        )  # fmt: skip
    return rows
