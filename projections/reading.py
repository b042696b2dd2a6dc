"""The events as the core read models see them: only the fields they need, times as stored text.

Decoding `step.completed` to these costs half of decoding it whole: `at` stays text, ids are skipped.
Defaults are those of `events.types` (a test compares), for a field at its default is not stored.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from msgspec import Raw, Struct, field

from ..events.registry import TYPES

_TEXT_LENGTH = len("2026-01-31T12:00:00.000000Z")


class Seen(Struct, frozen=True, gc=False):
    """Any event: when."""

    at: str


class Failure(Struct, frozen=True, gc=False):
    type: str
    message: str
    error_class: str = "error"
    traceback: str = ""


class RunStarted(Seen, frozen=True, gc=False, kw_only=True):
    workflow: str
    workflow_version: str
    args: Raw
    key: str = ""
    attributes: Raw = field(default_factory=lambda: Raw(b"{}"))
    trigger: str = "manual"
    runtime: Raw = field(default_factory=lambda: Raw(b"{}"))
    trace: str = ""


class RunClaimed(Seen, frozen=True, gc=False):
    owner: str
    generation: int


class RunCancelRequested(Seen, frozen=True, gc=False):
    reason: str = ""
    kind: str = "UserRequested"


class RunCompleted(Seen, frozen=True, gc=False):
    result: Raw


class RunFailed(Seen, frozen=True, gc=False):
    error: Failure


class RunCancelled(Seen, frozen=True, gc=False):
    reason: str = ""
    kind: str = "UserRequested"


class RunAttention(Seen, frozen=True, gc=False):
    kind: str
    reason: str = ""


class StepScheduled(Seen, frozen=True, gc=False, kw_only=True):
    step: int
    name: str
    key: str
    args: Raw
    kwargs: Raw = field(default_factory=lambda: Raw(b"{}"))
    kind: str = "step"
    pure: bool = False
    max_attempts: int = 1
    timeout_s: float = 0.0
    after: tuple[int, ...] = ()
    task: str = ""
    site: str = ""
    iteration: int = 0


class StepStarted(Seen, frozen=True, gc=False):
    step: int
    attempt: int = 1


class StepCompleted(Seen, frozen=True, gc=False):
    step: int
    result: Raw
    attempt: int = 1


class StepFailed(Seen, frozen=True, gc=False):
    step: int
    error: Failure
    attempt: int = 1


class StepAttemptFailed(Seen, frozen=True, gc=False):
    step: int
    attempt: int
    error: Failure
    retry_at: str


class StepInterrupted(Seen, frozen=True, gc=False):
    step: int
    attempt: int
    reason: str = "crash"


class StepReleased(Seen, frozen=True, gc=False):
    step: int
    attempt: int


class StepCancelled(Seen, frozen=True, gc=False):
    step: int


class StepLate(Seen, frozen=True, gc=False):
    step: int
    attempt: int
    result: Raw = Raw(b"null")
    error: Failure | None = None


class CostRecorded(Seen, frozen=True, gc=False):
    step: int
    attempt: int
    usd: Decimal = Decimal(0)
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    turns: int = 0


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


_READ: dict[str, type[Seen]] = {
    "run.started": RunStarted,
    "run.claimed": RunClaimed,
    "run.cancel_requested": RunCancelRequested,
    "run.completed": RunCompleted,
    "run.failed": RunFailed,
    "run.cancelled": RunCancelled,
    "run.attention": RunAttention,
    "step.scheduled": StepScheduled,
    "step.started": StepStarted,
    "step.completed": StepCompleted,
    "step.failed": StepFailed,
    "step.attempt_failed": StepAttemptFailed,
    "step.interrupted": StepInterrupted,
    "step.released": StepReleased,
    "step.cancelled": StepCancelled,
    "step.late": StepLate,
    "cost.recorded": CostRecorded,
    "timer.started": TimerStarted,
    "timer.cancelled": TimerEnded,
    "timer.fired": TimerFired,
    "wait.opened": WaitOpened,
    "wait.cancelled": WaitCancelled,
    "signal.received": SignalReceived,
}
_ELSEWHERE = ("signal.sent", "cancel.sent", "key.taken")
"""Tags of inboxes and of start keys."""

EVENTS: dict[str, type[Struct]] = {tag: _READ.get(tag, Seen) for tag in TYPES if tag not in _ELSEWHERE}
"""Every tag of a run's own stream; of those that change nothing but the run's last event, only `at`."""


def utc(at: str) -> str:
    """A stored time in the one form that sorts as text: UTC, always six digits of a second, `Z`."""
    if len(at) == _TEXT_LENGTH and at[-1] == "Z":
        return at
    moment = datetime.fromisoformat(at).astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@lru_cache(maxsize=16)  # `runs` and `steps` ask the same, one after the other
def microseconds(start: str, end: str) -> int:
    """Whole microseconds from one stored time to another."""
    span = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def text(raw: Raw) -> str:
    """JSON as the text to store."""
    return str(raw, "utf-8")
