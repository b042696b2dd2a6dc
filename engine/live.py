"""A run in memory: its handler, its place in the log, its bodies in flight.

The only place where a run's stream is appended to. An activation is one unit: the cause, the commands
it produced and the intents (`step.started`) of the steps that may begin. The handler runs ahead of the
log; bodies, timers, results and everybody outside wait until the log is theirs to act on.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from threading import get_ident
from typing import Any, NamedTuple, Protocol

from ..events import types as t
from ..events.clock import Clock, new_event_id, new_jitter, to_datetime
from ..events.errors import AppendRefused, HandlerStuck, RefoldError, RunEnded
from ..events.log import Log
from ..events.store import Append, Unit
from ..events.stream import Tail, chain
from ..events.types import Event
from ..events.work import Work, WorkFold
from .attempts import Attempts
from .bodies import Body, Outcome
from .commands import CancelCommand, Command, EndCommand, StepCommand, TimerCommand
from .run import Run
from .threads import Threads

Told = Callable[[RefoldError | None], None]


class Host(Protocol):
    """What a live run needs of the worker that holds it."""

    log: Log
    clock: Clock
    owner: str
    threads: Threads
    closing: bool
    thread_id: int

    def entering(self, live: "LiveRun | None") -> None:
        """The handler is being activated (for the watchdog); None: no longer."""

    def halted(self, live: "LiveRun", error: RefoldError) -> None:
        """The handler broke a rule and cannot go on in this process."""

    def refused(self, live: "LiveRun") -> None:
        """An append was refused and nothing is in flight any more: rebuild, or let go."""

    def ended(self, live: "LiveRun", end: Event) -> None:
        """The run's end is durable."""

    def drain_inbox(self, live: "LiveRun") -> None:
        """Deliver what others have sent."""

    def settled(self, live: "LiveRun") -> None:
        """Nothing of the run is in flight: it may be evicted."""


class Kept(NamedTuple):
    """A cause or fact in hand whose append was refused; it is fed again after the rebuild."""

    event: Event
    value: Any
    told: Told | None


class _Entry(NamedTuple):
    """What an append in flight will set going."""

    events: list[Event]
    commands: Sequence[Command]
    starts: Sequence[tuple[StepCommand, int]]
    value: Any
    told: Told | None


_NOTHING: Any = object()


class LiveRun:
    """Drives one `Run`. Used from the host loop's thread only, except `record`."""

    def __init__(self, host: Host, run: Run, tail: Tail, fold: WorkFold, last_at: datetime) -> None:
        self.host, self.run, self.run_id = host, run, run.run_id
        self.tail, self.fold = tail, fold
        self.attempts = Attempts()
        self.bodies: dict[int, Body] = {}
        self.signal_ids: set[str] = set()
        self.lost = False
        """An append was refused: nothing more is appended from here."""
        self.undurable = 0
        self.kept: list[Kept] = []
        """What is in hand and could not be appended."""
        self.refusal: AppendRefused | None = None
        """The first append that was refused."""
        self._work: Work | None = None
        self._last_at = last_at
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._trace = run.started.trace

    # ---- making events

    def head(self, cause: str = "", by: str = "engine", at: float | None = None) -> dict[str, Any]:
        """The fields every event has; log time never goes back, whatever the clock does."""
        now = to_datetime(self.host.clock.now() if at is None else at)
        if now < self._last_at:
            now = self._last_at
        self._last_at = now
        return {"id": new_event_id(), "at": now, "by": by, "cause": cause, "trace": self._trace}

    # ---- activations

    def deliver(self, cause: Event, value: Any = _NOTHING, told: Told | None = None) -> None:
        """Deliver a cause; `told` hears when it is durable. Kept for later when the run is lost."""
        if self.lost:
            self.kept.append(Kept(cause, value, told))
        elif not self.run.closed:
            self.advance([cause], value, told)
        elif told is not None:
            told(RunEnded(self.run_id, "at its end"))

    def advance(
        self, events: list[Event], value: Any = _NOTHING, told: Told | None = None,
        extra: tuple[Append, ...] = (), claim: int = 0, retry: bool = True,
    ) -> None:  # fmt: skip
        """Activate the handler with the cause `events[-1]` and append everything as one unit.

        `claim`: generation at which to claim the run in the same unit; 0: it is ours already.
        """
        cause = events[-1]
        if isinstance(cause, t.SignalReceived) and cause.signal_id:
            self.signal_ids.add(cause.signal_id)
        self.host.entering(self)
        try:
            if value is _NOTHING:
                self.run.activate(cause)
            else:
                self.run.activate(cause, value)
        except HandlerStuck as error:
            note = t.RunAttention(kind="stuck", reason=str(error)[:8_192], **self.head(cause.id))
            self.append([*events, *self._claim(claim), note], told=told, extra=extra, retry=retry)
            self.host.halted(self, error)
            return
        finally:
            self.host.entering(None)
        self.append_commands(events, value, told, extra, claim, retry)

    def append_commands(
        self, events: list[Event], value: Any = _NOTHING, told: Told | None = None,
        extra: tuple[Append, ...] = (), claim: int = 0, retry: bool = True,
    ) -> None:  # fmt: skip
        """Append `events` with what the handler asked for since, and the intents of its new steps."""
        commands = self.run.take()
        if not events and not commands:
            return
        cause = events[-1].id if events else ""
        starts: list[tuple[StepCommand, int]] = []
        intents: list[Event] = []
        urgent = not (events and self._was_pure(events[-1]))
        for command in commands:
            event = command.event(self.head(cause, "handler"))
            events.append(event)
            if isinstance(command, StepCommand):
                self.attempts.scheduled(command.number, command.step.options.pure)
                if not self.host.closing:
                    starts.append((command, 1))
                    intents.append(self._intent(command.number, 1, event.id))
            if not (isinstance(command, StepCommand) and command.step.options.pure):
                urgent = True
        if events and isinstance(events[0], t.StepCompleted | t.StepFailed):
            self.attempts.pop(events[0].step, None)
        self.append(
            [*events, *intents, *self._claim(claim)], commands, starts, value, told, urgent, extra, retry
        )

    def _claim(self, generation: int) -> list[Event]:
        if not generation:
            return []
        return [t.RunClaimed(owner=self.host.owner, generation=generation, **self.head())]

    def _was_pure(self, cause: Event) -> bool:
        """Whether losing this event costs nothing but running a pure step again."""
        if not isinstance(cause, t.StepCompleted):
            return False
        return self.attempts[cause.step].pure

    def _intent(self, step: int, attempt: int, cause: str) -> Event:
        event = t.StepStarted(step=step, attempt=attempt, **self.head(cause))
        self.attempts.started(step, attempt, event.id)
        return event

    def append(
        self, events: list[Event], commands: Sequence[Command] = (),
        starts: Sequence[tuple[StepCommand, int]] = (), value: Any = _NOTHING, told: Told | None = None,
        urgent: bool = True, extra: tuple[Append, ...] = (), retry: bool = True,
    ) -> None:  # fmt: skip
        """Queue one unit at the place where the run's stream will be when all before it is stored."""
        before = self.tail
        rows, self.tail = chain(self.run_id, before, events)
        for event in events:
            self.fold.apply(event)
        row = self.fold.row()
        work, self._work = (None if row == self._work else row), row
        unit = Unit((Append(self.run_id, before.version, rows, before.hash), *extra), work)
        entry = _Entry(events, commands, starts, value, told)
        self.undurable += 1
        self.host.log.append(
            unit, partial(self._settled, entry), urgent=urgent or told is not None, retry=retry
        )
        for command, attempt in starts:
            if command.step.options.pure:
                self._begin(command, attempt)

    # ---- once it is durable

    def _settled(self, entry: _Entry, error: RefoldError | None) -> None:
        self.undurable -= 1
        if error is not None:
            self._not_stored(entry, error)
            return
        if entry.told is not None:
            entry.told(None)
        if self.lost:
            return
        for command, attempt in entry.starts:
            if not command.step.options.pure:
                self._begin(command, attempt)
        for command in entry.commands:
            self._act(command)
        for event in entry.events:
            if isinstance(event, t.StepAttemptFailed):
                self.arm_retry(event.step)
        if isinstance(entry.events[-1], t.ENDS) or (
            entry.commands and isinstance(entry.commands[-1], EndCommand)
        ):
            self._end(next(e for e in entry.events if isinstance(e, t.ENDS)))
        elif self.idle:
            self.host.settled(self)

    def _act(self, command: Command) -> None:
        if isinstance(command, TimerCommand):
            self.arm_timer(command.number)
        elif isinstance(command, CancelCommand):
            number = command.target.number
            if isinstance(command.target, TimerCommand):
                self._disarm(number)
            elif isinstance(command.target, StepCommand):
                self._disarm(number)
                if (body := self.bodies.get(number)) is not None:
                    body.cancel()

    def _not_stored(self, entry: _Entry, error: RefoldError) -> None:
        """Refused or impossible: from here on nothing is appended; keep the causes in hand."""
        self.lost = True
        if not isinstance(error, AppendRefused):
            if entry.told is not None:
                entry.told(error)
            if self.undurable == 0:
                self.host.halted(self, error)
            return
        self.refusal = self.refusal or error
        for event in entry.events:
            if isinstance(event, t.CAUSES):
                self.kept.append(Kept(event, entry.value, entry.told))
                break
        else:
            facts = [e for e in entry.events if isinstance(e, KEPT_FACTS)]
            self.kept.extend(Kept(e, _NOTHING, entry.told) for e in facts)
        if self.undurable == 0:
            self.host.refused(self)

    def _end(self, end: Event) -> None:
        for body in self.bodies.values():
            body.cancel()
        self.disarm_all()
        self.host.ended(self, end)

    # ---- timers

    def arm_timer(self, number: int) -> None:
        """Wait on the host for a durable timer."""
        command = self.run.timers.get(number)
        if command is not None:
            self._arm(number, command.due_at.timestamp(), self._timer_due)

    def arm_retry(self, step: int) -> None:
        """Wait on the host for the next attempt of a step."""
        if step in self.run.steps and (due := self.attempts[step].retry_at) is not None:
            self._arm(step, due.timestamp(), self._retry_due)

    def _arm(self, number: int, due: float, act: Callable[[int, float], None]) -> None:
        self._disarm(number)
        delay = max(0.0, due - self.host.clock.now())
        self._timers[number] = self._loop.call_later(delay, act, number, due)

    def _disarm(self, number: int) -> None:
        if (handle := self._timers.pop(number, None)) is not None:
            handle.cancel()

    def disarm_all(self) -> None:
        """Forget all timers on the host; they are in the log."""
        for number in list(self._timers):
            self._disarm(number)

    def rearm(self) -> None:
        """The clock has jumped: wait anew for what the log says."""
        for number in list(self._timers):
            self.arm_timer(number)
            self.arm_retry(number)

    def _timer_due(self, number: int, due: float) -> None:
        if self.lost or self.run.closed:
            return
        if self.host.clock.now() + 0.000_5 < due:  # the clock went back while we slept
            self.arm_timer(number)
            return
        self.host.drain_inbox(self)  # an acknowledged message never loses to a later deadline
        if number in self.run.timers and not self.lost and not self.run.closed:
            self._disarm(number)
            at = max(self.host.clock.now(), due)
            self.deliver(t.TimerFired(timer=number, **self.head(at=at)))

    def _retry_due(self, step: int, due: float) -> None:
        if self.lost or self.host.closing or step not in self.run.steps:
            return
        if self.host.clock.now() + 0.000_5 < due:
            self.arm_retry(step)
            return
        self._disarm(step)
        self.start_again([step])

    def start_again(self, steps: Sequence[int], facts: Sequence[Event] = ()) -> None:
        """Append the intent of one more attempt of each step (after `facts`), then begin them."""
        events: list[Event] = list(facts)
        starts: list[tuple[StepCommand, int]] = []
        for step in steps:
            attempt = self.attempts[step].attempt + 1
            events.append(self._intent(step, attempt, ""))
            starts.append((self.run.steps[step], attempt))
        if events:
            self.append(events, starts=starts)

    # ---- bodies

    def _begin(self, command: StepCommand, attempt: int) -> None:
        if self.lost or self.run.closed or command.number not in self.run.steps:
            return
        if self.host.closing:
            self.append([t.StepReleased(step=command.number, attempt=attempt, **self.head())])
            return
        started_id = self.attempts[command.number].started_id
        body = self.bodies[command.number] = Body(self, self.run_id, command, attempt, started_id)
        body.start(self.host.threads)

    def record(self, body: Body, kind: type[Event], fields: dict[str, Any]) -> None:
        """Append a fact about an attempt; from any thread."""
        if get_ident() != self.host.thread_id:
            self._loop.call_soon_threadsafe(body.owner.record, body, kind, fields)
            return
        head = self.head(body.started_id)
        self.note(kind(step=body.command.number, attempt=body.attempt, **fields, **head), urgent=False)

    def note(self, fact: Event, urgent: bool = True) -> None:
        """Append one fact; kept for after the rebuild when the run is lost."""
        if self.lost:
            self.kept.append(Kept(fact, _NOTHING, None))
        elif not self.run.closed:
            self.append([fact], urgent=urgent)

    def body_ended(self, body: Body, outcome: Outcome) -> None:
        """An attempt is over: deliver its result or error, plan the next attempt, or keep the evidence."""
        step = body.command.number
        current = self.bodies.get(step) is body
        if current:
            del self.bodies[step]
        head = self.head(body.started_id)
        if not current or step not in self.run.steps:
            self._late(body, outcome, head)
        elif outcome.kind == "completed":
            cause = t.StepCompleted(step=step, result=outcome.result, attempt=body.attempt, **head)
            self.deliver(cause, outcome.value)
        elif outcome.failure is not None:
            self._failed(body, outcome.failure, outcome.retryable, head)
        else:
            self._interrupted(body, head)

    def _failed(self, body: Body, failure: t.Failure, retryable: bool, head: dict[str, Any]) -> None:
        step = body.command.number
        state, retry = self.attempts[step], body.command.step.options.retry
        if retryable and state.failures + 1 < retry.max_attempts:
            pause = retry.pause(state.failures + 1, new_jitter())
            retry_at = head["at"] + timedelta(seconds=pause)
            self.attempts.failed(step, retry_at)
            attempt = body.attempt
            self.note(
                t.StepAttemptFailed(step=step, attempt=attempt, error=failure, retry_at=retry_at, **head)
            )
        else:
            self.deliver(t.StepFailed(step=step, error=failure, attempt=body.attempt, **head))

    def _interrupted(self, body: Body, head: dict[str, Any]) -> None:
        """Somebody outside cancelled the body's task: its outcome is as unknown as after a crash."""
        reason = "shutdown" if self.host.closing else "cancelled from outside"
        self.note(t.StepInterrupted(step=body.command.number, attempt=body.attempt, reason=reason, **head))
        if not self.lost and not self.host.closing:
            self.recover(body.command.number)

    # ---- going on after a load

    def adopt(self, lost: "LiveRun") -> set[int]:
        """Take over the bodies that are still running; returns the steps they, or kept results, stand for."""
        adopted: set[int] = set()
        for step, body in lost.bodies.items():
            if self.awaits(step, body.started_id):
                body.owner, body.command = self, self.run.steps[step]
                self.bodies[step] = body
                adopted.add(step)
            else:
                body.stop()
        lost.bodies.clear()
        for event, _, _ in lost.kept:
            step = getattr(event, "step", 0)
            if step and self.awaits(step, event.cause):
                adopted.add(step)
        return adopted

    def awaits(self, step: int, started_id: str) -> bool:
        """Whether the log has this very attempt as the step's last one, and the handler waits for it."""
        return step in self.run.steps and self.attempts[step].started_id == started_id != ""

    def go_on(self, notes: list[Event], adopted: set[int]) -> None:
        """Append `notes` and what the handler has newly asked for; restart what was cut off; arm timers."""
        unknown: list[int] = []
        again: list[int] = []
        for step in sorted(self.run.steps):
            state = self.attempts[step]
            if step in adopted:
                continue
            if state.phase == "started":
                notes.append(
                    t.StepInterrupted(step=step, attempt=state.attempt, **self.head(state.started_id))
                )
            if state.phase in ("started", "interrupted"):
                unknown.append(step)
            elif state.phase in ("scheduled", "released"):
                again.append(step)
        waiting = [*self.run.timers, *self.run.steps]
        self.append_commands(notes)
        repeat = [step for step in unknown if self.run.steps[step].step.options.repeats_unknown]
        self.start_again(sorted([*again, *repeat]))
        for number in waiting:
            self.arm_timer(number)
            self.arm_retry(number)
        for step in unknown:
            if step not in repeat and step in self.run.steps:
                self.recover(step)

    def note_again(self, fact: Event) -> None:
        """A fact from before a rebuild."""
        if isinstance(fact, t.StepAttemptFailed):
            if not self.awaits(fact.step, fact.cause):
                return
            self.attempts.failed(fact.step, fact.retry_at)
        self.note(fact)

    def recover(self, step: int) -> None:
        """Go on with a step whose last attempt has an unknown outcome, as its options say."""
        command = self.run.steps[step]
        if command.step.options.repeats_unknown:
            self.start_again([step])
            return
        attempt = self.attempts[step].attempt
        failure = t.Failure(
            type="StepInterrupted",
            message=f"attempt {attempt} was cut off and this step may not be repeated: its outcome is unknown",
            error_class="interrupted",
        )
        self.deliver(t.StepFailed(step=step, error=failure, attempt=attempt, **self.head()))

    def _late(self, body: Body, outcome: Outcome, head: dict[str, Any]) -> None:
        """Nobody waits any more; a body that was merely cancelled leaves no evidence."""
        if outcome.kind in ("completed", "failed") and not self.run.closed:
            result = outcome.result if outcome.kind == "completed" else None
            step, error = body.command.number, outcome.failure
            late = t.StepLate(step=step, attempt=body.attempt, result=result, error=error, **head)
            self.note(late, urgent=False)
        elif self.idle:
            self.host.settled(self)

    # ---- leaving

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight: the handler waits for a timer or a message."""
        return not (self.bodies or self.undurable or self.lost or self.run.closed)

    @property
    def size(self) -> int:
        """Estimate of what the run holds in memory, in bytes."""
        return 6_000 + 4_000 * len(self.run.loop.tasks) + 600 * (len(self.run.steps) + len(self.run.timers))

    def leave(self) -> None:
        """Stop bodies and timers and unwind the handler; the log has everything."""
        self.lost = True
        self.disarm_all()
        for body in self.bodies.values():
            body.stop()
        self.bodies.clear()
        self.run.evict()


KEPT_FACTS = (t.StepAttemptFailed, t.CostRecorded, t.DebugRecorded, t.StepLate)
"""Facts that are appended again after a refused append: they say what has happened."""
