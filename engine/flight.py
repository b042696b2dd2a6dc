"""The steps of a live run that are under way: their attempts, and what becomes of each."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from threading import get_ident
from typing import Any, Protocol

from ..events import types as t
from ..events.blobs import Contents
from ..events.clock import new_event_id, new_jitter
from ..events.store import Unit
from ..events.types import Event
from ..events.work import WorkFold
from . import doubt
from .alarms import Alarms
from .attempts import LOST, Attempts
from .bodies import Body, Outcome, timed_out
from .commands import StepCommand
from .doubt import Probe
from .run import Run

ENDS_ATTEMPT = (t.StepCompleted, t.StepFailed, t.StepAttemptFailed)


_STEP_ENDS = frozenset({t.StepCompleted, t.StepFailed, t.StepSkipped})


class Live(Protocol):
    """What a flight needs of its live run."""

    run: Run
    run_id: str
    lost: bool
    alarms: Alarms
    kept: list[Any]
    fold: WorkFold

    @property
    def host(self) -> Any: ...
    @property
    def idle(self) -> bool: ...

    def head(self, cause: str = "", by: str = "engine", at: float | None = None) -> dict[str, Any]: ...
    def deliver(self, cause: Event, value: Any = ..., told: Any = None) -> None: ...
    def note(self, fact: Event, urgent: bool = True) -> None: ...
    def append(
        self, events: list[Event], *, starts: Sequence[tuple[StepCommand, int]] = (), told: Any = None
    ) -> None: ...


class Flight:
    """Bodies and attempts of one run. Used from the host loop's thread only, except `record`."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._run = live.run
        self.attempts = Attempts()
        self.bodies: dict[int, Body] = {}

    # ---- the log's side of an attempt

    def scheduled(self, command: StepCommand) -> None:
        """The handler has called a step."""
        self.attempts.scheduled(command.number, command.step.options.pure)

    def intent(self, step: int, attempt: int, scheduled: Event) -> Event:
        """The event that says that an attempt may now have effects."""
        event = t.StepStarted(
            step=step,
            attempt=attempt,
            id=new_event_id(),
            at=scheduled.at,
            cause=scheduled.id,
            trace=scheduled.trace,
        )
        self.attempts.started(step, attempt, event.id, event.at)
        return event

    def was_pure(self, cause: Event | None) -> bool:
        """Whether losing this event costs nothing but running a pure step again."""
        return type(cause) is t.StepCompleted and self.attempts[cause.step].pure

    def forget(self, cause: Event | None) -> None:
        """The step has ended."""
        if type(cause) in _STEP_ENDS:
            self.attempts.pop(cause.step, None)  # type: ignore[union-attr]

    def awaits(self, step: int, started_id: str) -> bool:
        """Whether the log has this very attempt as the step's last one, and the handler waits for it."""
        return step in self._run.steps and self.attempts[step].started_id == started_id != ""

    def start_again(self, steps: Sequence[int], *, by: str = "engine", told: Any = None) -> None:
        """Append the intent of one more attempt of each step, then begin them; if it is not too late."""
        events: list[Event] = []
        starts: list[tuple[StepCommand, int]] = []
        late: list[int] = []
        for step in steps:
            if (seconds := self._left(step)) is not None and seconds <= 0:
                late.append(step)
                continue
            attempt = self.attempts[step].attempt + 1
            event = t.StepStarted(step=step, attempt=attempt, **self._live.head(by=by))
            self.attempts.started(step, attempt, event.id, event.at)
            events.append(event)
            starts.append((self._run.steps[step], attempt))
        if events:
            self._live.append(events, starts=starts, told=told)
        for step in late:
            if step in self._run.steps:
                self._too_late(step, "none is begun after that", self._live.head(by=by), told)

    def _left(self, step: int) -> float | None:
        """Seconds that all attempts of a step may still take; None: no limit."""
        total: float | None = self._run.steps[step].step.options.total_timeout
        began = self.attempts[step].began_at
        if total is None or began is None:
            return total
        now: float = self._live.host.clock.now()
        return began.timestamp() + total - now

    def _too_late(self, step: int, why: str, head: dict[str, Any], told: Any = None) -> None:
        """The step fails: its `total_timeout` is over, or will be before the next attempt."""
        attempt, total = self.attempts[step].attempt, self._run.steps[step].step.options.total_timeout
        failure = timed_out(f"its attempts took longer than {total} s: {why}")
        self._live.deliver(t.StepFailed(step=step, error=failure, attempt=attempt, **head), told=told)

    def arm_retry(self, step: int) -> None:
        """Wait on the host for the next attempt of a step."""
        if step in self._run.steps and (due := self.attempts[step].retry_at) is not None:
            self._live.alarms.arm(step, due.timestamp(), self._retry_due)

    def _retry_due(self, step: int) -> None:
        live = self._live
        if not (live.lost or live.host.closing or live.fold.paused) and step in self._run.steps:
            self.start_again([step])

    # ---- bodies

    def begin(self, command: StepCommand, attempt: int) -> None:
        """Run the body of an attempt whose intent is durable (or whose step is pure)."""
        live, step = self._live, command.number
        if live.lost or self._run.closed or step not in self._run.steps:
            return
        if live.host.closing:
            live.append([t.StepReleased(step=step, attempt=attempt, **live.head())])
            return
        body = Body(self, live.run_id, command, attempt, self.attempts[step].started_id)
        if command.step.options.total_timeout is not None and (seconds := self._left(step)) is not None:
            body.limit = seconds if body.limit is None else min(seconds, body.limit)
        self.bodies[step] = body
        live.host.bodies.start(body)

    @property
    def files(self) -> str:
        """Folder under which the run has its own; empty: none."""
        return self._run.started.files

    @property
    def workflow(self) -> str:
        """Name of the run's workflow."""
        return self._run.workflow.name

    @property
    def trace(self) -> str:
        """The run's W3C trace id."""
        return self._run.started.trace

    def record(self, body: Body, kind: type[Event], fields: dict[str, Any], contents: Contents = ()) -> None:
        """Append a fact about an attempt, and before it the contents that it names; from any thread."""
        live = self._live
        if get_ident() != live.host.thread_id:
            # The owner as it will be then: a rebuild may come in between.
            body.loop.call_soon_threadsafe(lambda: body.owner.record(body, kind, fields, contents))
            return
        if contents:  # by themselves: whatever becomes of the fact, it finds them there
            live.host.log.append(Unit(blobs=contents), lambda error: None, urgent=False)
        about: dict[str, Any] = {"step": body.command.number, "attempt": body.attempt}
        live.note(kind(**about, **fields, **live.head(body.started_id)), urgent=kind is t.CostRecorded)

    def body_ended(self, body: Body, outcome: Outcome) -> None:
        """An attempt is over: deliver its result or error, plan the next attempt, or keep the evidence."""
        if isinstance(body, Probe):
            doubt.probed(self._live, body, outcome)
            return
        step = body.command.number
        current = self.bodies.get(step) is body
        if current:
            del self.bodies[step]
        head = self._live.head(body.started_id)
        if not current or (step not in self._run.steps and not self._live.lost):
            self._late(body, outcome, head)
        elif outcome.kind == "completed":
            cause = t.StepCompleted(step=step, result=outcome.result, attempt=body.attempt, **head)
            self._live.deliver(cause, outcome.value)
        elif outcome.failure is not None and outcome.kind == "failed":
            self._failed(body, outcome.failure, outcome.retryable, head)
        else:
            self._interrupted(body, head, outcome.failure)

    def _failed(self, body: Body, failure: t.Failure, retryable: bool, head: dict[str, Any]) -> None:
        step, attempt = body.command.number, body.attempt
        state, retry = self.attempts[step], body.command.step.options.retry
        if retryable and state.failures + 1 < retry.max_attempts:
            at: datetime = head["at"]
            due = at + timedelta(seconds=retry.pause(state.failures + 1, new_jitter(self._live.host.clock)))
            total, began = body.command.step.options.total_timeout, state.began_at
            if total is not None and began is not None and due > began + timedelta(seconds=total):
                self._too_late(step, f"the last one failed with {failure.type}: {failure.message}", head)
                return
            self.attempts.failed(step, due)
            self._live.note(
                t.StepAttemptFailed(step=step, attempt=attempt, error=failure, retry_at=due, **head)
            )
        else:
            self._live.deliver(t.StepFailed(step=step, error=failure, attempt=attempt, **head))

    def _interrupted(self, body: Body, head: dict[str, Any], lost: t.Failure | None) -> None:
        """Somebody cancelled its task, or the place where it ran is gone: as unknown as after a crash."""
        live, step = self._live, body.command.number
        reason = "shutdown" if live.host.closing else "cancelled from outside"
        if lost is not None:
            reason = f"{LOST}: {lost.message}"[:8_192]
            self.attempts[step].crashes += 1
        live.note(t.StepInterrupted(step=step, attempt=body.attempt, reason=reason, **head))
        self.attempts[step].phase = "interrupted"
        if not (live.lost or live.host.closing or live.fold.paused):
            self.recover(step)

    def may_repeat(self, step: int) -> bool:
        """Whether a step that was cut off may simply run again."""
        options = self._run.steps[step].step.options
        return options.repeats_unknown and self.attempts[step].crashes < doubt.MAX_CRASHES

    def recover(self, step: int) -> None:
        """Go on with a step whose last attempt has an unknown outcome."""
        doubt.recover(self._live, step)

    def _late(self, body: Body, outcome: Outcome, head: dict[str, Any]) -> None:
        """Nobody waits any more; a body that was merely cancelled leaves no evidence."""
        live, step = self._live, body.command.number
        if outcome.kind in ("completed", "failed"):
            result, error = outcome.result, outcome.failure
            live.note(
                t.StepLate(step=step, attempt=body.attempt, result=result, error=error, **head), urgent=False
            )
        elif live.idle:
            live.host.settled(live)

    # ---- after a load, and when leaving

    def adopt(self, bodies: dict[int, Body], kept: Sequence[Event]) -> set[int]:
        """Take over bodies still running; returns the steps that they, or kept results, stand for."""
        adopted: set[int] = set()
        for step, body in bodies.items():
            if self.awaits(step, body.started_id):
                body.owner, body.command = self, self._run.steps[step]
                self.bodies[step] = body
                adopted.add(step)
            else:
                body.stop()
        bodies.clear()
        for event in kept:
            if isinstance(event, ENDS_ATTEMPT) and self.awaits(event.step, event.cause):
                adopted.add(event.step)
        return adopted

    def not_begun(self) -> tuple[list[int], list[int]]:
        """Of the steps without a body: those to begin (again), and those with unknown outcome."""
        phases = {step: self.attempts[step].phase for step in sorted(self._run.steps.keys() - self.bodies)}
        again = [step for step, phase in phases.items() if phase in ("scheduled", "released")]
        return again, [step for step, phase in phases.items() if phase == "interrupted"]

    def cut_off(self, adopted: set[int]) -> tuple[list[int], list[int], list[Event]]:
        """Steps to begin (again), steps with unknown outcome, and the events that say so."""
        again: list[int] = []
        unknown: list[int] = []
        cut: list[Event] = []
        for step in sorted(self._run.steps.keys() - adopted):
            state = self.attempts[step]
            if state.phase == "started":
                head = self._live.head(state.started_id)
                cut.append(t.StepInterrupted(step=step, attempt=state.attempt, **head))
                state.crashes += 1
                state.phase = "interrupted"  # a paused run is resumed later: see `not_begun`
            if state.phase in ("started", "interrupted"):
                unknown.append(step)
            elif state.phase in ("scheduled", "released"):
                again.append(step)
        return again, unknown, cut

    def cancel(self, step: int) -> None:
        """Tell the body of a step to stop, if it has one."""
        if (body := self.bodies.get(step)) is not None:
            body.cancel()

    def cancel_all(self) -> None:
        """The run has ended: nobody waits for these any more."""
        for body in self.bodies.values():
            body.cancel()

    def stop_all(self) -> None:
        """The run leaves this process: bodies stop without a report."""
        for body in self.bodies.values():
            body.stop()
        self.bodies.clear()

    def interrupt_all(self) -> None:
        """Shutdown: stop the bodies and record that they were cut off."""
        for step, body in list(self.bodies.items()):
            body.stop()
            if isinstance(body, Probe):
                continue  # the attempt it asks about was cut off before
            head = self._live.head(body.started_id)
            if body.begun:
                self._live.note(t.StepInterrupted(step=step, attempt=body.attempt, reason="shutdown", **head))
            else:
                self._live.note(t.StepReleased(step=step, attempt=body.attempt, **head))
        self.bodies.clear()
