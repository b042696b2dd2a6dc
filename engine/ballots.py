"""Votes on their way to a gate: checked when they are sent, and again when the owner takes them."""

from collections.abc import Sequence
from typing import Any

from ..events import types as t
from ..events.errors import VoteRefused
from ..events.gate import Ballot, Gate
from ..events.registry import decode_event
from ..events.store import Store
from ..events.stream import INBOX, Row
from ..events.types import Event

_KINDS: tuple[type[Event], ...] = (
    t.GateOpened, t.GateVoted, t.GateEscalated, t.GateClosed, t.RunRewound, *t.ENDS,
)  # fmt: skip
_ABOUT_GATES = frozenset(kind.TAG for kind in _KINDS)


def judge(
    live: Any, message: t.VoteSent | t.GateVoted, head: dict[str, Any], inbox: int
) -> tuple[t.GateVoted | None, str]:
    """The vote as the run's stream will have it; or None, and why the gate does not admit it.

    It counts from when it was sent: a vote that was acknowledged in time never loses to a deadline.
    """
    command = live.run.gates.get(message.gate)
    if command is None or command.gate is None:
        return None, f"gate {message.gate} is closed"
    reason = command.gate.refusal(ballot_of(message), message.at)
    if reason:
        return None, reason
    vote = t.GateVoted(
        gate=message.gate, vote=message.vote, selections=message.selections, feedback=message.feedback,
        answer=message.answer, digest=message.digest, decides=command.gate.decides(message.vote), inbox=inbox,
        **head,
    )  # fmt: skip
    return vote, ""


def ballot_of(message: t.VoteSent | t.GateVoted) -> Ballot:
    """What of a message the gate judges."""
    return Ballot(
        vote=message.vote, by=message.by, selections=message.selections, digest=message.digest,
        answer=message.answer,
    )  # fmt: skip


def choose(run_id: str, gates: dict[int, Gate], wanted: str | int | None) -> Gate:
    """The gate that somebody means: by name, number or token, or the only open one.

    Raises `VoteRefused`, with the names of those that are open.
    """
    open_ones = [gate for gate in gates.values() if not gate.closed]
    if wanted is None:
        if len(open_ones) == 1:
            return open_ones[0]
        names = ", ".join(gate.opened.name for gate in open_ones)
        which = f"several gates are open, say which: {names}" if open_ones else "no gate is open"
        raise VoteRefused(f"run {run_id}: {which}")
    for gate in gates.values():
        if wanted in (gate.opened.gate, gate.opened.name, gate.opened.token):
            return gate
    named = [gate for gate in open_ones if gate.opened.name.rpartition("#")[0] == wanted]
    if len(named) == 1:
        return named[0]
    names = ", ".join(gate.opened.name for gate in open_ones) or "none"
    raise VoteRefused(f"run {run_id} has no gate {wanted!r}; open gates: {names}")


def gates_in(store: Store, run_id: str, seen: int) -> tuple[dict[int, Gate], int]:
    """The run's gates with the votes that wait in its inbox, and that inbox's version."""
    gates = fold_gates(store.read(run_id))
    unseen = store.read(run_id + INBOX, seen)
    for row in unseen:
        message = row.event()
        gate = gates.get(message.gate) if isinstance(message, t.VoteSent) else None
        if gate is None or not isinstance(message, t.VoteSent):
            continue
        if not gate.refusal(ballot_of(message), message.at):
            gate.apply(
                t.GateVoted(
                    gate=message.gate, vote=message.vote, decides=gate.decides(message.vote), id=message.id,
                    at=message.at, by=message.by,
                )
            )  # fmt: skip
    return gates, unseen[-1].version if unseen else store.tail(run_id + INBOX).version


def fold_gates(rows: Sequence[Row]) -> dict[int, Gate]:
    """The gates of a run, by number, as these rows of its stream leave them."""
    events: list[tuple[int, Event]] = []
    for row in rows:
        if row.tag not in _ABOUT_GATES:
            continue
        event = decode_event(row.tag, row.state, row)
        if isinstance(event, t.RunRewound):
            events = [pair for pair in events if pair[0] <= event.to]
        else:
            events.append((row.version, event))
    gates: dict[int, Gate] = {}
    for _, event in events:
        if isinstance(event, t.GateOpened):
            gates[event.gate] = Gate(event)
        elif isinstance(event, t.GateVoted | t.GateEscalated | t.GateClosed):
            if event.gate in gates:
                gates[event.gate].apply(event)
        else:
            for gate in gates.values():
                gate.closed = gate.closed or "cancelled"
    return gates
