"""The private names of asyncio and anyio that the handler loop needs, and what it has to change in both.

`install()` runs once, when the first handler loop is made: it checks that the names exist, says which
do not, and then changes how these behave *inside a handler loop only*:

- anyio's cancel scopes keep tasks and child scopes in sets ordered by address, so the order in which a
  cancellation arrives would differ from process to process (9 % of random concurrent programs);
- anyio starts a thread before it asks the loop for anything, so its I/O is refused at its front door;
- `asyncio.as_completed` starts bare coroutines in the order of a set, `gather` returns a future hashed
  by address, `all_tasks` walks all tasks of the process;
- 3.11's `wait_for` runs one task more than 3.12's, which would bind a history to its Python.

Functions keep their identity (their code is replaced), because handlers say `from asyncio import
wait_for` long before the first loop exists.
"""

import asyncio
import gc
import sys
import threading
from asyncio import events as _events, tasks as _tasks
from collections.abc import Callable, Iterable
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from ..events.errors import ConfigurationError, ForbiddenInHandler

try:
    sniffio: Any = import_module("sniffio")
except ImportError:  # anyio needs it up to 4.11 only
    sniffio = None

REMEDY = "put it in a step: `await ctx.call(fn, …)` or an @step function"

get_running_loop: Callable[[], Any] = _events._get_running_loop
set_running_loop: Callable[[Any], None] = _events._set_running_loop
enter_task: Callable[[Any, Any], None] = _tasks._enter_task
leave_task: Callable[[Any, Any], None] = _tasks._leave_task
# From 3.14 the current task belongs to the thread and not to the loop, so that the host's has to be put
# aside. Before, there is one for each loop and nothing to do; 3.12's raises KeyError in a plain callback.
swap_current_task: Callable[[Any, Any], Any] | None = None
if sys.version_info >= (3, 14):
    swap_current_task = getattr(_tasks, "_swap_current_task", None)
library: Any = getattr(sniffio, "thread_local", None)
"""Thread-local with `name`, from which sniffio (and anyio up to 4.11) tells the async library; or None."""

_ANYIO_IO = (
    "connect_tcp",
    "connect_unix",
    "create_tcp_listener",
    "create_udp_socket",
    "create_unix_datagram_socket",
    "create_unix_listener",
    "getaddrinfo",
    "getnameinfo",
    "open_process",
    "open_signal_receiver",
    "run_async_from_thread",
    "run_sync_from_thread",
    "run_sync_in_worker_thread",
    "wait_readable",
    "wait_writable",
    "wrap_connected_udp_socket",
    "wrap_connected_unix_datagram_socket",
    "wrap_listener_socket",
    "wrap_stream_socket",
    "wrap_udp_socket",
    "wrap_unix_datagram_socket",
    "wrap_unix_stream_socket",
)

_installed: type[Any] | None = None
_installing = threading.Lock()
_task_states: Any = {}
_collecting = 0


def install(loop_type: type[Any]) -> None:
    """Check the names and prepare asyncio and anyio for loops of exactly this type; again: no effect."""
    if _installed is None:
        with _installing:  # twice would lead each name to itself, for ever
            if _installed is None:
                _install(loop_type)


def _install(loop_type: type[Any]) -> None:
    global _installed, _task_states
    backend = import_module("anyio._backends._asyncio")
    self_test(backend)
    _task_states = backend._task_states
    _install_asyncio(loop_type)
    _install_anyio(loop_type, backend)
    gc.callbacks.append(_collector)
    _installed = loop_type


def self_test(backend: ModuleType) -> None:
    """Raise ConfigurationError that names what this Python or this anyio lacks."""
    wanted: list[tuple[Any, str, Iterable[str]]] = [
        (_events, "asyncio.events", ("_get_running_loop", "_set_running_loop")),
        (_tasks, "asyncio.tasks", ("_enter_task", "_leave_task", "_GatheringFuture")),
        (asyncio.Task, "asyncio.Task", ("_fut_waiter", "_log_destroy_pending")),
        (asyncio.TimerHandle, "asyncio.TimerHandle", ("_run", "_cancelled", "_when", "_scheduled")),
        (backend, backend.__name__, ("AsyncIOBackend", "CancelScope", "TaskGroup", "_task_states")),
    ]
    if sys.version_info >= (3, 14):
        wanted.append((_tasks, "asyncio.tasks", ("_swap_current_task",)))
    missing = _missing(wanted)
    if not missing:
        scope = ("_tasks", "_child_scopes", "_cancel_handle", "_deliver_cancellation")
        place = backend.__name__
        missing = _missing(
            [
                (backend.CancelScope(), f"{place}.CancelScope", scope),
                (backend.TaskGroup(), f"{place}.TaskGroup", ("cancel_scope", "_tasks")),
                (
                    backend.AsyncIOBackend,
                    f"{place}.AsyncIOBackend",
                    ("create_cancel_scope", "create_task_group"),
                ),
            ]
        )
    if missing:
        from importlib.metadata import version

        raise ConfigurationError(
            f"the handler loop needs {', '.join(missing)}, which Python {sys.version.split()[0]} with anyio "
            f"{version('anyio')} does not have; it is made for CPython 3.11 to 3.13 and anyio 4.9 to 4.16: "
            "install one of these, or a newer Refold"
        )


def _missing(wanted: list[tuple[Any, str, Iterable[str]]]) -> list[str]:
    return [f"{where}.{name}" for thing, where, names in wanted for name in names if not hasattr(thing, name)]


# ---- tasks ----------------------------------------------------------------------------------


def waiter(task: asyncio.Task[Any]) -> "asyncio.Future[Any] | None":
    """What the suspended task waits for, or None when it is about to run."""
    found: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
    return found


def settle(task: asyncio.Task[Any]) -> None:
    """Mark a task whose coroutine was closed as cancelled, so that asyncio does not complain about it."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    asyncio.Future.cancel(task)


def forget(task: asyncio.Task[Any]) -> None:
    """Let anyio forget a task whose done callbacks will never run.

    anyio keeps task → scope → task in a global weak dictionary until such a callback takes it out:
    without this every evicted task group would stay in memory for ever.
    """
    state = _task_states.pop(task, None)
    if state is not None and state.cancel_scope is not None:
        state.cancel_scope._tasks.discard(task)


def keep_for_ever(coro: Any) -> None:
    """Never let a coroutine be finalized that swallows every exception: closing it would loop without end."""
    ctypes = import_module("ctypes")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))  # a reference of ours would go when Python exits


def collecting() -> bool:
    """True while the cyclic garbage collector runs on this thread: what ends now ends at a random moment."""
    return _collecting == threading.get_ident()


def _collector(phase: str, info: dict[str, int]) -> None:
    global _collecting
    _collecting = threading.get_ident() if phase == "start" else 0


# ---- asyncio --------------------------------------------------------------------------------


def _reroute(
    function: Callable[..., Any], make: Callable[[Any], Any], trampoline: Callable[..., Any]
) -> None:
    """Let `function`, wherever it was imported to, run `make(original)`; `trampoline` is of its kind."""
    name = function.__name__
    if isinstance(function, FunctionType):
        original = FunctionType(
            function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
        )
        original.__kwdefaults__ = function.__kwdefaults__
        original.__doc__, original.__module__ = function.__doc__, function.__module__
        function.__globals__["_refold_" + name] = make(original)
        assert isinstance(trampoline, FunctionType)
        function.__code__ = trampoline.__code__.replace(co_name=name, co_qualname=name)
        function.__wrapped__ = original  # type: ignore[attr-defined]  # keeps its signature
    else:  # implemented in C (all_tasks on 3.14): only the names can be bound anew
        replacement = make(function)
        setattr(_tasks, name, replacement)
        setattr(asyncio, name, replacement)


# The three bodies below run inside asyncio.tasks, whose globals hold the `_refold_…` functions.


def _as_completed(*args: Any, **kwargs: Any) -> Any:
    return _refold_as_completed(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _all_tasks(*args: Any, **kwargs: Any) -> Any:
    return _refold_all_tasks(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


async def _wait_for(*args: Any, **kwargs: Any) -> Any:
    return await _refold_wait_for(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _install_asyncio(loop_type: type[Any]) -> None:
    def make_as_completed(original: Callable[..., Any]) -> Callable[..., Any]:
        def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
            mistake = asyncio.iscoroutine(fs) or asyncio.isfuture(fs)  # the original reports it
            if not mistake and type(get_running_loop()) is loop_type:
                fs = [asyncio.ensure_future(f) for f in dict.fromkeys(fs)]  # pyright: ignore
            return original(fs, timeout=timeout)

        return as_completed

    def make_all_tasks(original: Callable[..., Any]) -> Callable[..., Any]:
        def all_tasks(loop: Any = None) -> set[asyncio.Task[Any]]:
            asked = get_running_loop() if loop is None else loop
            if type(asked) is loop_type:
                return {task for task in asked.tasks if not task.done()}
            found: set[asyncio.Task[Any]] = original(loop)
            return found

        return all_tasks

    _reroute(asyncio.as_completed, make_as_completed, _as_completed)
    _reroute(asyncio.all_tasks, make_all_tasks, _all_tasks)
    if sys.version_info < (3, 12):
        _reroute(asyncio.wait_for, lambda original: _make_wait_for(original, loop_type), _wait_for)
    _tasks._GatheringFuture = _make_gathering(_tasks._GatheringFuture, loop_type)  # type: ignore[attr-defined]


def _make_gathering(base: Any, loop_type: type[Any]) -> Any:
    class Gathering(base):  # type: ignore[misc]
        """The future of gather(): in a handler loop hashed by its number, elsewhere as always."""

        def __init__(self, children: Any, *, loop: Any) -> None:
            self._hash = loop.next_hash() if type(loop) is loop_type else object.__hash__(self)
            super().__init__(children, loop=loop)

        def __hash__(self) -> int:
            return int(self._hash)

    Gathering.__name__ = Gathering.__qualname__ = base.__name__
    Gathering.__module__ = base.__module__
    return Gathering


def _make_wait_for(original: Callable[..., Any], loop_type: type[Any]) -> Callable[..., Any]:
    async def wait_for(fut: Any, timeout: float | None) -> Any:
        """wait_for() of 3.12 and later; `_cancel_and_wait` is still 3.11's, which does the same there."""
        if type(get_running_loop()) is not loop_type:
            return await original(fut, timeout)
        if timeout is not None and timeout <= 0:
            fut = asyncio.ensure_future(fut)
            if fut.done():
                return fut.result()
            await _tasks._cancel_and_wait(fut, loop=get_running_loop())  # type: ignore[attr-defined]
            try:
                return fut.result()
            except asyncio.CancelledError as error:
                raise TimeoutError from error
        async with asyncio.timeout(timeout):
            return await fut

    return wait_for


# ---- anyio ----------------------------------------------------------------------------------


class OrderedSet(dict[Any, None]):
    """A set that keeps the order of insertion: as much of one as anyio's scopes use."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    def remove(self, item: Any) -> None:
        del self[item]


def _install_anyio(loop_type: type[Any], backend: Any) -> None:
    class Scope(backend.CancelScope):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._child_scopes = OrderedSet()  # type: ignore[misc]  # a slot of the base
            self._tasks = OrderedSet()  # type: ignore[misc]

        def _deliver_cancellation(self, origin: Any) -> bool:
            again: bool = super()._deliver_cancellation(origin)
            if again and origin is self:  # anyio has just put its retry on the ready queue
                get_running_loop().park(self._cancel_handle)
            return again

    class Group(backend.TaskGroup):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cancel_scope = Scope()

    def ours() -> bool:
        return type(get_running_loop()) is loop_type

    stock = backend.AsyncIOBackend
    stock_scope, stock_group = stock.create_cancel_scope, stock.create_task_group

    def create_cancel_scope(cls: Any, /, **options: Any) -> Any:
        return Scope(**options) if ours() else stock_scope(**options)

    def create_task_group(cls: Any) -> Any:
        return Group() if ours() else stock_group()

    stock.create_cancel_scope = classmethod(create_cancel_scope)
    stock.create_task_group = classmethod(create_task_group)
    for name in _ANYIO_IO:
        if hasattr(stock, name):
            setattr(stock, name, _refusing(name, getattr(stock, name), ours))


def _refusing(name: str, stock: Callable[..., Any], ours: Callable[[], bool]) -> Any:
    def guarded(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if ours():
            raise ForbiddenInHandler(f"anyio's {name}() is I/O, and a handler must not do any: {REMEDY}")
        return stock(*args, **kwargs)

    guarded.__name__ = name
    return classmethod(guarded)
