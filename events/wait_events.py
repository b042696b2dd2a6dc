"""Waiting: for time, for events, for people, for other runs."""

from datetime import datetime

import msgspec
from msgspec import Raw

from .event import Event, Failure, Spent, null


class TimerStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler sleeps, or set a deadline."""

    TAG = "timer.started"
    timer: int
    due_at: datetime


class TimerCancelled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. What the deadline was for has ended before it."""

    TAG = "timer.cancelled"
    timer: int


class TimerFired(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The deadline has passed."""

    TAG = "timer.fired"
    timer: int


class WaitOpened(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler waits for an event of this name."""

    TAG = "wait.opened"
    wait: int
    name: str


class WaitCancelled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler no longer waits."""

    TAG = "wait.cancelled"
    wait: int


class SignalReceived(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. An event reached the run; the first open wait of that name takes it, or it is kept."""

    TAG = "signal.received"
    name: str
    payload: Raw
    signal_id: str = ""
    """Given by the sender: a second one with the same id is not delivered."""
    inbox: int = 0


class InboxSkipped(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. A message in the inbox was looked at and not delivered: a duplicate, say."""

    TAG = "inbox.skipped"
    inbox: int
    reason: str


class GateOpened(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler waits for people: a decision, or an answer."""

    TAG = "gate.opened"
    gate: int
    kind: str
    """`approval` or `input`."""
    name: str
    """Readable and unique in the run: `approval#1`, or the name given and its ordinal."""
    prompt: str
    shown: Raw = msgspec.field(default_factory=null)
    """JSON of what is put before the people who decide."""
    digest: str = ""
    """SHA-256, in hex, of prompt, options and `shown`: what a decision is bound to."""
    options: tuple[str, ...] = ()
    """What may be selected."""
    approvers: int = 1
    """Approvals needed."""
    voters: tuple[str, ...] = ()
    """Who may vote; empty: anybody."""
    excluded: tuple[str, ...] = ()
    """Who may not: whoever asked for the run, when self-approval is refused."""
    due_at: datetime | None = None
    """Until when; None: no deadline."""
    on_timeout: str = ""
    """`reject`, `approve`, `fail` or `continue`."""
    schema: Raw = msgspec.field(default_factory=null)
    """JSON Schema of an answer."""
    token: str = ""
    """Names this gate to whoever answers from outside."""
    task: str = ""
    site: str = ""


class GateVoted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. Somebody decided, or answered. `by` says who."""

    TAG = "gate.voted"
    gate: int
    vote: str
    """`approve`, `reject` or `answer`."""
    selections: tuple[str, ...] = ()
    feedback: str = ""
    answer: Raw = msgspec.field(default_factory=null)
    digest: str = ""
    """Of what this voter was shown."""
    decides: str = ""
    """`approved`, `rejected` or `answered` when this vote closes the gate; else more are needed."""
    inbox: int = 0


class GateEscalated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. Nobody decided in time: other people may now."""

    TAG = "gate.escalated"
    gate: int
    stage: int
    """1 for the first escalation."""
    voters: tuple[str, ...] = ()
    approvers: int = 1
    due_at: datetime | None = None


class GateClosed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The gate closed without the people: its time ran out, or the handler gave it up."""

    TAG = "gate.closed"
    gate: int
    outcome: str
    """`timed_out` or `cancelled`."""
    then: str = ""
    """What a timeout means: `reject`, `approve`, `fail` or `continue`."""


STEP_RUN = "step:"
"""So begin the names of workflows that are one call of a step with `run_on`."""


class ChildStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. A run of its own, started in the same append."""

    TAG = "child.started"
    child: int
    run_id: str
    workflow: str
    version: str
    args: Raw
    detached: bool = False
    fan_out: int = 0
    item: int = 0
    task: str = ""
    site: str = ""
    run_on: str = ""
    """Tag that the worker must have; empty: any worker."""


class ChildEnded(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The child has come to its end; copied from the inbox, where the child's last append put it."""

    TAG = "child.ended"
    child: int
    run_id: str
    status: str
    """`completed`, `failed`, `cancelled`, `terminated`, `compensated` or `compensation_failed`."""
    result: Raw = msgspec.field(default_factory=null)
    error: Failure | None = None
    spent: Spent = Spent()
    """By the child and its children, detached ones left out."""
    inbox: int = 0


class ChildCancelled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler no longer waits; the child is asked to stop in the same append."""

    TAG = "child.cancelled"
    child: int
    run_id: str
