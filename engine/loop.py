"""The deterministic event loop that runs one handler: asyncio-compatible, driven by the log, not the clock.

The owner of a loop (`run.py`) enters it, completes a future or makes a timer ready, drains it until nothing
is left to do, and leaves it: that is one activation. Time stands still in between. What a handler does in it
follows from the order of these completions alone, in every process, on every supported Python and host.

Sets of tasks and futures iterate alike everywhere because both hash by number and not by address (12 % of
random concurrent programs replayed wrongly without it). The hash stays below 2**30 so that sets have the same
order on 32-bit builds, and is salted with the run's seed because asyncio's and anyio's global weak sets hold
the tasks of all runs, which would collide.
"""

import asyncio
import contextlib
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from types import TracebackType
from typing import Any

from ..events.errors import ForbiddenInHandler, HandlerStuck
from . import _compat
from .futures import TOKEN, Evicted, Future, Owner, Task, Timer
from .inspect import format_stacks, snapshots

__all__ = ["Evicted", "Future", "Loop", "Owner", "Task", "Timer", "running"]

_get_running_loop = _compat.get_running_loop
_LAST_SECOND = 253_402_300_799.0  # 9999-12-31T23:59:59Z: a later deadline cannot be written down
_MASK = 0x3FFFFFFF
_GOLDEN = 0x9E3779B1


class _Entered:
    """Puts the loop in the host's place, and the host back: asyncio, uvloop, a bare thread, another run."""

    __slots__ = ("_hooks", "_host", "_library", "_loop", "_task")

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop

    def __enter__(self) -> None:
        loop, library = self._loop, _compat.library
        if loop.active:
            raise RuntimeError(f"run {loop.owner.run_id}: its handler loop was entered twice")
        self._host = host = _get_running_loop()
        swap = _compat.swap_current_task
        self._task = swap(host, None) if swap is not None and host is not None else None
        _compat.set_running_loop(loop)
        # Otherwise the host adopts the handler's async generators and closes them on its own loop.
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, loop._finalize)
        if library is not None:
            self._library, library.name = library.name, "asyncio"
        loop.active = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.active = False
        if _compat.library is not None:
            _compat.library.name = self._library
        sys.set_asyncgen_hooks(*self._hooks)
        _compat.set_running_loop(self._host)
        if self._task is not None and _compat.swap_current_task is not None:
            _compat.swap_current_task(self._host, self._task)


class _Nobody:
    """Owner of an evicted loop: breaks the cycle between loop and run."""

    run_id = "(evicted)"

    def timer_set(self, timer: Timer) -> Any:
        return None

    def timer_cancelled(self, command: Any) -> None:
        pass

    def future_cancelled(self, command: Any) -> None:
        pass


_AbstractLoop: Any = asyncio.AbstractEventLoop  # Any: checkers do not see the generated refusals


class Loop(_AbstractLoop):  # type: ignore[misc]
    """One handler's event loop. `seed` is the 64-bit seed of its run.

    All methods of AbstractEventLoop that are not defined here refuse with ForbiddenInHandler.
    """

    MAX_CALLBACKS: int = 200_000
    """Callbacks in one activation before the handler counts as stuck (plus 16 for each task it has)."""
    MAX_REDELIVERIES: int = 64
    """Rounds of anyio's cancellation retries with nothing else to do, before they wait for the next event."""
    MAX_REFUSALS: int = 1_000
    """Refusals in one eviction, after which a handler that swallows them is let go instead of hanging us."""
    MAX_CLOSES: int = 100
    """Attempts to unwind a coroutine that goes on awaiting."""

    def __init__(self, owner: Owner, seed: int) -> None:
        _compat.install(Loop)
        self.owner: Owner = owner
        self.now = 0.0
        self.active = False
        self.evicting = False
        self.tasks: dict[Task, None] = {}
        self.errors: list[dict[str, Any]] = []
        self.count = 0
        """Futures and tasks made so far."""
        self.roots = 0
        """Tasks made so far that no task started."""
        self._salt = seed
        self._refusals = 0
        self._ready: deque[asyncio.Handle] = deque()
        self._retries: list[asyncio.Handle] = []

    # ---- what a handler uses through asyncio and anyio

    def time(self) -> float:
        return self.now

    get_debug = staticmethod(bool)  # asyncio asks for every future and handle; bool() is False, in C

    def is_running(self) -> bool:
        return self.active

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def create_future(self) -> Future:
        if self.evicting:
            self.refuse_if_evicting()
        self.count = count = self.count + 1
        future = Future(loop=self)
        future._hash = (self._salt + count * _GOLDEN) & _MASK
        future.command = None
        return future

    def create_task(
        self, coro: Any, *, name: Any = None, context: Context | None = None, eager_start: Any = None
    ) -> Task:
        if self.evicting or eager_start:
            self._refuse_task(coro, eager_start)
        task = Task(coro, self, name, context)
        self.tasks[task] = None
        task.add_done_callback(self._task_done)  # first, so that whoever awaits the task finds it merged
        return task

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if _get_running_loop() is not self:
            self._refuse_touch(callback)
        else:
            self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Timer:
        # Counted in whole microseconds, so that sleep(0.1) is due exactly that much later.
        when = self.now + delay
        if delay > 0 and when < _LAST_SECOND:
            when = (round(self.now * 1e6) + max(1, round(delay * 1e6))) / 1e6
        return self.call_at(when, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Timer:
        if self.evicting:
            self.refuse_if_evicting()
        if math.isnan(when):
            raise ValueError("a deadline must not be NaN")
        later = when > self.now
        if when > _LAST_SECOND:
            when = math.inf
        elif later:
            # Up, because anyio asks the clock again when its deadline fires, and would set it once more.
            whole = round(when * 1e6)
            when = whole / 1e6 if whole / 1e6 >= when else (whole + 1) / 1e6
        timer = Timer(when, callback, args, self, context)
        timer.command = None
        if not later:
            self._ready.append(timer)
        elif when != math.inf and not self.evicting:
            timer.command = self.owner.timer_set(timer)
        return timer

    def _timer_handle_cancelled(self, timer: Timer) -> None:
        """asyncio calls this from `TimerHandle.cancel`."""
        command, timer.command = timer.command, None
        if command is not None and not self.evicting:
            self.owner.timer_cancelled(command)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Without the task or future: kept in a list they would keep whole frames alive.
        note = {key: value for key, value in context.items() if key not in ("future", "task", "handle")}
        task = context.get("task") or context.get("future")
        if isinstance(task, Task):
            note["task"] = task.path
        self.errors.append(note)

    default_exception_handler = call_exception_handler

    # ---- what the owner uses

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Make this the running loop of the thread for a `with` block."""
        return _Entered(self)

    def make_ready(self, handle: asyncio.Handle) -> None:
        """Put a timer's callback on the ready queue: its deadline has passed."""
        if isinstance(handle, Timer):
            handle.command = None
        self._ready.append(handle)

    def drain(self) -> None:
        """Run until nothing is ready; only inside `entered()`. Raises HandlerStuck if it never is."""
        ready, retries = self._ready, self._retries
        count = passes = idle = 0
        limit = self.MAX_CALLBACKS + 16 * len(self.tasks)
        while ready or retries:
            passes += 1
            count += len(ready)
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    try:
                        handle._run()
                    except SystemExit:  # asyncio lets it through to end the program; its task has it
                        continue
                del handle  # a traceback that passes here would keep the task which it belongs to
            # anyio cancels level-triggered, by trying again in every pass until the task has ended. Here it
            # may do so when there is nothing else to do, and now and then (a task that polls sleep(0) until
            # it is cancelled would starve it); but a task that survives must not keep us for ever.
            if retries and (not ready or passes % 16 == 0):
                if not ready:
                    idle += 1
                    if idle > self.MAX_REDELIVERIES:
                        return
                ready.extend(retries)
                retries.clear()
            if count > limit:
                raise self._stuck(count)

    def park(self, handle: asyncio.Handle) -> None:
        """Move anyio's retry, the newest entry of the ready queue, to the queue for retries."""
        if self._ready and self._ready[-1] is handle:
            self._retries.append(self._ready.pop())

    def refuse_if_evicting(self) -> None:
        """Raise Evicted while the handler is being unwound; the owner asks before it accepts a command."""
        if self.evicting:
            self._refusals += 1
            if self._refusals <= self.MAX_REFUSALS:
                raise Evicted(TOKEN)

    def close_tasks(self, tasks: Iterable[Task]) -> None:
        """Unwind these tasks here and now, the newest first, with every command refused."""
        before, self.evicting = self.evicting, True
        mark, closed = self.count, list[Task]()
        doomed = sorted(tasks, key=lambda task: task._number, reverse=True)
        try:
            with contextlib.nullcontext() if self.active else self.entered():
                while doomed:
                    for task in doomed:
                        self._close(task)
                        self.tasks.pop(task, None)
                    closed += doomed  # a handler that swallows refusals may have started more
                    doomed = [task for task in self.tasks if task._number > mark]
                if not self.tasks:
                    self._part(closed)
        finally:
            self.evicting = before

    def evict(self) -> None:
        """Unwind everything and let go of it; the loop cannot be used again."""
        self.evicting = True
        self.close_tasks(self.tasks)
        self._part([])
        self.owner = _Nobody()

    # ---- inside

    def next_hash(self) -> int:
        self.count += 1
        return (self._salt + self.count * _GOLDEN) & _MASK

    def _task_done(self, task: Task) -> None:
        self.tasks.pop(task, None)
        task._hand_over()

    def _close(self, task: Task) -> None:
        coro: Any = task.get_coro()
        # anyio's scopes unwind only in the task that entered them, and context variables in their context.
        _compat.enter_task(self, task)
        try:
            for _ in range(self.MAX_CLOSES):
                # Not coro.close(): that leaves an async generator which is being waited for to the collector.
                task._context.run(coro.throw, Evicted(TOKEN))
            _compat.keep_for_ever(coro)
            note = f"task {task.path} swallows every exception: it could not be unwound, its memory is lost"
            self.errors.append({"message": note, "task": task.path})
        except (Evicted, StopIteration):
            pass
        except Exception as error:
            note = f"cleanup of task {task.path} raised while it was unwound"
            self.errors.append({"message": note, "exception": error, "task": task.path})
        finally:
            _compat.leave_task(self, task)
            _compat.settle(task)

    def _part(self, tasks: list[Task]) -> None:
        """Cut the cycles between closed tasks and what they waited for: nothing is left to the collector."""
        for task in tasks:
            waiter = _compat.waiter(task)
            if waiter is not None:
                asyncio.Future.cancel(waiter)
                if isinstance(waiter, Future):
                    waiter.command = None
            _compat.forget(task)
        for handle in (*self._ready, *self._retries):
            for argument in handle._args or ():
                if isinstance(argument, Task):  # it has ended, and its done callback will not run
                    _compat.forget(argument)
            handle.cancel()
        self._ready.clear()
        self._retries.clear()

    def _refuse_task(self, coro: Any, eager: Any) -> None:
        try:
            self.refuse_if_evicting()
            if eager:
                raise ForbiddenInHandler("eager tasks are not available in a handler: leave eager_start out")
        except BaseException:
            coro.close()
            raise

    def _finalize(self, generator: Any) -> None:
        """An async generator was dropped before its end; Python asks us to close it."""
        if _get_running_loop() is not self:
            return
        if _compat.collecting():  # at a random moment: closing it now would differ in every process
            note = "was left to the garbage collector: close it with contextlib.aclosing()"
            self.errors.append({"message": f"{generator!r} {note}"})
        elif not self.evicting:
            self.create_task(generator.aclose())
        else:
            with contextlib.suppress(Evicted, StopIteration, StopAsyncIteration):
                generator.aclose().send(None)

    def _refuse_touch(self, callback: Callable[..., Any]) -> None:
        if self._refusals > self.MAX_REFUSALS:
            return  # a handler that swallowed its eviction is being collected: let it suspend once more
        raise ForbiddenInHandler(
            f"run {self.owner.run_id}: something of its handler was touched from outside of it "
            f"(callback {getattr(callback, '__qualname__', callback)!r}); send it a signal instead"
        )

    def _stuck(self, count: int) -> HandlerStuck:
        return HandlerStuck(
            f"run {self.owner.run_id}: the handler ran {count} callbacks without waiting for anything; "
            f"does it loop over sleep(0)?\n{format_stacks(snapshots(self))}"
        )


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(self: Loop, *args: Any, **kwargs: Any) -> Any:
        for argument in args:
            if asyncio.iscoroutine(argument):
                argument.close()
        raise ForbiddenInHandler(f"loop.{name}() is not available in a handler: {_compat.REMEDY}")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


for _name, _method in vars(asyncio.AbstractEventLoop).items():
    if callable(_method) and not _name.startswith("__") and _name not in vars(Loop):
        setattr(Loop, _name, _refusal(_name))


def running() -> Loop | None:
    """The handler loop that is active on this thread right now, or None."""
    loop = _get_running_loop()
    return loop if type(loop) is Loop else None
