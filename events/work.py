"""The dispatch table as a fold: what of a run is due, and when.

Written in the append's own transaction, so recovery is one indexed query; computed from nothing but
the run's events, so it can be dropped and rebuilt. The engine and `rebuild` use this same fold.
"""

import heapq
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from . import types as t
from .types import Event

ANY_WORKER = ("",)
"""Tags of a worker that has none: it executes the runs that say nothing of where."""


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
    """For `done`: how it ended (`completed`, `failed`, `cancelled` …)."""
    queue: str = ""
    priority: int = 0
    queue_key: str = ""
    run_on: str = ""
    """These four as in `run.started`: they never change."""
    begun_at: float | None = None
    """Epoch seconds of its first claim; None: it has not begun."""


class WorkFold:
    """Folds one run's events, in order, to its `Work` row."""

    __slots__ = (
        "_alarms", "_routing", "backoffs", "begun_at", "deadline", "due", "generation", "held", "open",
        "paused", "run_id", "seen", "state", "status", "timers", "version", "workflow",
    )  # fmt: skip

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.workflow = self.version = self.status = ""
        self.state = "pending"
        self._routing: tuple[str, int, str, str] = ("", 0, "", "")
        """Queue, priority, queue key, tag."""
        self.begun_at: float | None = None
        self.due: float | None = None
        self.deadline: float | None = None
        """When the whole run times out."""
        self.seen = self.generation = 0
        self.paused = False
        self.open: set[int] = set()
        """Steps that are scheduled, neither ended nor waiting; 0: the handler itself must be looked at."""
        self.held: set[str] = set()
        """Ids of the causes that came while the run was paused and are not delivered yet."""
        self.backoffs: dict[int, float] = {}
        self.timers: dict[int, float] = {}
        self._alarms: list[tuple[float, int]] = []
        """A heap of all of these: with a `min()` over them 10,000 parallel sleeps cost a run 50 s."""

    @property
    def waits(self) -> bool:
        """Whether it waits for its place in a queue."""
        return self.state == "pending" and self._routing[0] != ""

    def apply(self, event: Event) -> None:
        """Fold one more event of the run's stream."""
        if self.held:
            self.held.discard(event.cause)
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
            due = self.due if self.state == "pending" and not self.paused else None
            return self._row(self.state, due)
        if self.open or (self.held and not self.paused):
            return self._row("running", None)
        return self._row("waiting", None if self.paused else self._next())

    def _next(self) -> float | None:
        """The earliest of what the run waits for."""
        alarms = self._alarms
        while alarms:
            due, number = alarms[0]
            if due in (self.timers.get(number), self.backoffs.get(number)):
                break
            heapq.heappop(alarms)
        first = alarms[0][0] if alarms else None
        if self.deadline is None or first is None:
            return self.deadline if first is None else first
        return min(first, self.deadline)

    def _row(self, state: str, due: float | None) -> Work:
        return Work(
            self.run_id, self.workflow, self.version, state, due, self.seen, self.generation, self.status,
            *self._routing, self.begun_at,
        )  # fmt: skip


def _opened(fold: WorkFold, event: t.StepScheduled | t.StepStarted) -> None:
    fold.backoffs.pop(event.step, None)
    fold.open.add(event.step)


def _closed(fold: WorkFold, event: t.StepCompleted | t.StepFailed | t.StepCancelled) -> None:
    fold.open.discard(event.step)
    fold.backoffs.pop(event.step, None)


def _skipped(fold: WorkFold, event: t.StepSkipped) -> None:
    fold.open.discard(event.step)
    fold.backoffs.pop(event.step, None)
    fold.seen = max(fold.seen, event.inbox)


def _backed_off(fold: WorkFold, event: t.StepAttemptFailed) -> None:
    fold.open.discard(event.step)
    due = fold.backoffs[event.step] = event.retry_at.timestamp()
    heapq.heappush(fold._alarms, (due, event.step))


def _in_doubt(fold: WorkFold, event: t.StepInDoubt) -> None:
    fold.open.discard(event.step)


def _timer_started(fold: WorkFold, event: t.TimerStarted) -> None:
    due = fold.timers[event.timer] = event.due_at.timestamp()
    heapq.heappush(fold._alarms, (due, event.timer))


def _timer_ended(fold: WorkFold, event: t.TimerFired | t.TimerCancelled) -> None:
    fold.timers.pop(event.timer, None)


def _mail_seen(fold: WorkFold, event: Any) -> None:
    fold.seen = max(fold.seen, event.inbox)


def _cancel_requested(fold: WorkFold, event: t.RunCancelRequested) -> None:
    fold.seen = max(fold.seen, event.inbox)
    if event.kind == "Timeout":
        fold.deadline = None


def _paused(fold: WorkFold, event: t.RunPaused) -> None:
    fold.seen, fold.paused = max(fold.seen, event.inbox), True


def _resumed(fold: WorkFold, event: t.RunResumed) -> None:
    fold.seen, fold.paused = max(fold.seen, event.inbox), False


_HELD_ENDS = frozenset(kind.TAG for kind in (t.StepCompleted, t.StepFailed))


def _held(fold: WorkFold, event: t.CauseHeld) -> None:
    fold.seen = max(fold.seen, event.inbox)
    fold.held.add(event.id)
    if event.tag in _HELD_ENDS:
        fold.open.discard(msgspec.json.decode(event.body, type=_Step).step)


class _Step(Struct):
    step: int


def _rewound(fold: WorkFold, event: t.RunRewound) -> None:
    """Open again is what was open then; its next owner must look at it, and claims it."""
    fold.seen = max(fold.seen, event.inbox)
    _brought_back(fold, event)
    fold.open, fold.held = {0, *event.steps}, set()
    fold.backoffs = {}
    fold.timers = {number: due.timestamp() for number, due in event.timers.items()}
    fold._alarms = sorted((due, number) for number, due in fold.timers.items())


def _reopened(fold: WorkFold, event: t.RunReopened) -> None:
    _brought_back(fold, event)
    fold.open = {0}


def _brought_back(fold: WorkFold, event: Event) -> None:
    """A run of a queue that had ended waits for a place again; others, and those that go on, need none."""
    if fold.state == "done" and fold._routing[0]:
        fold.state, fold.due, fold.begun_at = "pending", event.at.timestamp(), None
    elif not fold.waits:
        fold.state = "running"
    fold.status, fold.paused = "", False


def _started(fold: WorkFold, event: t.RunStarted) -> None:
    fold.workflow, fold.version = event.workflow, event.workflow_version
    fold._routing = (event.queue, event.priority, event.queue_key, event.run_on)
    fold.due = (event.start_at or event.at).timestamp()
    if event.timeout_s:
        fold.deadline = fold.due + event.timeout_s


def _claimed(fold: WorkFold, event: t.RunClaimed) -> None:
    """An owner claims a run with what its handler newly asks for, in one append: it was looked at."""
    fold.state, fold.generation = "running", event.generation
    if fold.begun_at is None:
        fold.begun_at = event.at.timestamp()
    fold.open.discard(0)


def _attended(fold: WorkFold, event: t.RunAttention) -> None:
    """A stuck handler has its cause, but its commands are still to come: its next owner must look at it."""
    if event.kind == "stuck":
        fold.open.add(0)
    elif event.kind == "none":
        fold.open.discard(0)


def _ended(fold: WorkFold, event: Event) -> None:
    fold.state, fold.status = "done", event.TAG.removeprefix("run.")
    fold.open, fold.timers, fold.backoffs, fold._alarms = set(), {}, {}, []
    fold.seen = max(fold.seen, getattr(event, "inbox", 0))


_CHANGES: dict[type[Event], Callable[[WorkFold, Any], None]] = {
    t.StepScheduled: _opened,
    t.StepStarted: _opened,
    t.StepCompleted: _closed,
    t.StepFailed: _closed,
    t.StepCancelled: _closed,
    t.StepSkipped: _skipped,
    t.StepAttemptFailed: _backed_off,
    t.StepInDoubt: _in_doubt,
    t.TimerStarted: _timer_started,
    t.TimerFired: _timer_ended,
    t.TimerCancelled: _timer_ended,
    t.SignalReceived: _mail_seen,
    t.GateVoted: _mail_seen,
    t.ChildEnded: _mail_seen,
    t.AttributesChanged: _mail_seen,
    t.CompensateRequested: _mail_seen,
    t.InboxSkipped: _mail_seen,
    t.RunCancelRequested: _cancel_requested,
    t.RunStarted: _started,
    t.RunClaimed: _claimed,
    t.RunAttention: _attended,
    t.RunPaused: _paused,
    t.RunResumed: _resumed,
    t.CauseHeld: _held,
    t.RunRewound: _rewound,
    t.RunReopened: _reopened,
    **dict.fromkeys(t.ENDS, _ended),
}
