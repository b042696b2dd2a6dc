"""Which tags the core read models know, and what they decode each into."""

from ..events.registry import TYPES
from . import reading as r, reading_waits as w
from .projection import Events

_READ: dict[str, type[r.Seen]] = {
    "run.started": r.RunStarted,
    "run.claimed": r.RunClaimed,
    "run.cancel_requested": r.RunCancelRequested,
    "run.completed": r.RunCompleted,
    "run.failed": r.RunFailed,
    "run.cancelled": r.RunCancelled,
    "run.continued": r.RunContinued,
    "run.compensated": r.RunCompensated,
    "run.compensation_failed": r.RunCompensationFailed,
    "run.terminated": r.RunTerminated,
    "run.attention": r.RunAttention,
    "run.paused": r.RunPaused,
    "run.resumed": r.RunResumed,
    "run.rewound": r.RunRewound,
    "run.reopened": r.RunReopened,
    "run.dismissed": r.RunDismissed,
    "compensation.started": r.CompensationStarted,
    "attributes.set": r.AttributesSet,
    "attributes.changed": r.AttributesChanged,
    "run.compensate_requested": r.CompensateRequested,
    "step.scheduled": r.StepScheduled,
    "step.started": r.StepStarted,
    "step.completed": r.StepCompleted,
    "step.failed": r.StepFailed,
    "step.skipped": r.StepSkipped,
    "step.attempt_failed": r.StepAttemptFailed,
    "step.interrupted": r.StepInterrupted,
    "step.in_doubt": r.StepInDoubt,
    "step.probed": r.StepProbed,
    "step.released": r.StepReleased,
    "step.cancelled": r.StepCancelled,
    "step.compensated": r.StepCompensated,
    "step.late": r.StepLate,
    "branch.skipped": r.BranchSkipped,
    "cost.recorded": r.CostRecorded,
    "timer.started": w.TimerStarted,
    "timer.cancelled": w.TimerEnded,
    "timer.fired": w.TimerFired,
    "wait.opened": w.WaitOpened,
    "wait.cancelled": w.WaitCancelled,
    "signal.received": w.SignalReceived,
    "gate.opened": w.GateOpened,
    "gate.voted": w.GateVoted,
    "gate.escalated": w.GateEscalated,
    "gate.closed": w.GateClosed,
    "child.started": w.ChildStarted,
    "child.ended": w.ChildCopied,
    "child.cancelled": w.ChildCancelled,
    "fan_out.opened": w.FanOutOpened,
    "fan_out.closed": w.FanOutClosed,
    "context.set": w.ContextSet,
    "checkpoint.recorded": w.CheckpointRecorded,
    "patch.applied": w.PatchApplied,
    "artifact.recorded": w.ArtifactRecorded,
    "artifact.changed": w.ArtifactChanged,
}
_BESIDE = ("key.", "lock.", "queue.", "schedule.")
ELSEWHERE = frozenset(
    {"signal.sent", "cancel.sent", "vote.sent", "child_end.sent", "request.sent"}
    | {tag for tag in TYPES if tag.startswith(_BESIDE)}
)
"""Tags of inboxes, and of the streams beside the runs'."""

EVENTS: Events = {tag: _READ.get(tag, r.Seen) for tag in TYPES if tag not in ELSEWHERE}
"""Every tag of a run's own stream; of those that change nothing but the run's last event, only `at`."""


def events(*tags: str) -> Events:
    """These of them."""
    return {tag: EVENTS[tag] for tag in tags}
