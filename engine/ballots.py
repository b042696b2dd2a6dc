"""Votes on their way to a gate: checked when they are sent, and again when the owner takes them."""

from typing import Any

from ..events import types as t
from ..events.blobs import bring_back
from ..events.errors import VoteRefused
from ..events.gate import Ballot, Gate
from ..events.registry import decode_event
from ..events.store import Store
from ..events.stream import INBOX
from ..events.types import Event

_KINDS: tuple[type[Event], ...] = (
    t.GateOpened, t.GateVoted, t.GateEscalated, t.GateClosed, t.CauseHeld, t.InboxSkipped, t.RunRewound,
    *t.ENDS,
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
    reason = reason or command.misfit(message.vote, message.answer)
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
    gates = fold_gates(store, run_id)
    unseen = store.read(run_id + INBOX, seen)
    for row in unseen:
        if row.tag == t.VoteSent.TAG:
            _count(gates, bring_back(row.event(), store.blob))
    return gates, unseen[-1].version if unseen else store.tail(run_id + INBOX).version


def fold_gates(store: Store, run_id: str) -> dict[int, Gate]:
    """The gates of a run, by number, as its stream leaves them; votes held while it is paused count."""
    events: list[tuple[int, Event]] = []
    for row in store.read(run_id):
        if row.tag not in _ABOUT_GATES:
            continue
        event = bring_back(decode_event(row.tag, row.state, row), store.blob)
        if isinstance(event, t.RunRewound):
            events = [
                (version, kept)
                for version, kept in events
                if version <= event.to and not isinstance(kept, t.CauseHeld)
            ]
        else:
            events.append((row.version, event))
    gates: dict[int, Gate] = {}
    held: dict[str, t.CauseHeld] = {}
    for _, event in events:
        held.pop(event.cause, None)
        if isinstance(event, t.CauseHeld):
            held[event.id] = event
        elif isinstance(event, t.GateOpened):
            gates[event.gate] = Gate(event)
        elif isinstance(event, t.GateVoted | t.GateEscalated | t.GateClosed):
            if event.gate in gates:
                gates[event.gate].apply(event)
        elif isinstance(event, t.ENDS):
            for gate in gates.values():
                gate.closed = gate.closed or "cancelled"
    for waits in held.values():
        if waits.tag == t.GateVoted.TAG:
            _count(gates, bring_back(decode_event(waits.tag, bytes(waits.body)), store.blob))
    return gates


def _count(gates: dict[int, Gate], vote: Event) -> None:
    """A vote that its run has not taken yet counts as if it had, if it will be admitted."""
    if not isinstance(vote, t.VoteSent | t.GateVoted) or (gate := gates.get(vote.gate)) is None:
        return
    if not gate.refusal(ballot_of(vote), vote.at):
        decides = gate.decides(vote.vote)
        gate.apply(
            t.GateVoted(
                gate=vote.gate, vote=vote.vote, decides=decides, id=vote.id, at=vote.at, by=vote.by
            )
        )  # fmt: skip
