"""Steps: called, attempted, ended, and what people decide about them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw

from .event import Event, Failure, null


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
    """`step`, `call`, `compensation` (it undoes another one) or `custom:<kind>`."""
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
    fan_out: int = 0
    """Number of the `map` that it is an item of; 0: of none."""
    item: int = 0
    """Place in that map's items, from 0."""
    compensate: str = ""
    """Name of the step that undoes it."""
    undoes: str = ""
    """Key of the step that this one undoes."""
    optional: bool = False
    """The run goes on without it when it fails."""
    total_timeout_s: float = 0.0
    """Limit of all attempts together, in seconds from the first start; 0: none."""


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
    result: Raw = msgspec.field(default_factory=null)
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


class StepSkipped(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. Somebody said what the step came to: it does not run (any more), this is its result."""

    TAG = "step.skipped"
    step: int
    result: Raw = msgspec.field(default_factory=null)
    reason: str = ""
    inbox: int = 0


class StepInDoubt(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Nobody knows what a cut-off attempt did; a person has to say (`on_unknown="ask"`)."""

    TAG = "step.in_doubt"
    step: int
    attempt: int
    reason: str = ""


class StepProbed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. The step's probe looked whether a cut-off attempt had its effect."""

    TAG = "step.probed"
    step: int
    attempt: int
    outcome: str
    """`happened`, `not_happened` or `unknown`."""
    error: Failure | None = None
    """Why it is unknown, when the probe itself failed."""


class StepCompensated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The step is undone."""

    TAG = "step.compensated"
    step: int
    key: str


class BranchSkipped(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. A step that the handler did not call, because of a condition; for people."""

    TAG = "branch.skipped"
    step: int
    name: str
    key: str
    reason: str


class FanOutOpened(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. `ctx.map`: the items, as they were collected. Item i has the number `fan_out + 1 + i`."""

    TAG = "fan_out.opened"
    fan_out: int
    name: str
    """Of the step or workflow that each item goes through."""
    items: Raw
    """JSON array."""
    count: int
    limit: int
    """Items that may be under way at once; 0: all."""
    skipped: tuple[int, ...] = ()
    """Places of the items that are left out."""
    task: str = ""
    site: str = ""


class FanOutClosed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The map has ended before all its items had begun; those never will."""

    TAG = "fan_out.closed"
    fan_out: int
    count: int
    """Of its items."""
