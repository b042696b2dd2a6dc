"""What a handler loop hands out: futures, tasks and timers that hash and are named alike in every process."""

import asyncio
import contextvars
import weakref
from typing import Any, Protocol

TOKEN = object()
"""Whoever has it may raise Evicted: the loop."""
MAX_KNOWN = 64


class Evicted(BaseException):
    """Unwinds the suspended frames of a handler that is taken out of memory; only the loop raises it."""

    def __init__(self, token: object = None) -> None:
        if token is not TOKEN:
            raise TypeError("Evicted is raised by the handler loop only")
        super().__init__("the handler is being taken out of memory: no command is accepted")


class Owner(Protocol):
    """What the loop tells the one that matches commands with the log."""

    run_id: str

    def timer_set(self, timer: "Timer") -> Any:
        """The handler set a deadline in the future; returns the command, kept as `timer.command`."""

    def timer_cancelled(self, command: Any) -> None:
        """The timer with this command was cancelled before it was made ready."""

    def future_cancelled(self, command: Any) -> None:
        """The future with this command was cancelled while pending."""


class Future(asyncio.Future[Any]):
    """A future made by `Loop.create_future`; `command` is what it stands for in the log, or None."""

    __slots__ = ("_hash", "command")
    _hash: int
    command: Any

    def __hash__(self) -> int:
        return self._hash

    def cancel(self, msg: Any | None = None) -> bool:
        done = super().cancel(msg)
        if done and self.command is not None:
            loop: Any = self.get_loop()
            if not loop.evicting:
                loop.owner.future_cancelled(self.command)
        return done


class Task(asyncio.Task[Any]):
    """A task of a handler. `path` is its place in the tree: `m` is the handler, `m.2` its second task.

    `known` is the causal frontier: numbers of the steps whose results this task has, newest last, at most 64.
    """

    __slots__ = ("_children", "_context", "_hash", "_inherited", "_number", "_parent", "known", "path")

    def __init__(self, coro: Any, loop: Any, name: Any, context: contextvars.Context | None) -> None:
        self._hash: int = loop.next_hash()  # asyncio hashes the task while it is being made
        self._number, self._children = loop.count, 0
        parent: Task | None = asyncio.current_task(loop)  # type: ignore[assignment]
        if parent is None:
            self._parent: weakref.ref[Task] | None = None
            self.known: tuple[int, ...] = ()
            self.path = f"r{loop.roots}" if loop.roots else "m"
            loop.roots += 1
        else:
            self._parent, self.known = weakref.ref(parent), parent.known
            parent._children += 1
            self.path = f"{parent.path}.{parent._children}"
        self._inherited = self.known
        self._context = contextvars.copy_context() if context is None else context
        super().__init__(coro, loop=loop, name=name or self.path, context=self._context)

    def __hash__(self) -> int:
        return self._hash

    def _hand_over(self) -> None:
        """Give what this task learned to the one that started it."""
        parent = None if self._parent is None else self._parent()
        if self.known is self._inherited or parent is None or parent.done():
            return
        known = parent.known
        if any(number in known for number in self._inherited):
            known = tuple(number for number in known if number not in self._inherited)
        parent.known = (known + tuple(number for number in self.known if number not in known))[-MAX_KNOWN:]


class Timer(asyncio.TimerHandle):
    """A callback at a time; `command` is what it stands for in the log, None when it is not in there."""

    __slots__ = ("command",)
    command: Any
