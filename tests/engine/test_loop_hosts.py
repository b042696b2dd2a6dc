"""A handler runs the same in any host: asyncio, uvloop, debug mode, eager tasks, a thread, a handler."""

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from refold.engine import _compat
from refold.engine.loop import running
from tests.engine.fake import Context, FakeRun, StepFailed, play

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def handler(ctx: Context) -> Any:
    task = asyncio.current_task()
    seen = [
        type(asyncio.get_running_loop()).__name__,
        type(task).__name__,
        anyio.get_current_task().name,
        variable.get(),
        len(asyncio.all_tasks()),
    ]
    variable.set("inside")
    results: list[Any] = []

    async def work(i: int) -> None:
        results.append(await ctx.step("double", i))
        assert variable.get() == "inside"

    async def numbers() -> AsyncIterator[Any]:
        for i in range(2):
            yield await ctx.step("number", i)

    async with anyio.create_task_group() as group:
        for i in range(3):
            group.start_soon(work, i)
    with anyio.move_on_after(0.02):
        await ctx.step("slow")
    with contextlib.suppress(StepFailed):
        await ctx.step("bad")
    results += [number async for number in numbers()]
    return seen, results


async def _plain() -> Any:
    return play(handler, 3)


async def _anyio_task() -> Any:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
        with anyio.fail_after(9):
            await anyio.lowlevel.checkpoint()
            return play(handler, 3)


async def _eager() -> Any:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return (await asyncio.gather(_plain(), _plain()))[1]


async def _callback() -> Any:
    """In a plain callback, where there is no current task."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(play(handler, 3)))
    return await done


def _uvloop() -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_plain())


def _thread() -> Any:
    box: list[Any] = []
    thread = threading.Thread(target=lambda: box.append(play(handler, 3)))
    thread.start()
    thread.join()
    return box[0]


def _nested() -> Any:
    async def outer(ctx: Context) -> Any:
        return play(handler, 3)

    return FakeRun(outer, "outer").start().result


HOSTS: dict[str, Callable[[], Any]] = {
    "asyncio": lambda: asyncio.run(_plain()),
    "asyncio in debug mode": lambda: asyncio.run(_plain(), debug=True),
    "uvloop": _uvloop,
    "a callback": lambda: asyncio.run(_callback()),
    "anyio": lambda: anyio.run(_anyio_task),
    "another thread": _thread,
    "another handler": _nested,
}
if sys.version_info >= (3, 12):
    HOSTS["asyncio with eager tasks"] = lambda: asyncio.run(_eager())


@pytest.mark.parametrize("host", HOSTS)
def test_the_host_makes_no_difference(host: str) -> None:
    bare, hosted = play(handler, 3), HOSTS[host]()
    assert hosted.closed
    assert hosted.result[0] == ["Loop", "Task", "m", "unset", 1]
    assert (hosted.history, hosted.commands) == (bare.history, bare.commands)
    assert FakeRun(handler).replay(hosted.history).commands == bare.commands


def _state() -> list[Any]:
    library = getattr(_compat.library, "name", None)
    return [asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks(), library, running()]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, SystemExit], ids=str)
def test_the_host_finds_everything_as_it_was(error: type[BaseException] | None) -> None:
    async def raising(ctx: Context) -> None:
        variable.set("inside")
        if error is not None:
            raise error

    async def main() -> None:
        variable.set("host")
        before = _state()
        ends_us = error is KeyboardInterrupt  # SystemExit ends the handler only
        with pytest.raises(KeyboardInterrupt) if ends_us else contextlib.nullcontext():
            FakeRun(raising).start()
        assert _state() == before
        assert variable.get() == "host"
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 there is one for each loop")
def test_the_host_s_current_task_is_put_aside() -> None:
    """From 3.14 the current task belongs to the thread: a handler must not see the host's."""
    seen: list[Any] = []

    async def main() -> None:
        run, mine = FakeRun(handler), asyncio.current_task()
        host = asyncio.get_running_loop()
        with run.loop.entered():
            seen.extend([asyncio.current_task(host), asyncio.current_task(run.loop)])
        assert asyncio.current_task() is mine

    asyncio.run(main())
    assert seen == [None, None]


def test_sniffio_of_the_host_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    library = threading.local()
    library.name = "trio"
    monkeypatch.setattr(_compat, "library", library)
    loop = FakeRun(handler).loop
    with loop.entered():
        assert library.name == "asyncio"
    assert library.name == "trio"


def test_many_runs_interleave_on_one_host() -> None:
    async def main() -> list[Any]:
        async def one(seed: int) -> Any:
            run = FakeRun(handler, f"r{seed}", seed).start()
            while not run.closed:
                await asyncio.sleep(0)
                number = min(run.pending)
                command = run.pending[number]
                now = command.what if command.kind == "timer" else run.loop.now
                run.feed(("fire", number, now) if command.kind == "timer" else ("done", number, number, now))
            return run.commands

        return await asyncio.gather(*[one(seed) for seed in range(20)])

    results = asyncio.run(main())
    assert all(commands == results[0] for commands in results)
