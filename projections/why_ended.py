"""Why a run has ended: its last event, and back along the causes that led to it."""

import re
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from ..events import types as t
from ..events.types import Event
from .records import Record
from .step_row import StepRow

FAR = 20
"""Causes to go back at most: people read the first few."""
_STEP = re.compile(r"step (\S+#\d+) failed: ")
_STEP_ERRORS = ("StepFailed", "StepTimedOut", "StepInterrupted")


_TURNS = frozenset({*t.ENDS, t.RunRewound, t.RunReopened})


class Reason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One link of the chain: what led to what is said before it."""

    type: str
    """`error`, `step`, `child`, `vote`, `gate`, `cancel`, `terminate`, `event`, `timer`, `not_undone`."""
    name: str = ""
    """Key of the step, name of the gate or event, run id of the child."""
    by: str = ""
    at: datetime | None = None
    text: str = ""
    """The error, the feedback, or the reason that was given."""
    status: str = ""
    """How a child ended, what was voted, the kind of a cancellation."""
    times: int = 0
    """Attempts of the step that failed."""


class End(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run ended, and why."""

    status: str
    at: datetime
    by: str = ""
    because: tuple[Reason, ...] = ()
    """The nearest reason first."""
    undone_after: str = ""
    """Of a run that was undone: how it had ended before."""
    next_run: str = ""
    """The run that goes on for it."""
    result: str = ""
    """JSON of what it returned."""


def end_of(known: Sequence[Event], attempts: Sequence[StepRow], gates: Sequence[Record]) -> End | None:
    """The end of a run that has ended; None: it goes on."""
    place = next((i for i in reversed(range(len(known))) if type(known[i]) in _TURNS), None)
    if place is None or not isinstance(end := known[place], t.ENDS):
        return None
    status = end.TAG.removeprefix("run.")
    told = _Telling(known[: place + 1], attempts, gates)
    if isinstance(end, t.RunCompleted):
        return End(status=status, at=end.at, by=end.by, result=str(end.result, "utf-8"))
    if isinstance(end, t.RunContinued):
        return End(status=status, at=end.at, by=end.by, next_run=end.next_run)
    after = end.because if isinstance(end, t.RunCompensated | t.RunCompensationFailed) else ""
    return End(status=status, at=end.at, by=end.by, because=tuple(told.why(end)), undone_after=after)


class _Telling:
    """The chain of causes of one run."""

    def __init__(self, known: Sequence[Event], attempts: Sequence[StepRow], gates: Sequence[Record]) -> None:
        self.known = known
        self.by_id = {event.id: event for event in known}
        self.attempts, self.gates = attempts, gates

    def why(self, end: Event) -> list[Reason]:
        if isinstance(end, t.RunTerminated):
            return [Reason(type="terminate", by=end.by, at=end.at, text=end.reason)]
        if isinstance(end, t.RunCancelled):
            return [self._cancelled(end)]
        found: list[Reason] = []
        if isinstance(end, t.RunCompensationFailed):
            found += [self._step(key, "not_undone") for key in end.failed]
        error = getattr(end, "error", None)
        if isinstance(error, t.Failure):
            found += self._error(error, self._before_undoing(end))
        elif getattr(end, "because", "") == "cancelled":
            found.append(self._cancelled(end))
        elif (reopened := self._reopened()) is not None:
            found.append(Reason(type="undo", by=reopened.by, at=reopened.at, text=reopened.reason))
        return found

    def _reopened(self) -> t.RunReopened | t.CompensateRequested | None:
        return next(
            (e for e in reversed(self.known) if isinstance(e, t.RunReopened | t.CompensateRequested)), None
        )

    def _before_undoing(self, end: Event) -> Event:
        """The event whose cause led to the failure: a run that undoes what it did comes to that first."""
        for event in reversed(self.known):
            if isinstance(event, t.CompensationStarted):
                return event
            if isinstance(event, t.RunRewound | t.RunReopened):
                break
        return end

    def _error(self, error: t.Failure, place: Event) -> list[Reason]:
        text = f"{error.type}: {error.message}".removesuffix(": ")
        match = _STEP.match(error.message) if error.type in _STEP_ERRORS else None
        if match is not None:
            return [self._step(match[1], "step", text)]
        found = [Reason(type="error", text=text)]
        for _ in range(FAR):
            cause = self.by_id.get(place.cause)
            if cause is None:
                break
            if (reason := self._cause(cause)) is not None:
                found.append(reason)
                break
            place = cause
        return found

    def _cause(self, event: Event) -> Reason | None:
        """What happened, as far as it explains an error of the handler."""
        match event:
            case t.StepFailed() | t.StepCompleted() | t.StepSkipped():
                key = next((row.key for row in self.attempts if row.step == event.step), "")
                if isinstance(event, t.StepFailed):
                    return self._step(key, "step", f"{event.error.type}: {event.error.message}")
                done = "skipped" if isinstance(event, t.StepSkipped) else "completed"
                return Reason(type="after_step", name=key, at=event.at, status=done)
            case t.ChildEnded():
                text = "" if event.error is None else f"{event.error.type}: {event.error.message}"
                return Reason(
                    type="child", name=event.run_id, at=event.at, status=event.status, text=text
                )  # fmt: skip
            case t.GateVoted():
                name = next((row["name"] for row in self.gates if row["gate"] == event.gate), "")
                return Reason(
                    type="vote", name=name, by=event.by, at=event.at, status=event.vote, text=event.feedback
                )
            case t.RunCancelRequested():
                return Reason(
                    type="cancel", by=event.by, at=event.at, status=event.kind, text=event.reason
                )  # fmt: skip
            case t.SignalReceived():
                return Reason(type="event", name=event.name, by=event.by, at=event.at)
            case t.TimerFired():
                return Reason(type="timer", at=event.at)
        return None

    def _step(self, key: str, type: str, text: str = "") -> Reason:
        rows = [row for row in self.attempts if row.key == key]
        failed = [row for row in rows if row.error_type]
        if failed:
            last = failed[-1]
            text = f"{last.error_type}: {last.error_message}"
        elif type == "not_undone":
            undos = [row for row in self.attempts if row.undoes == key and row.error_type]
            if undos:
                text = f"{undos[-1].error_type}: {undos[-1].error_message}"
                failed = undos
        by = rows[-1].resolved_by if rows else ""
        return Reason(type=type, name=key, text=text, times=len(failed), by=by)

    def _cancelled(self, end: Event) -> Reason:
        asked = next((e for e in reversed(self.known) if isinstance(e, t.RunCancelRequested)), None)
        if isinstance(end, t.RunCancelled) and asked is None:
            return Reason(type="cancel", by=end.by, at=end.at, status=end.kind, text=end.reason)
        if asked is None:
            return Reason(type="cancel", at=end.at)
        return Reason(type="cancel", by=asked.by, at=asked.at, status=asked.kind, text=asked.reason)
