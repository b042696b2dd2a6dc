"""Which attempts each open step has had: a fold of the run's facts."""

from collections.abc import Iterable
from datetime import datetime

from ..events import types as t
from ..events.types import Event

LOST = "lost"
"""So begins the reason of an attempt that was cut off because the place where its body ran is gone."""


class AttemptState:
    """Attempts of one step."""

    __slots__ = ("attempt", "began_at", "crashes", "failures", "phase", "pure", "retry_at", "started_id")

    def __init__(self) -> None:
        self.attempt = 0
        """Number of the last attempt begun."""
        self.failures = 0
        """Attempts that failed; interrupted ones do not count against `Retry.max_attempts`."""
        self.crashes = 0
        """Attempts in a row that ended with their process."""
        self.phase = "scheduled"
        """`scheduled`, `started`, `backoff`, `interrupted` (outcome unknown), `in_doubt` (and a person must
        say) or `released` (to begin anew)."""
        self.retry_at: datetime | None = None
        self.started_id = ""
        self.began_at: datetime | None = None
        """When the first attempt began: from then on counts the step's `total_timeout`."""
        self.pure = False


class Attempts(dict[int, AttemptState]):
    """States by step number; made when first asked for."""

    def __missing__(self, step: int) -> AttemptState:
        state = self[step] = AttemptState()
        return state

    def scheduled(self, step: int, pure: bool = False) -> None:
        self[step].pure = pure

    def started(self, step: int, attempt: int, event_id: str, at: datetime) -> None:
        state = self[step]
        if state.began_at is None:
            state.began_at = at
        state.attempt, state.started_id, state.phase = attempt, event_id, "started"
        state.retry_at = None

    def failed(self, step: int, retry_at: datetime) -> None:
        state = self[step]
        state.failures += 1
        state.crashes = 0
        state.phase, state.retry_at = "backoff", retry_at

    def doubted(self, step: int) -> None:
        """A person must say; who says "again" gives it as many crashes as before."""
        self[step].phase, self[step].crashes = "in_doubt", 0

    def reopened(self, step: int, attempt: int, cut_off: bool = False) -> None:
        """A repair opened the step again after so many attempts; what one that was cut off did is unknown."""
        state = self[step]
        state.attempt, state.phase = attempt, "interrupted" if cut_off else "released"

    def fold(self, events: Iterable[Event]) -> None:
        """Fold a run's events; ended steps are forgotten."""
        for event in events:
            if isinstance(event, t.StepScheduled):
                self.scheduled(event.step, event.pure)
            elif isinstance(event, t.StepStarted):
                self.started(event.step, event.attempt, event.id, event.at)
            elif isinstance(event, t.StepAttemptFailed):
                self.failed(event.step, event.retry_at)
            elif isinstance(event, t.StepInterrupted):
                self[event.step].phase = "interrupted"
                self[event.step].crashes += event.reason == "crash" or event.reason.startswith(LOST)
            elif isinstance(event, t.StepReleased):
                self[event.step].phase = "released"
            elif isinstance(event, t.StepInDoubt):
                self.doubted(event.step)
            elif isinstance(event, t.StepCompleted | t.StepFailed | t.StepSkipped | t.StepCancelled):
                self.pop(event.step, None)
