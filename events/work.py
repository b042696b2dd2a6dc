"""The dispatch table as a fold: what of a run is due, and when.

Written in the append's own transaction, so recovery is one indexed query; computed from nothing but
the run's events, so it can be dropped and rebuilt. The engine and `rebuild` use this same fold.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from . import types as t
from .types import Event


class Work(Struct, frozen=True):
    """One row of `work`. `mail` (the last inbox version) is kept by the store, not by this fold."""

    run_id: str
    workflow: str
    version: str
    """Version of the workflow the run is pinned to."""
    state: str
    """`pending` (never claimed), `running` (needs its owner), `waiting` (timer or message), `done`."""
    due_at: float | None = None
    """Epoch seconds at which a pending or waiting run wants attention; None: not by itself."""
    seen: int = 0
    """Version of the last inbox message the run has consumed."""
    generation: int = 0
    """Of the last claim."""
    status: str = ""
    """For `done`: how it ended (`completed`, `failed`, `cancelled`)."""


class WorkFold:
    """Folds one run's events, in order, to its `Work` row."""

    __slots__ = (
        "backoffs", "due", "generation", "open", "run_id", "seen", "state", "status", "timers",
        "version", "workflow",
    )  # fmt: skip

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.workflow = self.version = self.status = ""
        self.state = "pending"
        self.due: float | None = None
        self.seen = self.generation = 0
        self.open: set[int] = set()
        """Steps that are scheduled, neither ended nor waiting for a retry; 0 stands for a stuck handler."""
        self.backoffs: dict[int, float] = {}
        self.timers: dict[int, float] = {}

    def apply(self, event: Event) -> None:
        """Fold one more event of the run's stream."""
        change = _CHANGES.get(type(event))
        if change is not None:
            change(self, event)

    def row(self, last: Work | None = None) -> Work:
        """The row as it stands after the last event folded; `last` itself when nothing has changed."""
        if (
            last is not None
            and self.open
            and self.state == last.state == "running"
            and (self.seen, self.generation) == (last.seen, last.generation)
        ):
            return last  # the common case, in a fifth of the time
        row = self._current()
        return last if last is not None and row == last else row

    def _current(self) -> Work:
        if self.state in ("pending", "done"):
            due = self.due if self.state == "pending" else None
            return self._row(self.state, due)
        if self.open:
            return self._row("running", None)
        deadlines = (*self.backoffs.values(), *self.timers.values())
        return self._row("waiting", min(deadlines) if deadlines else None)

    def _row(self, state: str, due: float | None) -> Work:
        return Work(
            self.run_id, self.workflow, self.version, state, due, self.seen, self.generation, self.status
        )


def _opened(fold: WorkFold, event: t.StepScheduled | t.StepStarted) -> None:
    fold.backoffs.pop(event.step, None)
    fold.open.add(event.step)


def _closed(fold: WorkFold, event: t.StepCompleted | t.StepFailed | t.StepCancelled) -> None:
    fold.open.discard(event.step)
    fold.backoffs.pop(event.step, None)


def _backed_off(fold: WorkFold, event: t.StepAttemptFailed) -> None:
    fold.open.discard(event.step)
    fold.backoffs[event.step] = event.retry_at.timestamp()


def _timer_started(fold: WorkFold, event: t.TimerStarted) -> None:
    fold.timers[event.timer] = event.due_at.timestamp()


def _timer_ended(fold: WorkFold, event: t.TimerFired | t.TimerCancelled) -> None:
    fold.timers.pop(event.timer, None)


def _mail_seen(fold: WorkFold, event: t.SignalReceived | t.RunCancelRequested | t.InboxSkipped) -> None:
    fold.seen = max(fold.seen, event.inbox)


def _started(fold: WorkFold, event: t.RunStarted) -> None:
    fold.workflow, fold.version = event.workflow, event.workflow_version
    fold.due = event.at.timestamp()


def _claimed(fold: WorkFold, event: t.RunClaimed) -> None:
    fold.state, fold.generation = "running", event.generation


def _attended(fold: WorkFold, event: t.RunAttention) -> None:
    """A stuck handler has its cause, but its commands are still to come: its next owner must look at it."""
    if event.kind == "stuck":
        fold.open.add(0)
    elif event.kind == "none":
        fold.open.discard(0)


def _ended(fold: WorkFold, event: Event) -> None:
    fold.state, fold.status = "done", event.TAG.removeprefix("run.")


_CHANGES: dict[type[Event], Callable[[WorkFold, Any], None]] = {
    t.StepScheduled: _opened,
    t.StepStarted: _opened,
    t.StepCompleted: _closed,
    t.StepFailed: _closed,
    t.StepCancelled: _closed,
    t.StepAttemptFailed: _backed_off,
    t.TimerStarted: _timer_started,
    t.TimerFired: _timer_ended,
    t.TimerCancelled: _timer_ended,
    t.SignalReceived: _mail_seen,
    t.RunCancelRequested: _mail_seen,
    t.InboxSkipped: _mail_seen,
    t.RunStarted: _started,
    t.RunClaimed: _claimed,
    t.RunAttention: _attended,
    t.RunCompleted: _ended,
    t.RunFailed: _ended,
    t.RunCancelled: _ended,
}
