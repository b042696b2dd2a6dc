"""One run's handler, driven by its log: pure, no store, no host, no clock.

`activate` delivers one cause and runs the handler to idle. What it asked for meanwhile is either
matched against the log (`match`, on replay) or taken as new (`take`).
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from ..events import codec, errors, types as t
from ..events.errors import ForbiddenInHandler, NonDeterminismError, ValueRefused
from ..events.types import Event
from .commands import (
    CancelCommand,
    Command,
    EndCommand,
    StepCommand,
    TimerCommand,
    WaitCommand,
    command_number,
)
from .context import Context
from .divergence import report
from .failures import failure_of, step_error
from .loop import Evicted, Future, Loop, Timer
from .step import Step, encode_call
from .workflow import Workflow

KNOWN = 64
"""How many steps `StepScheduled.after` lists at most."""

_MISSING: Any = object()


class Activation(NamedTuple):
    """One cause and the commands that were recorded with it."""

    cause: Event
    commands: list[Event]
    open: bool = False
    """Stored without its commands: the handler never became idle, they are still to come."""


def activations(events: Iterable[Event]) -> list[Activation]:
    """A run's events as activations; facts left out."""
    out: list[Activation] = []
    for event in events:
        if isinstance(event, t.CAUSES):
            out.append(Activation(event, []))
        elif isinstance(event, t.COMMANDS):
            out[-1].commands.append(event)
        elif isinstance(event, t.RunAttention) and event.kind == "stuck" and not out[-1].commands:
            out[-1] = out[-1]._replace(open=True)
    return out


class Run:
    """Live state of one handler. Not thread-safe; belongs to one `Loop`."""

    def __init__(self, workflow: Workflow[Any, Any], run_id: str, started: t.RunStarted) -> None:
        self.workflow, self.run_id, self.started = workflow, run_id, started
        self.loop = Loop(self, started.seed)
        self.ctx = Context(self)
        self.replaying = False
        self.ended: Event | None = None
        """The cause-less end command once the handler is through (unrecorded until taken)."""
        self.closed = False
        self.activation = -1
        self.steps: dict[int, StepCommand] = {}
        """Steps the handler waits for, by number."""
        self.timers: dict[int, TimerCommand] = {}
        self.waits: dict[int, WaitCommand] = {}
        self._issued: list[Command] = []  # an empty deque takes 760 bytes, and a run had five
        self._number = 0
        self._main: Any = None
        self._cancel: t.RunCancelRequested | None = None
        self._signals: dict[str, deque[Raw]] = {}
        self._waiting: dict[str, list[WaitCommand]] = {}
        self._ordinals: dict[str, int] = {}
        self._iterations: dict[tuple[str, str, str], int] = {}
        self._recent: list[Command] = []

    # ---- what the handler asks for

    def call_step(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], site: str
    ) -> Future:
        """Issue a call of a step; the future gets its result."""
        self._check_open()
        packed, named = encode_call(step.name, args, kwargs)
        future = self.loop.create_future()
        command = StepCommand(step, len(args), packed, named, future, asyncio.current_task(self.loop))  # type: ignore[arg-type]
        command.site = site
        future.command = command
        self._issued.append(command)
        return future

    async def wait_signal(self, name: str) -> Raw:
        """The next event of that name: a kept one, or the next to come."""
        self._check_open()
        kept = self._signals.get(name)
        if kept:
            return kept.popleft()
        future = self.loop.create_future()
        command = WaitCommand(name, future)
        future.command = command
        self._issued.append(command)
        self._waiting.setdefault(name, []).append(command)
        try:
            payload: Raw = await future
            return payload
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it came in the very activation that cancels us
                self._signals.setdefault(name, deque()).appendleft(future.result())
            raise

    def _check_open(self) -> None:
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
        self._issued.append(command)
        return command

    def timer_cancelled(self, command: Any) -> None:
        self._take_back(command, self.timers)

    def future_cancelled(self, command: Any) -> None:
        self._take_back(command, self.steps if isinstance(command, StepCommand) else self.waits)

    def _take_back(self, command: Command, registered: dict[int, Any]) -> None:
        if self.loop.evicting or self.closed or not self.loop.active:
            return
        if not command.number:
            command.dropped = True
        elif registered.pop(command.number, None) is not None:
            self._issued.append(CancelCommand(command))
        if isinstance(command, WaitCommand):
            self._waiting[command.name].remove(command)

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
        self._deliver(cause, value)
        self.loop.drain()
        if self._main.done() and not self.closed:
            self._finish()

    def _deliver(self, cause: Event, value: Any) -> None:
        if isinstance(cause, (t.StepCompleted, t.StepFailed)):
            self._deliver_step(cause, value)
        elif isinstance(cause, t.TimerFired):
            timer = self.timers.pop(cause.timer, None)
            if timer is not None:
                self.loop.make_ready(timer.handle)
        elif isinstance(cause, t.SignalReceived):
            self._deliver_signal(cause)
        elif isinstance(cause, t.RunCancelRequested):
            self._cancel = cause
            self._main.cancel(cause.reason or None)
        elif isinstance(cause, t.RunStarted):
            self._start(cause)

    def _deliver_step(self, cause: t.StepCompleted | t.StepFailed, value: Any) -> None:
        command = self.steps.pop(cause.step, None)
        if command is None or command.future.done():
            return
        command.future.command = None  # a cycle, which only the collector would find
        if command.task is not None:
            known, after = command.task.known, command.after
            known = () if known is after else tuple(n for n in known if n not in after)
            command.task.known = (*known, cause.step)[-KNOWN:]
        if isinstance(cause, t.StepFailed):
            command.future.set_exception(step_error(command.key, cause.error))
            return
        if value is _MISSING:
            value = self._decode(command, cause.result)
        command.future.set_result(value)

    def _decode(self, command: StepCommand, result: Raw) -> Any:
        try:
            return command.step.decode_result(result, f"result of {command.key}")
        except ValueRefused as error:
            raise NonDeterminismError(
                f"run {self.run_id} step {command.key}: {error}. The step's return type changed since the "
                "run began: put it back, or accept the old form too",
                key=command.key, expected="a result that fits the return type", found=str(error),
            ) from None  # fmt: skip

    def _deliver_signal(self, cause: t.SignalReceived) -> None:
        waiting = self._waiting.get(cause.name)
        while waiting:
            command = waiting.pop(0)
            if not command.future.done():
                self.waits.pop(command.number, None)
                command.future.set_result(cause.payload)
                return
        self._signals.setdefault(cause.name, deque()).append(cause.payload)

    def _start(self, cause: t.RunStarted) -> None:
        context = contextvars.Context()  # empty: nothing leaks in from whoever activates us
        self._main = self.loop.create_task(_main(self, cause.args), context=context)

    # ---- the end

    def _finish(self) -> None:
        for command in self._issued:  # asked for in the very activation that ends the run: never was
            if not command.number and not isinstance(command, CancelCommand):
                command.dropped = True
        for number in sorted(self.steps):
            self._issued.append(CancelCommand(self.steps[number]))
        self._issued.append(self._end())
        self.steps.clear()
        self.timers.clear()
        self.waits.clear()
        self.closed = True
        issued = len(self._issued)
        self.loop.close_tasks(list(self.loop.tasks))
        while len(self._issued) > issued:
            self._issued.pop()  # from tasks that would not end

    def _end(self) -> EndCommand:
        main = self._main
        if main.cancelled():
            cancel = self._cancel
            if cancel is not None:
                return EndCommand(
                    t.RunCancelled,
                    lambda head: t.RunCancelled(reason=cancel.reason, kind=cancel.kind, **head),
                )
            return _failed(asyncio.CancelledError("the handler cancelled itself"))
        error = main.exception()
        if error is not None:
            return _failed(error)
        try:
            result = codec.encode(main.result(), f"result of {self.workflow.name}")
            self.workflow.decode_result(result, f"result of {self.workflow.name}")
        except ValueRefused as refused:
            return _failed(refused)
        return EndCommand(t.RunCompleted, lambda head: t.RunCompleted(result=result, **head))

    # ---- matching and taking

    def match(self, recorded: Sequence[Event]) -> None:
        """Match the log's commands of this activation, in order. Raises `NonDeterminismError`."""
        issued, place = self._issued, 0
        for event in recorded:
            while place < len(issued) and issued[place].dropped:
                place += 1
            if place == len(issued) or not issued[place].matches(event):
                raise report(self, event, issued[place:], self._recent)
            command = issued[place]
            place += 1
            if isinstance(command, StepCommand) and isinstance(event, t.StepScheduled):
                command.site, command.iteration = event.site, event.iteration
            self._bind(command, command_number(event))
        del issued[:place]

    def expect_nothing(self) -> None:
        """After `match`: the handler must not have asked for more. Raises `NonDeterminismError`."""
        if self._issued and any(not command.dropped for command in self._issued):
            raise report(self, None, self._issued, self._recent)

    def take(self) -> list[Command]:
        """What the handler asked for that the log does not have yet, numbered: append it, then act on it."""
        new: list[Command] = []
        for command in self._issued:
            if not command.dropped:
                numbered = not isinstance(command, (CancelCommand, EndCommand))
                self._bind(command, self._number + 1 if numbered else 0)
                new.append(command)
        self._issued.clear()
        return new

    def _bind(self, command: Command, number: int) -> None:
        if number:
            command.number = self._number = number
        if isinstance(command, StepCommand):
            self._bind_step(command)
            if not command.future.cancelled():
                self.steps[number] = command
        elif isinstance(command, TimerCommand):
            self.timers[number] = command
        elif isinstance(command, WaitCommand):
            self.waits[number] = command
        if self.replaying:
            self._recent.append(command)
            del self._recent[:-3]

    def _bind_step(self, command: StepCommand) -> None:
        name = command.step.name
        ordinal = self._ordinals[name] = self._ordinals.get(name, 0) + 1
        command.key = f"{name}#{ordinal}"
        place = (command.task_path, name, command.site)
        if self.replaying:
            self._iterations[place] = command.iteration + 1
        else:
            command.iteration = self._iterations.get(place, 0)
            self._iterations[place] = command.iteration + 1

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
                        cause, commands, is_open = history[place]
                        self._activate(cause)
                        self.match(commands)
                        if commands or not (place == last and (is_open or place == 0)):
                            self.expect_nothing()
                yield
        finally:
            self.replaying = False
            self._recent.clear()

    # ---- leaving memory

    def evict(self) -> None:
        """Unwind all suspended frames now, every command refused. The run can be replayed any time."""
        self.loop.evict()
        self.steps.clear()
        self.timers.clear()
        self.waits.clear()
        self._waiting.clear()
        self._issued.clear()
        self._main = None


async def _main(run: Run, args: Raw) -> Any:
    try:
        return await run.workflow.fn(run.ctx, *run.workflow.decode_args(args))
    except (Evicted, GeneratorExit, asyncio.CancelledError, Exception):
        raise
    except KeyboardInterrupt:  # a person's Ctrl-C is not the handler's doing
        raise
    except BaseException as error:  # SystemExit and its like must end the run, not the process
        raise HandlerExit(f"{type(error).__name__}: {error}") from error


class HandlerExit(errors.HandlerError):
    """The handler raised `SystemExit` or another `BaseException`: the run fails, the process goes on."""


def _failed(error: BaseException) -> EndCommand:
    failure = failure_of(error)
    return EndCommand(t.RunFailed, lambda head: t.RunFailed(error=failure, **head))
