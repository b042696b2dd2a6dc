"""What timers, waits, gates, children and data do to the row of a run."""

from collections.abc import Callable
from typing import Any

from msgspec import json

from . import money, reading as r, reading_waits as w
from .reading import utc
from .run_memory import RunState
from .run_open import OpenGate, encode

FAILED = frozenset({"failed", "terminated", "compensated", "compensation_failed"})
"""Ends of a child that its parent sees as a failure."""


def _timer_started(row: RunState, event: w.TimerStarted) -> None:
    row.state.timers[event.timer] = utc(event.due_at)
    row.state.begun = True


def _timer_ended(row: RunState, event: w.TimerEnded) -> None:
    row.state.timers.pop(event.timer, None)


def _wait_opened(row: RunState, event: w.WaitOpened) -> None:
    state = row.state
    state.begun = True
    if not state.kept.take(event.name, event.wait):
        state.waits[event.wait] = event.name


def _wait_cancelled(row: RunState, event: w.WaitCancelled) -> None:
    row.state.waits.pop(event.wait, None)


def _signal(row: RunState, event: w.SignalReceived) -> None:
    """The first open wait of that name takes it, or it is kept for the next one."""
    state = row.state
    row.signals += 1
    taker = next((wait for wait, name in state.waits.items() if name == event.name), None)
    if taker is None:
        state.kept.add(event.name, row.last_version)
    else:
        del state.waits[taker]


def _gate_opened(row: RunState, event: w.GateOpened) -> None:
    row.state.gates[event.gate] = OpenGate(event.kind, event.name, [_stage(row, event)])
    row.state.begun = True


def _stage(row: RunState, event: w.GateOpened | w.GateEscalated) -> tuple[int, int, str | None]:
    return row.last_version, event.approvers, None if event.due_at is None else utc(event.due_at)


def _gate_voted(row: RunState, event: w.GateVoted) -> None:
    if event.decides:
        row.state.close_gate(event.gate)


def _gate_escalated(row: RunState, event: w.GateEscalated) -> None:
    gate = row.state.gates.get(event.gate)
    if gate is not None:
        gate.stages.append(_stage(row, event))


def _gate_closed(row: RunState, event: w.GateClosed) -> None:
    row.state.close_gate(event.gate)


def _child_started(row: RunState, event: w.ChildStarted) -> None:
    row.children_total += 1
    row.state.begun = True
    if not event.detached:
        row.state.children[event.child] = event.run_id


def _child_cancelled(row: RunState, event: w.ChildCancelled) -> None:
    row.state.close_child(event.child)


def _child_ended(row: RunState, event: w.ChildCopied) -> None:
    state = row.state
    state.close_child(event.child)
    if event.inbox:
        if event.inbox <= state.child_mail:
            return  # copied once more after a rewind
        state.child_mail = event.inbox
    row.children_failed += event.status in FAILED
    spent = event.spent
    row.children_usd = money.add(row.children_usd, spent.usd)
    row.total_usd = money.add(row.total_usd, spent.usd)
    row.children_input_tokens += spent.input_tokens
    row.children_output_tokens += spent.output_tokens
    row.children_cache_tokens += spent.cache_tokens
    row.children_turns += spent.turns


def _patched(row: RunState, event: w.PatchApplied) -> None:
    names = json.decode(row.patches, type=list[str])
    if event.name not in names:
        row.patches = encode([*names, event.name]).decode()


def _checkpoint(row: RunState, event: w.CheckpointRecorded) -> None:
    row.last_checkpoint = event.name


FOLDS: dict[type[r.Seen], Callable[[RunState, Any], None]] = {
    w.TimerStarted: _timer_started,
    w.TimerEnded: _timer_ended,
    w.TimerFired: _timer_ended,
    w.WaitOpened: _wait_opened,
    w.WaitCancelled: _wait_cancelled,
    w.SignalReceived: _signal,
    w.GateOpened: _gate_opened,
    w.GateVoted: _gate_voted,
    w.GateEscalated: _gate_escalated,
    w.GateClosed: _gate_closed,
    w.ChildStarted: _child_started,
    w.ChildCancelled: _child_cancelled,
    w.ChildCopied: _child_ended,
    w.PatchApplied: _patched,
    w.CheckpointRecorded: _checkpoint,
}
