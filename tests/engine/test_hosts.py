"""The engine's hosts: asyncio and uvloop, in the main thread or another."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from refold import Context, WaitTimeout, step, workflow
from tests.engine.kit import Place, engine, until


@step
async def asynchronous(x: int) -> int:
    await asyncio.sleep(0.001)
    return x


@step
def in_a_thread(x: int) -> int:
    return x


@workflow
async def everything(ctx: Context) -> list[Any]:
    out: list[Any] = list(await asyncio.gather(asynchronous(1), in_a_thread(2), asynchronous(3)))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0.01, "slept"))
    out.append(task.result())
    try:
        await ctx.wait_for_event("never", timeout=0.01)
    except WaitTimeout:
        out.append("timeout")
    out.append(await ctx.wait_for_event("go"))
    return out


async def program(place: Place) -> None:
    async with engine(place, everything, memory_bytes=0, grace=0) as e:
        await asyncio.gather(*[e.start(everything, id=f"r{n}") for n in range(10)])
    async with engine(place, everything) as e:
        handles = [await e.get(f"r{n}") for n in range(10)]
        for handle in handles:
            await handle.signal("go", handle.id)
        results = await asyncio.gather(*[handle.result() for handle in handles])
        assert results == [[1, 2, 3, "slept", "timeout", f"r{n}"] for n in range(10)]
        await until(lambda: not e.worker.live)


Runner = Callable[[Coroutine[Any, Any, None]], None]


def _uvloop(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        main.close()
        pytest.skip("LOUD: uvloop is not installed")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _debug(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main, debug=True)


def _another_thread(main: Coroutine[Any, Any, None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main)
        except BaseException as error:  # handed to the test
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors, errors


HOSTS: dict[str, Runner] = {
    "asyncio": asyncio.run,
    "debug": _debug,
    "uvloop": _uvloop,
    "another thread": _another_thread,
}


@pytest.mark.parametrize("host", HOSTS)
def test_the_same_program_runs_on_every_host(host: str, place: Place) -> None:
    HOSTS[host](program(place))
