"""The events of waiting, of people, of other runs and of data, as the core read models see them."""

from msgspec import Raw, field

from .reading import Failure, Seen, Spent


def _null() -> Raw:
    return Raw(b"null")


class TimerStarted(Seen, frozen=True, gc=False):
    timer: int
    due_at: str


class TimerEnded(Seen, frozen=True, gc=False):
    """`timer.fired` or `timer.cancelled`."""

    timer: int


class TimerFired(TimerEnded, frozen=True, gc=False):
    pass


class WaitOpened(Seen, frozen=True, gc=False):
    wait: int
    name: str


class WaitCancelled(Seen, frozen=True, gc=False):
    wait: int


class SignalReceived(Seen, frozen=True, gc=False):
    name: str
    by: str = "engine"
    signal_id: str = ""


class GateOpened(Seen, frozen=True, gc=False, kw_only=True):
    gate: int
    kind: str
    name: str
    prompt: str
    shown: Raw = field(default_factory=_null)
    digest: str = ""
    options: tuple[str, ...] = ()
    approvers: int = 1
    voters: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    due_at: str | None = None
    on_timeout: str = ""
    schema: Raw = field(default_factory=_null)
    token: str = ""
    task: str = ""
    site: str = ""


class GateVoted(Seen, frozen=True, gc=False, kw_only=True):
    gate: int
    vote: str
    selections: tuple[str, ...] = ()
    feedback: str = ""
    answer: Raw = field(default_factory=_null)
    digest: str = ""
    decides: str = ""
    by: str = "engine"


class GateEscalated(Seen, frozen=True, gc=False, kw_only=True):
    gate: int
    stage: int
    voters: tuple[str, ...] = ()
    approvers: int = 1
    due_at: str | None = None


class GateClosed(Seen, frozen=True, gc=False, kw_only=True):
    gate: int
    outcome: str
    then: str = ""
    by: str = "engine"


class ChildStarted(Seen, frozen=True, gc=False, kw_only=True):
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


class ChildEnded(Seen, frozen=True, gc=False, kw_only=True):
    """`child.ended`, or the message that it is a copy of."""

    child: int
    run_id: str
    status: str
    result: Raw = field(default_factory=_null)
    error: Failure | None = None
    spent: Spent = Spent()


class ChildCopied(ChildEnded, frozen=True, gc=False, kw_only=True):
    inbox: int = 0


class ChildCancelled(Seen, frozen=True, gc=False):
    child: int
    run_id: str


class FanOutOpened(Seen, frozen=True, gc=False, kw_only=True):
    fan_out: int
    name: str
    items: Raw
    count: int
    limit: int
    skipped: tuple[int, ...] = ()
    task: str = ""
    site: str = ""


class FanOutClosed(Seen, frozen=True, gc=False):
    fan_out: int
    count: int


class ContextSet(Seen, frozen=True, gc=False, kw_only=True):
    key: str
    value: Raw = field(default_factory=_null)
    task: str = ""
    conflict: str = ""
    refused: str = ""


class CheckpointRecorded(Seen, frozen=True, gc=False, kw_only=True):
    name: str
    data: Raw = field(default_factory=_null)
    task: str = ""


class PatchApplied(Seen, frozen=True, gc=False):
    name: str
    deprecated: bool = False


class ArtifactRecorded(Seen, frozen=True, gc=False, kw_only=True):
    step: int
    attempt: int
    name: str
    digest: str
    size: int
    path: str = ""
    media_type: str = ""


class ArtifactChanged(Seen, frozen=True, gc=False, kw_only=True):
    step: int
    name: str
    expected: str
    found: str
