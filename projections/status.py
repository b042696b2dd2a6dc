"""The words that status columns may hold."""

from enum import StrEnum


class RunStatus(StrEnum):
    """How a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    CONTINUED = "continued"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"


class StepStatus(StrEnum):
    """How an attempt at a step stands."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRYING = "retrying"
    WAITING = "waiting"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"
    COMPENSATED = "compensated"


class Attention(StrEnum):
    """Why a run that is not over cannot go on as it should."""

    NONE = "none"
    RETRYING = "retrying"
    NO_WORKER = "no_worker"
    DIVERGED = "diverged"
    MISSING_VERSION = "missing_version"
    IN_DOUBT = "in_doubt"
    STUCK = "stuck"
