"""Taking a handler out of memory: its frames unwind at once, nothing it does counts, nothing is left."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from refold.engine import _compat
from tests.engine.fake import Context, FakeRun, play
from tests.engine.test_loop_replay import program

variable: ContextVar[str] = ContextVar("variable")


class Held:
    """Something a handler holds."""


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_everything_is_freed_at_once_without_the_collector(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []
    held: list[Any] = []

    async def handler(ctx: Context) -> None:
        async def work(name: str) -> None:
            mine = Held()
            held.append(weakref.ref(mine))
            try:
                await ctx.step("s")
            finally:
                ended.append(name)
                await ctx.step("cleanup")
                ended.append("never")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, "anyio")
            async with asyncio.TaskGroup() as group:
                group.create_task(work("asyncio"))
                with anyio.move_on_after(60):
                    await asyncio.gather(work("gather"), asyncio.wait_for(work("wait_for"), 9))

    run = FakeRun(handler).start()
    before = list(run.commands)
    tasks = list(run.loop.tasks)
    held += [weakref.ref(task) for task in tasks] + [weakref.ref(run.loop)]
    tasks.clear()
    with no_collector():
        run.loop.evict()
        run.alive.remove(run)
        errors = run.loop.errors
        run.loop, run.pending, run.main = None, {}, None  # type: ignore[assignment]
        assert [found() for found in held] == [None] * len(held)
    assert ended == ["wait_for", "gather", "asyncio", "anyio"]
    assert run.commands == before
    assert not errors
    assert not caplog.records


def test_control_without_forgetting_anyio_keeps_evicted_tasks_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_compat, "forget", lambda task: None)

    async def handler(ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ctx.step, "s")

    run = FakeRun(handler).start()
    left = [weakref.ref(task) for task in run.loop.tasks]
    run.loop.evict()
    run.alive.remove(run)
    del run
    gc.collect()
    assert any(found() for found in left)


async def agen(ctx: Context, ended: list[str]) -> AsyncIterator[Any]:
    try:
        yield 1
        yield await ctx.step("s")
    finally:
        ended.append("generator")
        await ctx.step("cleanup")


@pytest.mark.parametrize("waiting", ["inside", "outside"])
def test_async_generators_are_unwound_too(waiting: str) -> None:
    ended: list[str] = []

    async def handler(ctx: Context) -> None:
        async for _item in agen(ctx, ended):
            if waiting == "outside":
                await ctx.step("t")

    run = FakeRun(handler).start()
    with no_collector():
        run.loop.evict()
        assert ended == ["generator"]
    assert len(run.commands) == 1


def test_a_generator_that_is_dropped_is_closed_by_the_handler_s_own_loop() -> None:
    ended: list[str] = []

    async def handler(ctx: Context) -> Any:
        async for _item in agen(ctx, ended):
            break
        await asyncio.sleep(0)
        return await ctx.step("after")

    async def host() -> Any:
        adopted: Any = asyncio.get_running_loop()
        before = len(adopted._asyncgens)
        run = FakeRun(handler).start()
        assert len(adopted._asyncgens) == before
        return [what for _, _, what, _ in run.commands]

    assert asyncio.run(host()) == ["cleanup[]", "after[]"]


def test_a_generator_left_to_the_collector_is_dropped_and_noted() -> None:
    ended: list[str] = []

    async def handler(ctx: Context) -> Any:
        generator = agen(ctx, ended)
        await anext(generator)
        cycle: list[Any] = [generator]
        cycle.append(cycle)
        del generator, cycle
        gc.collect()
        return await ctx.step("after")

    run = FakeRun(handler).start()
    assert [what for _, _, what, _ in run.commands] == ["after[]"]
    assert "aclosing" in run.loop.errors[0]["message"]


def test_cleanup_runs_in_its_own_task_and_context() -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def managed() -> AsyncIterator[None]:
        token = variable.set("inside")
        try:
            with anyio.CancelScope():
                yield
        finally:
            variable.reset(token)
            current = asyncio.current_task()
            seen.append(current and current.get_name())

    async def handler(ctx: Context) -> None:
        async with managed():
            await ctx.step("s")

    run = FakeRun(handler).start()
    run.loop.evict()
    assert seen == ["m"]
    assert not run.loop.errors


def test_an_error_in_a_cleanup_is_noted() -> None:
    async def handler(ctx: Context) -> None:
        try:
            await ctx.step("s")
        finally:
            raise LookupError("cleanup")

    run = FakeRun(handler).start()
    run.loop.evict()
    assert isinstance(run.loop.errors[0]["exception"], LookupError)
    assert run.loop.errors[0]["task"] == "m"


def test_a_handler_that_swallows_everything_does_not_hang_us() -> None:
    async def steps(ctx: Context) -> None:
        while True:
            with suppress(BaseException):
                await ctx.step("s")

    async def tasks(ctx: Context) -> None:
        while True:
            with suppress(BaseException):
                await asyncio.create_task(steps(ctx))

    for handler in (steps, tasks):
        run = FakeRun(handler).start()
        run.loop.evict()
        assert not run.loop.tasks
        assert any("swallows every exception" in error["message"] for error in run.loop.errors)


def test_tasks_left_when_the_handler_returns_are_closed_and_issue_nothing() -> None:
    ended: list[str] = []

    async def handler(ctx: Context) -> int:
        async def background() -> None:
            try:
                await ctx.step("background")
            finally:
                ended.append("finally")
                await ctx.step("never")

        asyncio.create_task(background())  # noqa: RUF006 - the point
        await asyncio.sleep(0)
        return 1

    run = FakeRun(handler).start()
    assert [kind for _, kind, _, _ in run.commands] == ["step", "end"]
    assert ended == ["finally"]
    assert not run.loop.tasks


def test_one_task_can_be_closed_and_the_others_go_on() -> None:
    async def handler(ctx: Context) -> list[Any]:
        async def child(name: str) -> str:
            await ctx.step(name)
            return name

        results = await asyncio.gather(child("a"), child("b"), return_exceptions=True)
        return [type(result).__name__ for result in results]

    run = FakeRun(handler).start()
    with run.loop.entered():
        run.loop.close_tasks([task for task in run.loop.tasks if task.path == "m.1"])
    assert not run.loop.evicting
    assert run.feed(("done", 2, None, 1.0)).result == ["CancelledError", "str"]


def test_an_evicted_handler_can_be_rebuilt_from_its_history() -> None:
    for seed in range(30):
        run = play(program(seed), seed, limit=4)
        run.loop.evict()
        again = FakeRun(program(seed)).replay(run.history)
        assert again.commands == run.commands
