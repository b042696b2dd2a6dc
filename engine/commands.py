"""What a handler asks for: a command from the moment it is issued until it is matched with the log.

A command that is taken back in the activation it was issued in was never there. Numbers are given
when the activation ends, one sequence for steps, timers and waits of a run.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Raw

from ..events import codec, types as t
from ..events.clock import to_datetime
from ..events.errors import ValueRefused
from ..events.types import Event
from .loop import Future, Task, Timer
from .step import Step


class Command:
    """Base: `number` is 0 until the command is bound to its event."""

    __slots__ = ("dropped", "number")

    numbered = True
    """Whether it gets a number of its own."""
    reserves = 0
    """Numbers after its own that it keeps for what follows from it."""
    kept_number = 0
    """A number that was kept for it."""

    def __init__(self) -> None:
        self.number = 0
        self.dropped = False

    def open_among(self, run: Any) -> dict[int, Any] | None:
        """Where the run keeps open commands of this kind, by number; None: it is never open."""
        return None

    def bound(self, run: Any, event: Event | None) -> None:
        """The command has its number, and on replay its event: it is open now."""
        if (open_ones := self.open_among(run)) is not None:
            open_ones[self.number] = self

    def taken_back(self, head: dict[str, Any]) -> Event:
        """The event that takes it back."""
        raise NotImplementedError

    def given_up(self, run: Any) -> None:
        """The handler no longer waits for it."""

    def matches(self, event: Event) -> bool:
        """Whether the recorded command says the same."""
        raise NotImplementedError

    def event(self, head: dict[str, Any]) -> Event:
        """The event that records it; `head` are the fields every event has."""
        raise NotImplementedError

    def describe(self) -> str:
        """For people: what was asked for."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.describe()


class StepCommand(Command):
    """A call of a step."""

    __slots__ = (
        "after", "args", "count", "fan_out", "future", "item", "iteration", "key", "kwargs", "site", "step",
        "task", "task_path", "undoes",
    )  # fmt: skip

    def __init__(
        self, step: Step[Any, Any], count: int, args: Raw, kwargs: Raw, future: Future, task: Task | None
    ) -> None:
        super().__init__()
        self.step, self.args, self.kwargs, self.future = step, args, kwargs, future
        self.count = count
        self.task = task
        self.task_path = task.path if task is not None else "m"
        self.after: tuple[int, ...] = task.known if task is not None else ()
        self.key = self.site = self.undoes = ""
        self.iteration = self.item = 0
        self.fan_out: Command | None = None

    @property
    def kept_number(self) -> int:  # type: ignore[override]
        return self.fan_out.number + 1 + self.item if self.fan_out is not None else 0

    def open_among(self, run: Any) -> dict[int, Any]:
        return run.steps  # type: ignore[no-any-return]

    def bound(self, run: Any, event: Event | None) -> None:
        if isinstance(event, t.StepScheduled):
            self.site, self.iteration = event.site, event.iteration
        run.name_step(self)
        if not self.future.cancelled():
            run.steps[self.number] = self

    def taken_back(self, head: dict[str, Any]) -> Event:
        return t.StepCancelled(step=self.number, **head)

    def matches(self, event: Event) -> bool:
        if not isinstance(event, t.StepScheduled) or event.name != self.step.name:
            return False
        if event.kind != self.step.kind:
            return False
        if event.args == self.args and event.kwargs == self.kwargs:
            return True
        return self._same_values(event)

    def _same_values(self, event: t.StepScheduled) -> bool:
        """Sets and dicts may come in another order in another process and still be the same values."""
        if codec.same_value(event.args, self.args) and codec.same_value(event.kwargs, self.kwargs):
            return True
        try:
            decode, count = self.step.decode_call, self.count
            return codec.same_decoded(
                decode(event.args, event.kwargs, count), decode(self.args, self.kwargs, count)
            )
        except ValueRefused:
            return False

    def event(self, head: dict[str, Any]) -> Event:
        options = self.step.options
        return t.StepScheduled(
            step=self.number, name=self.step.name, key=self.key, args=self.args, kwargs=self.kwargs,
            kind=self.step.kind, pure=options.pure, max_attempts=options.retry.max_attempts,
            timeout_s=options.timeout or 0.0, after=self.after, task=self.task_path, site=self.site,
            iteration=self.iteration, fan_out=self.fan_out.number if self.fan_out is not None else 0,
            item=self.item, compensate=options.undo_name, undoes=self.undoes, optional=options.optional,
            total_timeout_s=options.total_timeout or 0.0, **head,
        )  # fmt: skip

    def describe(self) -> str:
        return f"{self.step.kind} {self.step.name!r} with {short(self.args, self.kwargs)}"


class TimerCommand(Command):
    """A deadline: a sleep or a timeout."""

    __slots__ = ("due_at", "handle")

    def __init__(self, handle: Timer) -> None:
        super().__init__()
        self.handle = handle
        self.due_at: datetime = to_datetime(handle.when())

    def open_among(self, run: Any) -> dict[int, Any]:
        return run.timers  # type: ignore[no-any-return]

    def taken_back(self, head: dict[str, Any]) -> Event:
        return t.TimerCancelled(timer=self.number, **head)

    def matches(self, event: Event) -> bool:
        return isinstance(event, t.TimerStarted) and event.due_at == self.due_at

    def event(self, head: dict[str, Any]) -> Event:
        return t.TimerStarted(timer=self.number, due_at=self.due_at, **head)

    def describe(self) -> str:
        return f"timer due at {self.due_at.isoformat()}"


class WaitCommand(Command):
    """Waiting for an event of a name."""

    __slots__ = ("future", "name")

    def __init__(self, name: str, future: Future) -> None:
        super().__init__()
        self.name, self.future = name, future

    def open_among(self, run: Any) -> dict[int, Any]:
        return run.waits  # type: ignore[no-any-return]

    def taken_back(self, head: dict[str, Any]) -> Event:
        return t.WaitCancelled(wait=self.number, **head)

    def given_up(self, run: Any) -> None:
        run.forget_wait(self)

    def matches(self, event: Event) -> bool:
        return isinstance(event, t.WaitOpened) and event.name == self.name

    def event(self, head: dict[str, Any]) -> Event:
        return t.WaitOpened(wait=self.number, name=self.name, **head)

    def describe(self) -> str:
        return f"wait for event {self.name!r}"


class CancelCommand(Command):
    """Taking back what was asked for in an earlier activation."""

    __slots__ = ("target",)

    numbered = False

    def __init__(self, target: Command) -> None:
        super().__init__()
        self.target = target

    def matches(self, event: Event) -> bool:
        made = self.event({"id": event.id, "at": event.at})
        return type(event) is type(made) and event_number(event) == self.target.number

    def event(self, head: dict[str, Any]) -> Event:
        return self.target.taken_back(head)

    def describe(self) -> str:
        return f"cancel of {self.target.describe()}"


class MarkerCommand(Command):
    """A note of the handler's in the log; nothing waits for it. `same`: the fields that replay compares."""

    __slots__ = ("fields", "kind", "same")

    numbered = False

    def __init__(self, kind: type[Event], same: tuple[str, ...], **fields: Any) -> None:
        super().__init__()
        self.kind, self.same, self.fields = kind, same, fields

    def matches(self, event: Event) -> bool:
        return type(event) is self.kind and all(
            _alike(getattr(event, name), self.fields[name]) for name in self.same
        )

    def event(self, head: dict[str, Any]) -> Event:
        return self.kind(**self.fields, **head)

    def describe(self) -> str:
        return describe_event(self.event({"id": "", "at": to_datetime(0)}))


def _alike(recorded: Any, now: Any) -> bool:
    if isinstance(recorded, Raw):
        return same_raw(recorded, now)
    return bool(recorded == now)


def same_raw(recorded: Raw, now: Raw) -> bool:
    """Whether two JSON values are the same, one of them perhaps put away as a blob."""
    return recorded == now or codec.same_value(recorded, now)


class EndCommand(Command):
    """The run's end."""

    __slots__ = ("make", "what")

    numbered = False

    def __init__(self, what: type[Event], make: Callable[[dict[str, Any]], Event]) -> None:
        super().__init__()
        self.what, self.make = what, make

    def matches(self, event: Event) -> bool:
        if type(event) is not self.what:
            return False
        mine = self.make({"id": event.id, "at": event.at})
        if isinstance(event, t.RunCompleted) and isinstance(mine, t.RunCompleted):
            return mine.result == event.result or codec.same_value(mine.result, event.result)
        if isinstance(event, t.RunFailed) and isinstance(mine, t.RunFailed):
            return mine.error.type == event.error.type
        return True

    def event(self, head: dict[str, Any]) -> Event:
        return self.make(head)

    def describe(self) -> str:
        mine = self.make({"id": "", "at": to_datetime(0)})
        if isinstance(mine, t.RunCompleted):
            return f"end of the run with result {clip(mine.result)}"
        if isinstance(mine, t.RunFailed):
            return f"end of the run by {mine.error.type}: {mine.error.message}"
        return f"end of the run: {self.what.TAG}"


def describe_event(event: Event) -> str:
    """A recorded command in the same words as `Command.describe`."""
    if isinstance(event, t.StepScheduled):
        return f"{event.kind} {event.name!r} with {short(event.args, event.kwargs)}"
    if isinstance(event, t.TimerStarted):
        return f"timer due at {event.due_at.isoformat()}"
    if isinstance(event, t.WaitOpened):
        return f"wait for event {event.name!r}"
    if isinstance(event, t.RunCompleted):
        return f"end of the run with result {clip(event.result)}"
    if isinstance(event, t.RunFailed):
        return f"end of the run by {event.error.type}: {event.error.message}"
    name = getattr(event, "name", getattr(event, "key", ""))
    return (
        f"{event.TAG} {event_number(event) or ''} {name!r}" if name else f"{event.TAG} {event_number(event)}"
    )


def event_number(event: Event) -> int:
    """Number of the command that a recorded event is, or is about; 0 when it has none."""
    for name in ("step", "timer", "wait", "gate", "child", "fan_out"):
        if (number := getattr(event, name, None)) is not None:
            return int(number)
    return 0


def clip(data: bytes | Raw, limit: int = 120) -> str:
    """JSON for a message, cut to `limit` characters."""
    text = bytes(data)[: limit * 4].decode(errors="replace")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def short(args: Raw, kwargs: Raw) -> str:
    """Arguments for a message."""
    text = f"arguments {clip(args)}"
    return text if bytes(kwargs) == b"{}" else f"{text} {clip(kwargs)}"
