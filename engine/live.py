"""A run in memory: its handler and its place in the log.

The only place where a run's stream is appended to. An activation is one unit: the cause, the commands
it produced and the intents (`step.started`) of the steps that may begin. The handler runs ahead of the
log; bodies, timers, results and everybody outside wait until the log is theirs to act on.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

from ..events import types as t
from ..events.blobs import put_all_away
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.errors import AppendRefused, HandlerError, HandlerStuck, RefoldError, RunEnded
from ..events.log import Log
from ..events.store import Append, Unit
from ..events.stream import Tail, chain
from ..events.types import Event, Spent
from ..events.work import Work, WorkFold
from . import family, pause
from .alarms import Alarms
from .bodies import Bodies
from .commands import CancelCommand, Command, EndCommand, StepCommand, TimerCommand
from .deadlines import Deadlines
from .family import NOTHING_ALONG, Along, Newborn
from .flight import Flight
from .run import Run

Told = Callable[[RefoldError | None], None]


class Host(Protocol):
    """What a live run needs of the worker that holds it."""

    log: Log
    store: Any
    clock: Clock
    owner: str
    bodies: Bodies
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

    def drain_inbox(self, live: "LiveRun") -> bool:
        """Deliver what others have sent, a page of it; whether there is more."""
        ...

    def reload(self, live: "LiveRun") -> None:
        """The run was rewound: build its handler anew."""

    def settled(self, live: "LiveRun") -> None:
        """Nothing of the run is in flight: it may be evicted."""

    def begin(self, newborn: Newborn) -> None:
        """A run that another one has started is durable."""

    def mail_for(self, run_id: str) -> None:
        """A message for this run is durable."""


class Kept(NamedTuple):
    """A cause or fact in hand whose append was refused; it is fed again after the rebuild."""

    event: Event
    told: Told | None


class _Entry(NamedTuple):
    """What an append in flight will set going."""

    events: list[Event]
    commands: Sequence[Command]
    starts: Sequence[tuple[StepCommand, int]]
    told: Told | None
    newborn: Sequence[Newborn]
    posted: Sequence[str]


NOTHING: Any = object()
KEPT_FACTS = (t.StepAttemptFailed, t.CostRecorded, t.DebugRecorded, t.StepLate, t.ArtifactRecorded)
"""Facts that are appended again after a refused append: they say what has happened."""


AFTER_END = (t.CostRecorded, t.DebugRecorded, t.StepLate, t.ArtifactRecorded)
"""Facts that may follow a run's end: a body that unwinds after it has still spent what it spent."""


def unexpected(run_id: str, error: Exception) -> str:
    """An exception that came out of the handler's loop itself."""
    told = f"run {run_id}: {type(error).__name__} while its handler ran: {error}"
    return f"{told}; mend that and start again, the log has all before it"


class LiveRun:
    """Drives one `Run`. Used from the host loop's thread only."""

    def __init__(self, host: Host, run: Run, tail: Tail, fold: WorkFold, last_at: datetime) -> None:
        self.host, self.run, self.run_id = host, run, run.run_id
        self.tail, self.fold = tail, fold
        self.flight = Flight(self)
        self.signal_ids = {signal.signal_id for signal in run.started.carried if signal.signal_id}
        self.lost = False
        """An append was refused, or the run has left: nothing more is appended from here."""
        self.undurable = 0
        """Units in the queue of the log."""
        self.kept: list[Kept] = []
        """What is in hand and could not be appended."""
        self.held: dict[str, t.CauseHeld] = {}
        """Causes that wait in the log until the run is resumed, by id."""
        self.spent = Spent()
        """By the run and its children."""
        self.told_spent = Spent()
        """What of it the parent knows, from an end that was repaired."""
        self.stale_mail = 0
        """Acts in the inbox up to this version were meant for what the run was before an end."""
        self.refusal: AppendRefused | None = None
        """The first append that was refused."""
        self.alarms = Alarms(host.clock)
        self.deadlines = Deadlines(self)
        self._work: Work | None = None
        self._last_at = last_at
        self._trace = run.started.trace

    def head(self, cause: str = "", by: str = "engine", at: float | None = None) -> dict[str, Any]:
        """The fields every event has; log time never goes back, whatever the clock does."""
        now = to_datetime(self.host.clock.now() if at is None else at)
        if now < self._last_at:
            now = self._last_at
        self._last_at = now
        return {"id": new_event_id(), "at": now, "by": by, "cause": cause, "trace": self._trace}

    # ---- activations

    def deliver(self, cause: Event, value: Any = NOTHING, told: Told | None = None) -> None:
        """Deliver a cause; `told` hears when it is durable. It waits while the run is lost or paused."""
        if self.lost:
            self.kept.append(Kept(cause, told))
        elif self.run.closed:
            if told is not None:
                told(RunEnded(self.run_id, "at its end"))
        elif self.fold.paused:
            pause.hold(self, cause, told)
        else:
            self.advance(cause, value, told)

    def advance(
        self, cause: Event, value: Any = NOTHING, told: Told | None = None,
        along: Along = NOTHING_ALONG, claim: int = 0, retry: bool = True,
    ) -> None:  # fmt: skip
        """Activate the handler with the cause and append everything as one unit.

        `claim`: generation at which to claim the run in the same unit; 0: it is ours already.
        """
        if type(cause) is t.SignalReceived and cause.signal_id:
            self.signal_ids.add(cause.signal_id)
        elif type(cause) is t.ChildEnded:
            self.spent += cause.spent
        if self._activate(cause, value, [cause], claim, told, along, retry):
            self.append_commands([cause], told, along, claim, retry)

    def begin(self, generation: int) -> None:
        """The run's start is stored already, with the append of another run: claim it and begin it."""
        if self._activate(self.run.started, NOTHING, [], generation, None, NOTHING_ALONG, True):
            self.append_commands(self._claim(generation))

    def _activate(
        self, cause: Event, value: Any, new: list[Event], claim: int, told: Told | None, along: Along,
        retry: bool,
    ) -> bool:  # fmt: skip
        """Run the handler to idle; False: it got stuck, what is new is appended and the run halted."""
        self.host.entering(self)
        try:
            if value is NOTHING:
                self.run.activate(cause)
            else:
                self.run.activate(cause, value)
        except Exception as error:  # stuck, or something we did not think of: the cause must not be lost
            stuck = error if isinstance(error, HandlerError) else HandlerStuck(unexpected(self.run_id, error))
            note = t.RunAttention(kind="stuck", reason=str(stuck)[:8_192], **self.head(cause.id))
            self.append([*new, *self._claim(claim), note], told=told, along=along, retry=retry)
            self.host.halted(self, stuck)
            return False
        except BaseException:  # a person's Ctrl-C: the log has what it has, and replay goes on from there
            gone = HandlerError(f"run {self.run_id}: its handler was interrupted; it goes on after a restart")
            if told is not None:
                told(gone)
            self.host.halted(self, gone)
            raise
        finally:
            self.host.entering(None)
        return True

    def append_commands(
        self, events: list[Event], told: Told | None = None,
        along: Along = NOTHING_ALONG, claim: int = 0, retry: bool = True,
    ) -> None:  # fmt: skip
        """Append `events` with what the handler has asked for since, and the intents of its new steps."""
        commands = self.run.take()
        if not events and not commands:
            return
        flight, closing = self.flight, self.host.closing
        cause = events[-1] if events else None
        events += self._claim(claim)  # before the commands: nothing may follow a run's end
        head = self.head(cause.id if cause is not None else "", "handler")
        starts: list[tuple[StepCommand, int]] = []
        intents: list[Event] = []
        newborn: list[Newborn] = []
        urgent = not flight.was_pure(cause)
        for command in commands:
            head["id"] = new_event_id()
            event = command.event(head)
            events.append(event)
            if type(command) is StepCommand:
                flight.scheduled(command)
                if not closing:
                    starts.append((command, 1))
                    intents.append(flight.intent(command.number, 1, event))
                urgent = urgent or not command.step.options.pure
            else:
                urgent = True
                concerns: family.Concerns = family.follows(self, command, event)
                if type(event) is t.RunContinued:
                    events[-1], concerns = family.goes_on(self, event, events)
                if concerns is not None:
                    newborn += concerns[0]
                    along += concerns[1]
        flight.forget(cause)
        self.append([*events, *intents], commands, starts, told, urgent, along, retry, newborn)

    def _claim(self, generation: int) -> list[Event]:
        if not generation:
            return []
        return [t.RunClaimed(owner=self.host.owner, generation=generation, **self.head())]

    def note(self, fact: Event, urgent: bool = True) -> None:
        """Append one fact; kept for after the rebuild when the run is lost."""
        if self.lost:
            self.kept.append(Kept(fact, None))
        elif not self.run.closed or isinstance(fact, AFTER_END):
            if type(fact) is t.CostRecorded:
                self.spent += family.spent_of(fact)
            self.append([fact], urgent=urgent)

    def append(
        self, events: list[Event], commands: Sequence[Command] = (),
        starts: Sequence[tuple[StepCommand, int]] = (), told: Told | None = None,
        urgent: bool = True, along: Along = NOTHING_ALONG, retry: bool = True,
        newborn: Sequence[Newborn] = (),
    ) -> None:  # fmt: skip
        """Queue one unit at the place where the run's stream will be when all before it is stored."""
        before, fold, waited = self.tail, self.fold, self.fold.waits
        for event in events:
            fold.apply(event)
        stored, blobs = put_all_away(events)
        rows, self.tail = chain(self.run_id, before, stored)
        works, row = along.works, fold.row(self._work)
        if row is not self._work:
            self._work = row
            works = (row, *works)
        own = Append(self.run_id, before.version, rows, before.hash)
        begins = self.run_id if waited and not fold.waits else ""
        unit = Unit((own, *along.appends), works, along.posts, blobs + along.blobs, begins)
        entry = _Entry(events, commands, starts, told, newborn, [post.run_id for post in along.posts])
        self.undurable += 1
        urgent = urgent or told is not None
        self.host.log.append(unit, partial(self._settled, entry), urgent=urgent, retry=retry)
        for command, attempt in starts:
            if command.step.options.pure:
                self.flight.begin(command, attempt)

    # ---- once it is durable

    def _settled(self, entry: _Entry, error: RefoldError | None) -> None:
        self.undurable -= 1
        if error is not None:
            self._not_stored(entry, error)
            return
        events, commands, starts, told, newborn, posted = entry
        if told is not None:
            told(None)
        for born in newborn:
            self.host.begin(born)
        for run_id in posted:
            self.host.mail_for(run_id)
        if self.lost:
            return
        for command, attempt in starts:
            if not command.step.options.pure:
                self.flight.begin(command, attempt)
        for asked in commands:
            if type(asked) is not StepCommand:
                self._act(asked)
        first, last = events[0], events[-1]
        if type(first) is t.StepSkipped:
            self.flight.cancel(first.step)
        if type(last) is t.StepAttemptFailed:
            self.flight.arm_retry(last.step)
        if type(last) is t.RunTerminated or (commands and type(commands[-1]) is EndCommand):
            self._end(next(e for e in events if isinstance(e, t.ENDS)))
        elif not starts and self.idle:
            self.host.settled(self)

    def _act(self, command: Command) -> None:
        if isinstance(command, TimerCommand):
            self.deadlines.arm_timer(command.number)
        elif isinstance(command, CancelCommand):
            self.alarms.disarm(command.target.number)
            if isinstance(command.target, StepCommand):
                self.flight.cancel(command.target.number)

    def _not_stored(self, entry: _Entry, error: RefoldError) -> None:
        """Refused or impossible: from here on nothing is appended; keep what has happened in hand."""
        self.lost = True
        if not isinstance(error, AppendRefused):
            if entry.told is not None:
                entry.told(error)
            if self.undurable == 0:
                self.host.halted(self, error)
            return
        self.refusal = self.refusal or error
        cause = next((e for e in entry.events if isinstance(e, t.CAUSES)), None)
        happened: list[Event] = [e for e in entry.events if isinstance(e, KEPT_FACTS)]
        if cause is not None:
            happened = [cause]
        for held in entry.events:
            if isinstance(held, t.CauseHeld) and not isinstance(entry.events[0], t.RunRewound):
                happened.append(pause.cause_in(held))
        self.kept.extend(Kept(event, entry.told) for event in happened)
        if not happened and entry.told is not None:  # an operator's act: it is asked for again
            entry.told(error)
        if self.undurable == 0:
            self.host.refused(self)

    def _end(self, end: Event) -> None:
        self.flight.cancel_all()
        self.alarms.clear()
        self.host.ended(self, end)
        if isinstance(end, t.RunTerminated):
            self.run.evict()  # frames are still suspended

    # ---- going on after a load, and leaving

    def go_on(self, notes: list[Event], adopted: set[int]) -> None:
        """Append `notes` and what the handler has newly asked for; restart what was cut off; arm timers."""
        again, unknown, cut = self.flight.cut_off(adopted | pause.held_steps(self.held.values()))
        waiting = [*self.run.timers, *self.run.steps]
        self.append_commands([*notes, *cut])
        if self.fold.paused:
            return
        pause.release(self)
        steps = self.run.steps
        unknown = [step for step in unknown if step in steps]
        repeat = [step for step in unknown if self.flight.may_repeat(step)]
        self.flight.start_again(sorted([*(step for step in again if step in steps), *repeat]))
        self.deadlines.arm(waiting)
        for step in unknown:
            if step not in repeat and step in self.run.steps:
                self.flight.recover(step)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight: the handler waits for a timer or a message."""
        return not (self.undurable or self.flight.bodies or self.lost or self.run.closed)

    @property
    def untold(self) -> Spent:
        """What the parent does not know of what was spent, the runs that this one continues included."""
        return self.run.started.spent_before + self.spent - self.told_spent

    @property
    def size(self) -> int:
        """Estimate of what the run holds in memory, in bytes."""
        waiting = len(self.run.steps) + len(self.run.timers)
        return 6_000 + 4_000 * len(self.run.loop.tasks) + 600 * waiting + self.run.held

    def give_up(self) -> None:
        """Another worker has the run; nothing of ours is on its way to the log."""
        self.lost = True
        self.refusal = AppendRefused(self.run_id, self.tail.version, self.tail.version)
        self.host.refused(self)

    def leave(self) -> None:
        """Stop bodies and timers and unwind the handler; the log has everything."""
        self.lost = True
        self.alarms.clear()
        self.flight.stop_all()
        self.run.evict()
