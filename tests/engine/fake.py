"""A tiny owner of a handler loop: numbers commands, keeps a history in memory and replays it."""

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from refold.engine.loop import Future, Loop, Task, Timer

Handler = Callable[["Context"], Coroutine[Any, Any, Any]]
Event = tuple[Any, ...]
"""("start", t) · ("done", number, value, t) · ("fail" or "fire", number, t) · ("cancel", reason, t)"""


class StepFailed(Exception):
    """What a handler sees of a ("fail", …)."""


class Command:
    """Something the handler asked for; it has a number once its activation is over."""

    def __init__(self, kind: str, what: Any, target: Any, path: str) -> None:
        self.kind, self.what, self.target, self.path = kind, what, target, path
        self.number, self.dropped = 0, False

    def __str__(self) -> str:
        return f"{self.kind} {self.number} {self.what}"


class Context:
    """What the handlers of these tests get."""

    def __init__(self, run: "FakeRun") -> None:
        self.run = run
        self.random = random.Random(7)

    def start(self, name: str, *args: Any) -> Future:
        return self.run.step(name, args)

    async def step(self, name: str, *args: Any) -> Any:
        return await self.run.step(name, args)

    def now(self) -> float:
        return self.run.loop.now


class FakeRun:
    """Live state of one handler."""

    alive: ClassVar[list["FakeRun"]] = []

    def __init__(self, handler: Handler, run_id: str = "r1", seed: int = 0x1234_5678_9ABC_DEF0) -> None:
        self.handler, self.run_id = handler, run_id
        self.loop = Loop(self, seed)
        self.ctx = Context(self)
        self.main: Task | None = None
        self.history: list[Event] = []
        self.commands: list[tuple[int, str, Any, str]] = []
        self.pending: dict[int, Command] = {}
        self.closed = False
        self._emitted: list[Command] = []
        self.alive.append(self)

    # what the loop calls

    def timer_set(self, timer: Timer) -> Command:
        return self._emit("timer", timer.when(), timer)

    def timer_cancelled(self, command: Command) -> None:
        self._cancelled(command)

    def future_cancelled(self, command: Command) -> None:
        self._cancelled(command)

    # what the context calls

    def step(self, name: str, args: tuple[Any, ...]) -> Future:
        self.loop.refuse_if_evicting()
        future = self.loop.create_future()
        future.command = self._emit("step", f"{name}{list(args)}", future)
        return future

    # what the tests call

    def start(self, now: float = 0.0) -> "FakeRun":
        return self.feed(("start", now))

    def feed(self, event: Event) -> "FakeRun":
        self.history.append(event)
        self.loop.now = event[-1]
        with self.loop.entered():
            self._deliver(event)
            self.loop.drain()
            assert self.main is not None
            if self.main.done() and not self.closed:
                self._emit("end", _outcome(self.main))
                self.closed = True
                self.loop.close_tasks(list(self.loop.tasks))
        self._commit()
        return self

    def replay(self, history: Iterable[Event]) -> "FakeRun":
        for event in history:
            self.feed(event)
        return self

    @classmethod
    def evict_all(cls) -> None:
        while cls.alive:
            cls.alive.pop().loop.evict()

    def numbers(self, kind: str) -> list[int]:
        return [number for number, command in self.pending.items() if command.kind == kind]

    @property
    def result(self) -> Any:
        assert self.main is not None
        return self.main.result()

    # inside

    def _deliver(self, event: Event) -> None:
        kind = event[0]
        if kind == "start":
            self.main = self.loop.create_task(_main(self.handler, self.ctx), context=contextvars.Context())
        elif kind == "cancel":
            assert self.main is not None
            self.main.cancel(event[1])
        elif (command := self.pending.pop(event[1], None)) is not None:
            if kind == "done":
                command.target.set_result(event[2])
            elif kind == "fail":
                command.target.set_exception(StepFailed(str(command)))
            else:
                self.loop.make_ready(command.target)

    def _emit(self, kind: str, what: Any, target: Any = None) -> Command:
        task = asyncio.current_task(self.loop)
        command = Command(kind, what, target, task.path if isinstance(task, Task) else "")
        self._emitted.append(command)
        return command

    def _cancelled(self, command: Command) -> None:
        if not command.number:
            command.dropped = True  # never left this activation: nothing happened
        elif self.pending.pop(command.number, None):
            self._emit("cancel", command.number)

    def _commit(self) -> None:
        for command in self._emitted:
            if not command.dropped:
                self.commands.append((len(self.history), command.kind, command.what, command.path))
                command.number = len(self.commands)
                if command.target is not None:
                    self.pending[command.number] = command
        self._emitted.clear()


async def _main(handler: Handler, ctx: Context) -> Any:
    return await handler(ctx)


def _outcome(task: Task) -> str:
    if task.cancelled():
        return "cancelled"
    return repr(task.exception() or task.result())


def play(handler: Handler, seed: int, *, cancel: float = 0.0, limit: int = 2_000) -> FakeRun:
    """Run a handler in a random world: steps end in any order, `bad` ones fail, timers fire when due."""
    rng, run = random.Random(seed), FakeRun(handler).start()
    for _ in range(limit):
        if run.closed or not run.pending:
            break
        now = run.loop.now
        steps, timers = run.numbers("step"), run.numbers("timer")
        if cancel and rng.random() < cancel:
            cancel = 0.0
            run.feed(("cancel", "user", now))
            continue
        number = rng.choice(steps + timers)
        if number in timers:
            number = min(timers, key=lambda n: (run.pending[n].what, n))
            run.feed(("fire", number, max(now, run.pending[number].what)))
        else:
            what, now = run.pending[number].what, now + rng.choice([0, 0.25, 1.0])
            run.feed(("fail", number, now) if what.startswith("bad") else ("done", number, what, now))
    return run
