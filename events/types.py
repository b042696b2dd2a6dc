"""The vocabulary of the log: one frozen type per thing that can happen, under a stable tag.

A tag never changes its meaning and is never an import path. A new field needs a default; any other
change is a new version of the type (`step.completed@2`) with an upcaster beside it (`registry.py`).

*Causes* are delivered to the handler, one per activation. *Commands* are what the handler asked
for in that activation; replay matches them one by one. *Facts* are neither: the engine's own record.
Numbers named `step`, `timer` and `wait` count the commands of a run: 1, 2, 3 …
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
from msgspec import Raw, Struct


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every event carries."""

    TAG: ClassVar[str] = ""
    id: str
    """Unique over all events, made by the process that appended it."""
    at: datetime
    """When, UTC, to the microsecond; never goes back within a stream."""
    by: str = "engine"
    """Who or what did it: `engine`, `handler`, or a principal such as `user:ana`."""
    cause: str = ""
    """Id of the event that led to this one; empty for the first of a run."""
    trace: str = ""
    """Trace id of the run (W3C, 32 hex digits)."""


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as the log keeps it: text, never an object to import."""

    type: str
    """Class name of the exception."""
    message: str
    error_class: str = "error"
    """`error`, `non_retryable`, `timed_out`, `interrupted`, `value_refused` or `divergence`."""
    traceback: str = ""
    """Formatted, cut to 8 KiB."""
    data: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))
    """JSON of the exception's `data` attribute."""


# ---- a run's life ---------------------------------------------------------------------------


class RunStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The run exists; everything the handler may depend on is in here."""

    TAG = "run.started"
    workflow: str
    workflow_version: str
    args: Raw
    """JSON array of the handler's positional arguments after `ctx`."""
    seed: int
    """64 bits from which `ctx.random` and the order of sets of tasks follow."""
    key: str = ""
    """Idempotency key of `start(key=…)`."""
    attributes: dict[str, Any] = {}
    """Searchable labels, as given to `start`."""
    trigger: str = "manual"
    runtime: dict[str, str] = {}
    """`python`, `anyio`, `refold` versions and `code`, a digest of the handler's bytecode."""


class RunClaimed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. An owner took the run; whoever owned it before can no longer append."""

    TAG = "run.claimed"
    owner: str
    generation: int
    """1 for the first owner, then one more for each."""


class RunCancelRequested(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. Somebody asked the run to stop; the handler sees `CancelledError`."""

    TAG = "run.cancel_requested"
    reason: str = ""
    kind: str = "UserRequested"
    """`UserRequested`, `Timeout`, `FailFast`, `ParentCancelled`, `EngineShutdown` or `LeaseLost`."""
    inbox: int = 0
    """Version of the inbox message this is a copy of; 0 when it did not come through the inbox."""


class RunCompleted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: the handler returned."""

    TAG = "run.completed"
    result: Raw


class RunFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: the handler raised."""

    TAG = "run.failed"
    error: Failure


class RunCancelled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: the handler let the cancellation through."""

    TAG = "run.cancelled"
    reason: str = ""
    kind: str = "UserRequested"


class RunAttention(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. The run cannot go on by itself (`diverged`, `missing_version`, …), or can again (`none`)."""

    TAG = "run.attention"
    kind: str
    reason: str = ""


# ---- steps ----------------------------------------------------------------------------------


class StepScheduled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler called a step."""

    TAG = "step.scheduled"
    step: int
    name: str
    key: str
    """Readable and unique in the run: name and ordinal, `charge#2`."""
    args: Raw
    """JSON array of the positional arguments."""
    kwargs: Raw = msgspec.field(default_factory=lambda: Raw(b"{}"))
    kind: str = "step"
    """`step`, `call` or `custom:<kind>`."""
    pure: bool = False
    max_attempts: int = 1
    timeout_s: float = 0.0
    """Limit of one attempt in seconds; 0: none."""
    after: tuple[int, ...] = ()
    """Steps whose results the handler had when it made this call (at most 64)."""
    task: str = ""
    """Path of the task that called, `m` for the handler itself. For display; not identity."""
    site: str = ""
    """`file.py:41`, where the handler called it. For display; not identity."""
    iteration: int = 0
    """How often this task had called this step from this place before."""


class StepStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact, the intent: an attempt may now have effects. Its idempotency key is `run/key`."""

    TAG = "step.started"
    step: int
    attempt: int = 1
    """Counts every start, interrupted ones included."""


class StepCompleted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The step has its result, for good."""

    TAG = "step.completed"
    step: int
    result: Raw
    attempt: int = 1


class StepFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The step has failed for good."""

    TAG = "step.failed"
    step: int
    error: Failure
    attempt: int = 1


class StepAttemptFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. An attempt failed and another one follows at `retry_at`."""

    TAG = "step.attempt_failed"
    step: int
    attempt: int
    error: Failure
    retry_at: datetime


class StepInterrupted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. The process died (or shut down) while this attempt ran; what it did is unknown."""

    TAG = "step.interrupted"
    step: int
    attempt: int
    reason: str = "crash"


class StepReleased(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. A graceful shutdown took the attempt back before its body had begun."""

    TAG = "step.released"
    step: int
    attempt: int


class StepCancelled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler gave up waiting for the step; its body is told to stop."""

    TAG = "step.cancelled"
    step: int


class StepLate(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact, evidence. A body ended after nobody waited for it any more."""

    TAG = "step.late"
    step: int
    attempt: int
    result: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))
    """Not optional: msgspec writes `Raw | None` and cannot read it back."""
    error: Failure | None = None
    """None: it completed."""


class CostRecorded(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. An attempt spent money or tokens; written at once, so a failure does not lose it."""

    TAG = "cost.recorded"
    step: int
    attempt: int
    usd: Decimal = Decimal(0)
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    turns: int = 0
    detail: dict[str, Any] = {}


class DebugRecorded(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Something a body wanted kept for people; never loaded on replay."""

    TAG = "debug.recorded"
    step: int
    attempt: int
    message: Raw


# ---- waiting --------------------------------------------------------------------------------


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


# ---- inbox streams (`RUN/inbox`) and keys (`key/KEY`) -----------------------------------------


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


CAUSES: tuple[type[Event], ...] = (
    RunStarted,
    StepCompleted,
    StepFailed,
    TimerFired,
    SignalReceived,
    RunCancelRequested,
)
COMMANDS: tuple[type[Event], ...] = (
    StepScheduled,
    StepCancelled,
    TimerStarted,
    TimerCancelled,
    WaitOpened,
    WaitCancelled,
    RunCompleted,
    RunFailed,
    RunCancelled,
)
FACTS: tuple[type[Event], ...] = (
    RunClaimed,
    RunAttention,
    StepStarted,
    StepAttemptFailed,
    StepInterrupted,
    StepReleased,
    StepLate,
    CostRecorded,
    DebugRecorded,
    InboxSkipped,
    SignalSent,
    CancelSent,
    KeyTaken,
)
ENDS: tuple[type[Event], ...] = (RunCompleted, RunFailed, RunCancelled)
