"""The events as the core read models see them: only the fields they need, times as stored text.

Decoding `step.completed` to these costs half of decoding it whole: `at` stays text, ids are skipped.
Defaults are those of `events.types` (a test compares), for a field at its default is not stored.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from msgspec import Raw, Struct, field

_TEXT_LENGTH = len("2026-01-31T12:00:00.000000Z")


class Seen(Struct, frozen=True, gc=False):
    """Any event: when."""

    at: str


class Failure(Struct, frozen=True, gc=False):
    type: str
    message: str
    error_class: str = "error"
    traceback: str = ""


class Spent(Struct, frozen=True, gc=False):
    usd: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    turns: int = 0


class Ancestor(Struct, frozen=True, gc=False):
    run_id: str


class Carried(Struct, frozen=True, gc=False):
    name: str


class RunStarted(Seen, frozen=True, gc=False, kw_only=True):
    workflow: str
    workflow_version: str
    args: Raw
    key: str = ""
    attributes: Raw = field(default_factory=lambda: Raw(b"{}"))
    trigger: str = "manual"
    runtime: Raw = field(default_factory=lambda: Raw(b"{}"))
    trace: str = ""
    by: str = "engine"
    timeout_s: float = 0.0
    ancestors: tuple[Ancestor, ...] = ()
    child: int = 0
    detached: bool = False
    continued_from: str = ""
    carried: tuple[Carried, ...] = ()
    forked_from: str = ""
    forked_at: int = 0
    triggered_by: Raw = field(default_factory=lambda: Raw(b"null"))
    start_at: str | None = None
    queue: str = ""
    priority: int = 0
    queue_key: str = ""
    run_on: str = ""
    lock: str = ""


class RunClaimed(Seen, frozen=True, gc=False):
    owner: str
    generation: int


class RunCancelRequested(Seen, frozen=True, gc=False):
    reason: str = ""
    kind: str = "UserRequested"


class RunEnded(Seen, frozen=True, gc=False, kw_only=True):
    """Any end: what was still open."""

    open: tuple[int, ...] = ()


class RunCompleted(RunEnded, frozen=True, gc=False, kw_only=True):
    result: Raw


class RunFailed(RunEnded, frozen=True, gc=False, kw_only=True):
    error: Failure


class RunCancelled(RunEnded, frozen=True, gc=False, kw_only=True):
    reason: str = ""
    kind: str = "UserRequested"


class RunContinued(RunEnded, frozen=True, gc=False, kw_only=True):
    next_run: str


class RunCompensated(RunEnded, frozen=True, gc=False, kw_only=True):
    because: str = ""
    error: Failure | None = None


class RunCompensationFailed(RunEnded, frozen=True, gc=False, kw_only=True):
    failed: tuple[str, ...]
    because: str = ""
    error: Failure | None = None


class RunTerminated(RunEnded, frozen=True, gc=False, kw_only=True):
    reason: str = ""
    by: str = "engine"


class CompensationStarted(Seen, frozen=True, gc=False):
    because: str
    steps: tuple[str, ...]


class RunReopened(Seen, frozen=True, gc=False):
    pass


class RunPaused(Seen, frozen=True, gc=False):
    by: str = "engine"


class RunResumed(Seen, frozen=True, gc=False):
    pass


class RunRewound(Seen, frozen=True, gc=False):
    to: int
    dropped: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    timers: dict[int, str] = field(default_factory=dict)
    waits: dict[int, str] = field(default_factory=dict)
    gates: tuple[int, ...] = ()
    children: tuple[int, ...] = ()


class RunDismissed(Seen, frozen=True, gc=False):
    dismissed: bool = True


class AttributesSet(Seen, frozen=True, gc=False):
    attributes: dict[str, Raw]


class AttributesChanged(AttributesSet, frozen=True, gc=False):
    pass


class CompensateRequested(Seen, frozen=True, gc=False):
    pass


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
    fan_out: int = 0
    item: int = 0
    compensate: str = ""
    undoes: str = ""
    optional: bool = False
    total_timeout_s: float = 0.0


class StepStarted(Seen, frozen=True, gc=False):
    step: int
    attempt: int = 1


class StepCompleted(Seen, frozen=True, gc=False):
    step: int
    result: Raw
    attempt: int = 1
    by: str = "engine"


class StepFailed(Seen, frozen=True, gc=False):
    step: int
    error: Failure
    attempt: int = 1
    by: str = "engine"


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


class StepSkipped(Seen, frozen=True, gc=False):
    step: int
    result: Raw = Raw(b"null")
    reason: str = ""
    by: str = "engine"


class StepInDoubt(Seen, frozen=True, gc=False):
    step: int
    attempt: int
    reason: str = ""


class StepProbed(Seen, frozen=True, gc=False):
    step: int
    attempt: int
    outcome: str


class StepCompensated(Seen, frozen=True, gc=False):
    step: int


class BranchSkipped(Seen, frozen=True, gc=False):
    step: int
    name: str
    key: str
    reason: str


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
