"""What others say to a run (`RUN/inbox`), and keys (`key/KEY`)."""

import msgspec
from msgspec import Raw

from .event import Event, Failure, Spent, null


class SignalSent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Inbox. Somebody outside the owner's process sent the run an event."""

    TAG = "signal.sent"
    name: str
    payload: Raw
    signal_id: str = ""


class CancelSent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Inbox. Somebody outside the owner's process asked the run to stop."""

    TAG = "cancel.sent"
    reason: str = ""
    kind: str = "UserRequested"


class KeyTaken(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Stream `key/KEY`, its only event: this start key belongs to that run."""

    TAG = "key.taken"
    run_id: str
    digest: str
    """SHA-256 of workflow name and arguments, in hex: the same key with other input is a conflict."""


class VoteSent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Inbox. A decision or an answer for a gate, checked when it was sent and again when it is copied."""

    TAG = "vote.sent"
    gate: int
    vote: str
    selections: tuple[str, ...] = ()
    feedback: str = ""
    answer: Raw = msgspec.field(default_factory=null)
    digest: str = ""


class ChildEndSent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Inbox. A child has ended; stored in its own last append."""

    TAG = "child_end.sent"
    child: int
    run_id: str
    status: str
    result: Raw = msgspec.field(default_factory=null)
    error: Failure | None = None
    spent: Spent = Spent()


class RequestSent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Inbox. Somebody outside the owner's process asks for an operator's act."""

    TAG = "request.sent"
    verb: str
    """`terminate`, `pause`, `resume`, `skip`, `reset`, `resolve`, `compensate` or `attributes`."""
    key: str = ""
    """Key of the step it is about."""
    outcome: str = ""
    """For `resolve`: `completed`, `failed` or `retry`."""
    value: Raw = msgspec.field(default_factory=null)
    """The result for `skip` and `resolve`; the attributes."""
    reason: str = ""
