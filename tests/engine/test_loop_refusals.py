"""What a handler must not do is refused with the remedy, and nobody else notices that asyncio was changed."""

import asyncio
from asyncio import as_completed, wait_for
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction, signature
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from refold.engine import _compat
from refold.engine.loop import Evicted, Loop, running
from refold.events.errors import ConfigurationError, ForbiddenInHandler
from tests.engine.fake import Context, FakeRun


async def leaf(ctx: Context) -> Any:
    return await ctx.step("leaf")


async def _reader() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def _signal() -> None:
    asyncio.get_running_loop().add_signal_handler(2, print)


async def _threadsafe() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def _nested() -> None:
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))


async def _factory() -> None:
    asyncio.get_running_loop().set_task_factory(None)


async def _udp() -> None:
    await anyio.create_udp_socket(local_host="127.0.0.1")


async def _listen() -> None:
    await anyio.create_tcp_listener(local_host="127.0.0.1")


REFUSED: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
    "asyncio.to_thread": lambda: asyncio.to_thread(int),
    "asyncio.open_connection": lambda: asyncio.open_connection("127.0.0.1", 9),
    "asyncio.start_server": lambda: asyncio.start_server(print, "127.0.0.1", 0),
    "asyncio subprocess": lambda: asyncio.create_subprocess_exec("true"),
    "asyncio shell": lambda: asyncio.create_subprocess_shell("true"),
    "add_reader": _reader,
    "add_signal_handler": _signal,
    "call_soon_threadsafe": _threadsafe,
    "run_until_complete": _nested,
    "set_task_factory": _factory,
    "anyio.to_thread": lambda: anyio.to_thread.run_sync(int),
    "anyio.connect_tcp": lambda: anyio.connect_tcp("127.0.0.1", 9),
    "anyio.create_udp_socket": _udp,
    "anyio.create_tcp_listener": _listen,
    "anyio.getaddrinfo": lambda: anyio.getaddrinfo("localhost", 80),
    "anyio.run_process": lambda: anyio.run_process(["true"]),
    "anyio.open_file": lambda: anyio.open_file(__file__),
}


@pytest.mark.parametrize("name", REFUSED)
def test_input_and_output_are_refused_with_the_remedy(name: str) -> None:
    async def handler(ctx: Context) -> None:
        await REFUSED[name]()

    main = FakeRun(handler).start().main
    assert main is not None
    error: BaseException | None = main.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ForbiddenInHandler)
    assert "put it in a step" in str(error)


def test_every_method_of_an_event_loop_is_there_or_refuses() -> None:
    run = FakeRun(leaf)
    own = {"call_soon", "call_at", "call_later", "create_future", "create_task", "time", "get_debug"}
    also = ("is_", "get_", "call_exc", "default_exc", "_")
    names = [name for name, value in vars(asyncio.AbstractEventLoop).items() if callable(value)]
    refused = [name for name in names if name not in own and not name.startswith(also)]
    assert len(refused) > 30
    for name in refused:
        with pytest.raises(ForbiddenInHandler):
            getattr(run.loop, name)()


def test_asyncio_run_is_refused() -> None:
    async def handler(ctx: Context) -> None:
        coro = asyncio.sleep(0)
        try:
            asyncio.run(coro)
        finally:
            coro.close()

    main = FakeRun(handler).start().main
    assert main is not None
    assert "cannot be called from a running event loop" in str(main.exception())


def test_touching_a_handler_from_outside_is_refused() -> None:
    events: list[asyncio.Event] = []

    async def handler(ctx: Context) -> None:
        events.append(asyncio.Event())
        await events[-1].wait()

    async def meddler(ctx: Context) -> None:
        events[1].set()

    _both = FakeRun(handler).start(), FakeRun(handler).start()  # kept: a run that is collected unwinds
    with pytest.raises(ForbiddenInHandler, match=r"from outside of it .*send it a signal"):
        events[0].set()
    other = FakeRun(meddler).start().main  # … nor from another run's handler
    assert other is not None
    assert isinstance(other.exception(), ForbiddenInHandler)


def test_eager_tasks_are_refused() -> None:
    run = FakeRun(leaf)
    coro = leaf(run.ctx)
    with run.loop.entered(), pytest.raises(ForbiddenInHandler, match="eager"):
        run.loop.create_task(coro, eager_start=True)


def test_a_loop_is_entered_once_and_known_only_inside() -> None:
    loop = FakeRun(leaf).loop
    assert running() is None
    with loop.entered():
        assert running() is loop
        assert loop.is_running()
        with pytest.raises(RuntimeError, match="entered twice"):
            loop.entered().__enter__()
    assert running() is None


def test_only_the_loop_can_evict() -> None:
    with pytest.raises(TypeError):
        Evicted()


# ---- the changes to asyncio and anyio


def test_a_missing_private_name_is_named() -> None:
    class Scope:
        _tasks = _child_scopes = _cancel_handle = None

    backend: Any = SimpleNamespace(
        __name__="anyio._backends._asyncio",
        _task_states={},
        CancelScope=Scope,
        TaskGroup=lambda: SimpleNamespace(cancel_scope=0, _tasks=0),
        AsyncIOBackend=SimpleNamespace(create_cancel_scope=0, create_task_group=0),
    )
    with pytest.raises(ConfigurationError, match=r"asyncio\.CancelScope\._deliver_cancellation.*anyio 4"):
        _compat.self_test(backend)
    del backend.TaskGroup
    with pytest.raises(ConfigurationError, match=r"_asyncio\.TaskGroup, which Python 3"):
        _compat.self_test(backend)


def test_other_loops_behave_as_before() -> None:
    Loop(FakeRun(leaf), 1)
    before = asyncio.as_completed
    _compat.install(Loop)  # a second time: no effect
    assert asyncio.as_completed is before

    async def main() -> Any:
        async def one(i: int) -> int:
            await asyncio.sleep(0)
            return i

        results = sorted([await first for first in asyncio.as_completed([one(1), one(2)])])
        scope = anyio.CancelScope()
        gathered = asyncio.gather(one(1))
        assert hash(gathered) == object.__hash__(gathered)
        await gathered
        assert asyncio.current_task() in asyncio.all_tasks()
        group = anyio.create_task_group()
        plain = type(group.cancel_scope) is type(scope)
        threaded = await anyio.to_thread.run_sync(int)
        return results, type(scope).__module__, plain, threaded, await asyncio.wait_for(one(5), 1)

    assert asyncio.run(main()) == ([1, 2], "anyio._backends._asyncio", True, 0, 5)


def test_names_imported_before_the_first_loop_are_changed_as_well() -> None:
    Loop(FakeRun(leaf), 1)
    assert as_completed is asyncio.as_completed
    assert iscoroutinefunction(wait_for)
    assert list(signature(wait_for).parameters) == ["fut", "timeout"]

    async def handler(ctx: Context) -> None:
        for first in as_completed([ctx.step("s", i) for i in range(30)]):
            await first

    assert [what for _, _, what, _ in FakeRun(handler).start().commands] == [f"s[{i}]" for i in range(30)]
