"""What the read models must say, worked out the slow and obvious way from whole histories.

Nothing is carried along from event to event: every column asks the list of events anew.
"""

from collections.abc import Sequence
from typing import Any
from unittest import mock

import msgspec

from refold.events import types as t
from refold.events.types import Event

Rows = list[dict[str, Any]]
CAUSES = t.CAUSES
ANY = mock.ANY
Numbered = list[tuple[int, Event]]
"""Events with their versions."""


def iso(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def of(events: Sequence[Event], *kinds: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


def value(raw: Any) -> Any:
    return msgspec.json.decode(raw)


def standing(history: Sequence[Event]) -> Numbered:
    """What no rewind has taken back."""
    alive: Numbered = []
    for version, event in enumerate(history, 1):
        if isinstance(event, t.RunRewound):
            alive = [pair for pair in alive if pair[0] <= event.to]
        alive.append((version, event))
    return alive


def end_of(history: Sequence[Event]) -> Event | None:
    """The run's end, unless it goes on after it."""
    last = of(history, *t.ENDS, t.RunRewound, t.RunReopened)
    return last[-1] if last and isinstance(last[-1], t.ENDS) else None


# ---- what is open after some events -----------------------------------------------------------------


def words(events: Sequence[Event]) -> dict[int, Event]:
    """By step, the last event that says how it stands."""
    kinds = (
        t.StepScheduled, t.StepStarted, t.StepCompleted, t.StepFailed, t.StepAttemptFailed, t.StepSkipped,
        t.StepInterrupted, t.StepReleased, t.StepCancelled, t.StepInDoubt,
    )  # fmt: skip
    found: dict[int, Event] = {}
    for _, event in standing(events):
        if isinstance(event, kinds):
            found.pop(event.step, None)
            found[event.step] = event  # type: ignore[attr-defined,unused-ignore]
        elif isinstance(event, t.RunRewound):
            found |= dict.fromkeys(event.steps, event)
        elif isinstance(event, t.ENDS):
            found = dict.fromkeys(found, event)
    return found


def said(events: Sequence[Event], *kinds: type[Any]) -> list[Any]:
    return [word for word in words(events).values() if isinstance(word, kinds)]


BUSY = (t.StepScheduled, t.StepStarted, t.StepInterrupted, t.StepReleased, t.RunRewound)


def open_waits(events: Sequence[Event]) -> list[t.WaitOpened]:
    waits: list[t.WaitOpened] = []
    early: list[str] = []
    for _, e in standing(events):
        if isinstance(e, t.RunStarted):
            early += [signal.name for signal in e.carried]
        elif isinstance(e, t.WaitOpened):
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
        elif isinstance(e, t.ENDS):
            waits = []
    return waits


def still_open(events: Sequence[Event], opening: type[Any], *closing: type[Any]) -> list[Any]:
    """What was opened and neither closed nor left behind by an end; the first field is its number."""
    name = opening.__struct_fields__[len(Event.__struct_fields__)]
    found: dict[int, Any] = {}
    for _, e in standing(events):
        if isinstance(e, opening):
            found[getattr(e, name)] = e
        elif isinstance(e, t.ENDS):
            found = {}
        elif isinstance(e, closing) and getattr(e, "decides", True):
            found.pop(getattr(e, name), None)
    return list(found.values())


def open_timers(events: Sequence[Event]) -> list[t.TimerStarted]:
    return still_open(events, t.TimerStarted, t.TimerFired, t.TimerCancelled)


def open_gates(events: Sequence[Event]) -> list[t.GateOpened]:
    return still_open(events, t.GateOpened, t.GateVoted, t.GateClosed)


def open_children(events: Sequence[Event]) -> list[t.ChildStarted]:
    started = still_open(events, t.ChildStarted, t.ChildEnded, t.ChildCancelled)
    return [e for e in started if not e.detached]


def is_waiting(events: Sequence[Event]) -> bool:
    if said(events, *BUSY):
        return False
    opened = (open_waits, open_timers, open_gates, open_children)
    return bool(said(events, t.StepAttemptFailed, t.StepInDoubt) or any(find(events) for find in opened))


def blocked_on(events: Sequence[Event]) -> dict[str, Any]:
    waits, timers, gates = open_waits(events), open_timers(events), open_gates(events)
    due = [iso(timer.due_at) for timer in timers]
    if doubts := said(events, t.StepInDoubt):
        keys = {e.step: e.key for e in of(events, t.StepScheduled)}
        known = not any(doubts[0].step in e.steps for e in of(events, t.RunRewound))
        return {"type": "in_doubt", "step": doubts[0].step, "key": keys[doubts[0].step] if known else ANY}
    if gates:
        escalated = [e for _, e in standing(events) if isinstance(e, t.GateEscalated)]
        stages: list[Any] = [gates[0], *(e for e in escalated if e.gate == gates[0].gate)]
        stage = stages[-1]
        deadline = {"due_at": iso(stage.due_at)} if stage.due_at else {}
        gate = gates[0]
        return {
            "type": gate.kind, "gate": gate.gate, "name": gate.name, "approvals_needed": stage.approvers,
            **deadline,
        }  # fmt: skip
    if waits:
        deadline = {"due_at": min(due)} if due else {}
        return {"type": "event", "wait": waits[0].wait, "name": waits[0].name, **deadline}
    if children := open_children(events):
        return {"type": "child", "child": children[0].child, "run_id": children[0].run_id}
    if retries := said(events, t.StepAttemptFailed):
        first = min(retries, key=lambda e: (e.retry_at, e.step))
        return {"type": "retry", "step": first.step, "due_at": iso(first.retry_at)}
    timer = min(timers, key=lambda e: (e.due_at, e.timer))
    return {"type": "timer", "timer": timer.timer, "due_at": iso(timer.due_at)}


def blocked_since(events: Sequence[Event]) -> str:
    """The last event after which the run came to wait: a cause, a rewind, or one before which it did not."""
    for n in range(len(events), 0, -1):
        if isinstance(events[n - 1], (*CAUSES, t.RunRewound)) or not is_waiting(events[: n - 1]):
            return iso(events[n - 1].at)
    raise AssertionError("a run begins with a cause")
