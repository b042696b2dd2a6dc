"""One run's handler, driven by its log: pure, no store, no host, no clock.

`activate` delivers one cause and runs the handler to idle. What it asked for meanwhile is either
matched against the log (`match`, on replay) or taken as new (`take`).
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Raw

from ..events import types as t
from ..events.errors import ForbiddenInHandler
from ..events.types import Event
from . import children, compensation, data, ending, fan_out, gates, signals, steps, tagged
from .activation import Activation, Floors
from .commands import CancelCommand, Command, StepCommand, TimerCommand, WaitCommand, event_number
from .context import Context
from .divergence import report
from .loop import Future, Loop, Timer
from .parallel import Results
from .step import Step
from .workflow import Workflow

_MISSING: Any = object()


class Run:
    """Live state of one handler. Not thread-safe; belongs to one `Loop`."""

    def __init__(self, workflow: Workflow[Any, Any], run_id: str, started: t.RunStarted) -> None:
        self.workflow, self.run_id, self.started = workflow, run_id, started
        self.loop = Loop(self, started.seed)
        self.ctx = Context(self)
        self.replaying = False
        self._began: float | None = None
        self.closed = False
        """The run has ended."""
        self.undos: list[compensation.Undo] | None = None
        """What can be undone, in the order in which it was done."""
        self.aftermath: ending.Aftermath | None = None
        """The handler has ended, and something follows it, or may."""
        self.activation = -1
        self.steps: dict[int, StepCommand] = {}
        """Steps the handler waits for, by number."""
        self.timers: dict[int, TimerCommand] = {}
        self.waits: dict[int, WaitCommand] = {}
        self.gates: dict[int, gates.GateCommand] = {}
        self.children: dict[int, children.ChildCommand] = {}
        self.issued: list[Command] = []  # an empty deque takes 760 bytes, and a run had five
        self.number = 0
        """Of the last command."""
        self.child_count = 0
        """Children asked for."""
        self.cancel_request: t.RunCancelRequested | None = None
        self.compensate_request: t.CompensateRequested | None = None
        self.signals: dict[str, deque[t.SignalReceived | t.Carried]] = {}
        """Those that came before their wait."""
        self.memory: data.Memory | None = None
        """Shared context, attributes, patches …; made when first needed."""
        self.held = 0
        """Bytes of values that it keeps: items of open maps, shared context, outputs."""
        self._waiting: dict[str, list[WaitCommand]] = {}
        self._main: Any = None
        self._ordinals: dict[str, int] = {}
        self._iterations: dict[tuple[str, str, str], int] = {}
        self._recent: list[Command] = []
        self._ahead: Sequence[Event] | None = None
        self._found: set[int] = set()
        self._passed: dict[type[Event], int] = {}

    # ---- what the handler asks for

    def issue(self, command: Command) -> None:
        """The handler asks for something."""
        self.check_open()
        self.issued.append(command)

    def recorded(self, kind: type[Event], **same: Any) -> Event | None:
        """On replay the next event of this kind and with these values that this very activation recorded."""
        ahead, settled = self._ahead or (), True
        for place in range(self._passed.get(kind, 0), len(ahead)):
            event = ahead[place]
            theirs = type(event) is not kind or place in self._found
            if not theirs and all(getattr(event, name) == value for name, value in same.items()):
                self._found.add(place)
                return event
            settled = settled and theirs
            if settled:  # not looked at again: 4,000 conditions in one activation took 2.7 s
                self._passed[kind] = place + 1
        return None

    @property
    def matching(self) -> bool:
        """Whether what the handler asks for now is in the log already."""
        return self._ahead is not None

    def call_step(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], site: str
    ) -> Future:
        """Issue a call of a step; the future gets its result."""
        return steps.call(self, step, args, kwargs, site)

    call_tagged = tagged.call

    def start_child(self, workflow: Any, args: tuple[Any, ...], **options: Any) -> children.ChildCommand:
        """Issue a child."""
        return children.start(self, workflow, args, **options)

    def fan_out(self, target: Any, items: Iterable[Any], **options: Any) -> Coroutine[Any, Any, Results[Any]]:
        """Put each item through a step or a workflow."""
        return fan_out.fan_out(self, target, items, **options)

    async def wait_signal(self, name: str) -> Raw:
        """The next event of that name: a kept one, or the next to come."""
        self.check_open()
        kept = self.signals.get(name)
        if kept:
            return kept.popleft().payload
        future = self.loop.create_future()
        command = WaitCommand(name, future)
        future.command = command
        self.issued.append(command)
        self._waiting.setdefault(name, []).append(command)
        try:
            received: t.SignalReceived = await future
            return received.payload
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it came in the very activation that cancels us
                self.signals.setdefault(name, deque()).appendleft(future.result())
            raise

    def take_waiting(self, name: str) -> WaitCommand | None:
        """The oldest open wait for an event of that name."""
        waiting = self._waiting.get(name)
        while waiting:
            command = waiting.pop(0)
            if not command.future.done():
                self.waits.pop(command.number, None)
                return command
        return None

    def forget_wait(self, command: WaitCommand) -> None:
        """The handler gave the wait up."""
        self._waiting[command.name].remove(command)

    def check_open(self) -> None:
        """Raises when nothing may be asked for now."""
        if self.loop.evicting:
            self.loop.refuse_if_evicting()  # returns only to a handler that swallows it: it must suspend
        elif self.closed or not self.loop.active:
            raise ForbiddenInHandler(
                f"run {self.run_id}: `ctx` or a step was used outside its handler; "
                "send the run an event instead (`engine.signal`)"
            )

    # ---- the loop's owner

    def timer_set(self, timer: Timer) -> TimerCommand:
        command = TimerCommand(timer)
        self.issued.append(command)
        return command

    def timer_cancelled(self, command: Any) -> None:
        self._take_back(command)

    def future_cancelled(self, command: Any) -> None:
        self._take_back(command)

    def _take_back(self, command: Command) -> None:
        if self.loop.evicting or self.closed or not self.loop.active:
            return
        if not command.number:
            command.dropped = True
        else:
            registered = command.open_among(self)
            if registered is not None and registered.pop(command.number, None) is not None:
                self.issued.append(CancelCommand(command))
        command.given_up(self)

    # ---- delivering a cause

    def activate(self, cause: Event, value: Any = _MISSING) -> None:
        """Deliver one cause and run the handler to idle.

        `value` is the decoded result of a step that completed just now; on replay it is decoded here.
        Raises `HandlerStuck`, and `NonDeterminismError` for a result that no longer fits.
        """
        with self.loop.entered():
            self._activate(cause, value)

    def _activate(self, cause: Event, value: Any = _MISSING) -> None:
        self.activation += 1
        self.loop.now = cause.at.timestamp()
        if value is _MISSING:
            _DELIVER[type(cause)](self, cause)
        else:
            steps.completed(self, cause, value)  # type: ignore[arg-type]
        self.loop.drain()
        while self._main.done() and not self.closed:
            self._finish()

    def begin(self, cause: t.RunStarted) -> None:
        """Start the program."""
        if self._began is not None:  # what it sleeps counts from when it began
            self.loop.now = self._began
        for signal in cause.carried:
            self.signals.setdefault(signal.name, deque()).append(signal)
        self._run_main(ending.program(self, cause.args))

    def _run_main(self, program: Coroutine[Any, Any, Any]) -> None:
        context = contextvars.Context()  # empty: nothing leaks in from whoever activates us
        self._main = self.loop.create_task(program, context=context)

    def cancel(self, cause: t.RunCancelRequested | t.CompensateRequested) -> None:
        """Cancel the program, for the handler to see where it waits; what follows it is not cancelled."""
        if isinstance(cause, t.CompensateRequested):
            self.compensate_request = cause
        elif self.aftermath is None:
            self.cancel_request = cause
        if self.aftermath is None:
            self._main.cancel(cause.reason or None)

    def reopen(self, cause: t.RunReopened) -> None:
        """The run had ended: undo what is not undone yet."""
        self.closed = False
        if self.aftermath is not None:
            self._run_main(ending.aftermath(self, undo=True))

    # ---- the end

    def _finish(self) -> None:
        following = ending.follow(self, self._main)
        if isinstance(following, ending.End):
            self.issued.append(following.command(ending.close_up(self)))
            self.closed = True
            self._close_tasks()
            return
        ending.close_up(self, goes_on=True)
        self._close_tasks()
        self._run_main(following)
        self.loop.drain()

    def _close_tasks(self) -> None:
        issued = len(self.issued)
        self.loop.close_tasks(list(self.loop.tasks))
        while len(self.issued) > issued:
            self.issued.pop()  # from tasks that would not end

    # ---- matching and taking

    def match(self, recorded: Sequence[Event]) -> None:
        """Match the log's commands of this activation, in order. Raises `NonDeterminismError`."""
        issued, place = self.issued, 0
        for event in recorded:
            while place < len(issued) and issued[place].dropped:
                place += 1
            if place == len(issued) or not issued[place].matches(event):
                if type(event) is t.PatchApplied and event.deprecated:
                    continue  # its call may be taken out of the code: that is what deprecating it is for
                raise report(self, event, issued[place:], self._recent)
            command = issued[place]
            place += 1
            self._bind(command, event_number(event) if command.numbered else 0, event)
        del issued[:place]

    def expect_nothing(self) -> None:
        """After `match`: the handler must not have asked for more. Raises `NonDeterminismError`."""
        if self.issued and any(not command.dropped for command in self.issued):
            raise report(self, None, self.issued, self._recent)

    def take(self) -> list[Command]:
        """What the handler asked for that the log does not have yet, numbered: append it, then act on it."""
        new: list[Command] = []
        for command in self.issued:
            if not command.dropped:
                number = (command.kept_number or self.number + 1) if command.numbered else 0
                self._bind(command, number, None)
                new.append(command)
        self.issued.clear()
        return new

    def _bind(self, command: Command, number: int, event: Event | None) -> None:
        if number:
            command.number = number
            if number + command.reserves > self.number:
                self.number = number + command.reserves
        command.bound(self, event)
        if self.replaying:
            self._recent.append(command)
            del self._recent[:-3]

    def name_step(self, command: StepCommand) -> None:
        """Give a step its readable key and its iteration."""
        name = command.step.name
        ordinal = self._ordinals[name] = self._ordinals.get(name, 0) + 1
        command.key = f"{name}#{ordinal}"
        place = (command.task_path, name, command.site)
        if not self.replaying:
            command.iteration = self._iterations.get(place, 0)
        self._iterations[place] = command.iteration + 1

    def ordinal(self, name: str) -> int:
        """How many things of that name there are now, this one included."""
        self._ordinals[name] = count = self._ordinals.get(name, 0) + 1
        return count

    def raise_floors(self, floors: Floors) -> None:
        """Leave out the numbers, children and ordinals that a rewound part of the history has used."""
        self.number = max(self.number, floors.number)
        self.child_count = max(self.child_count, floors.children)
        for name, ordinal in floors.ordinals.items():
            self._ordinals[name] = max(self._ordinals.get(name, 0), ordinal)

    def replay(self, history: Sequence[Activation]) -> None:
        """Deliver recorded activations and check that the handler asks for what it asked for then.

        New commands may follow only the last activation, and only when it was stored without any: the
        start of a run stored by somebody else, or one whose handler got stuck.
        """
        for _ in self.replay_slices(history):
            pass

    def replay_slices(self, history: Sequence[Activation], size: int = 500) -> Iterator[None]:
        """`replay` in slices of so many activations, for a host that must not be held up."""
        self.replaying = True
        last = len(history) - 1
        try:
            for first in range(0, last + 1, size):
                with self.loop.entered():  # once a slice, not once an activation: 4 of 30 µs
                    for place in range(first, min(first + size, last + 1)):
                        self._replay_one(*history[place], first=place == 0, last=place == last)
                yield
        finally:
            self.replaying = False
            self._ahead = None
            self._recent.clear()

    def _replay_one(
        self, cause: Event, commands: list[Event], is_open: bool, floors: Floors | None,
        began: float | None, *, first: bool, last: bool,
    ) -> None:  # fmt: skip
        if floors is not None:
            self.raise_floors(floors)
        self._began = began
        new = not commands and last and (is_open or first)
        self._ahead = None if new else commands
        if self._found or self._passed:
            self._found, self._passed = set(), {}
        self._activate(cause)
        self.match(commands)
        if not new:
            self.expect_nothing()

    # ---- leaving memory

    def evict(self) -> None:
        """Unwind all suspended frames now, every command refused. The run can be replayed any time."""
        self.loop.evict()
        for registered in (self.steps, self.timers, self.waits, self.gates, self.children):
            registered.clear()
        self._waiting.clear()
        self.issued.clear()
        self._main = None


_DELIVER: dict[type[Event], Callable[[Run, Any], None]] = {
    t.RunStarted: Run.begin,
    t.StepCompleted: steps.completed,
    t.StepFailed: steps.failed,
    t.StepSkipped: steps.completed,
    t.TimerFired: signals.timer_fired,
    t.SignalReceived: signals.received,
    t.GateVoted: gates.voted,
    t.ChildEnded: children.ended,
    t.AttributesChanged: data.attributes_changed,
    t.RunCancelRequested: Run.cancel,
    t.CompensateRequested: Run.cancel,
    t.RunReopened: Run.reopen,
}
"""What each cause does to the run, before its handler runs to idle."""
