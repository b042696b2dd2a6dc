"""A graceful shutdown costs a run nothing: no new step begins, nothing is marked failed, it all goes on."""

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from refold import (
    ConfigurationError,
    Context,
    Engine,
    Retry,
    Settings,
    Workflow,
    current_step,
    step,
    workflow,
)
from refold.engine.handle import Handle
from refold.events import types as t

began: Counter[str] = Counter()
keys: set[str] = set()
gates: dict[str, asyncio.Event] = {}
busy = threading.Event()


def begin() -> None:
    info = current_step()
    began[info.key] += 1
    keys.add(info.idempotency_key)


@step
async def gated(name: str) -> str:
    begin()
    gates["begun"].set()
    await gates[name].wait()
    return name


@step
async def quick(number: int) -> int:
    begin()
    return number


@step
def in_thread() -> str:
    begin()
    busy.wait(20)
    return "done"


@step(retry=Retry(max_attempts=2, initial_interval=0.2, jitter=0.0))
async def failing_once() -> int:
    begin()
    if began["failing_once#1"] == 1:
        gates["begun"].set()
        raise ConnectionError
    return 3


@workflow
async def two_steps(ctx: Context) -> list[object]:
    return [await gated("gate"), await quick(1)]


@workflow
async def one_quick(ctx: Context) -> int:
    return await quick(7)


@workflow
async def threaded(ctx: Context) -> str:
    return await in_thread()


@workflow
async def patient(ctx: Context) -> list[object]:
    number = await failing_once()
    await asyncio.sleep(0.05)
    return [number, await ctx.wait_for_event("go", timeout=60)]


FLOWS: list[Workflow[Any, Any]] = [two_steps, one_quick, threaded, patient]


def engine(folder: Path, grace: float) -> Engine:
    for name in ("begun", "gate"):
        gates[name] = asyncio.Event()
    return Engine(folder / "log.db", workflows=FLOWS, settings=Settings(grace=grace, projections=False))


async def end_of(e: Engine) -> Any:
    return await (await e.get("r")).result(timeout=20)


def tags(handle: Handle[Any]) -> list[str]:
    return [type(event).TAG for event in handle.events() if isinstance(event, t.Event)]


def calm(folder: Path) -> None:
    """Nothing of the run says that it failed."""
    with_failures = {"step.failed", "step.attempt_failed", "run.failed", "run.cancelled", "run.attention"}

    async def look() -> set[str]:
        async with Engine(folder / "log.db", execute=False) as client:
            return set(tags(await client.get("r")))

    assert not with_failures & asyncio.run(look())


def fresh() -> None:
    began.clear()
    keys.clear()
    busy.clear()


def test_a_step_that_ends_within_the_grace_is_kept_and_none_begins_after_it(tmp_path: Path) -> None:
    fresh()

    async def first() -> list[str]:
        async with engine(tmp_path, grace=30) as e:
            handle = await e.start(two_steps, id="r")
            await gates["begun"].wait()
            closing = asyncio.create_task(e.close())
            await asyncio.sleep(0)
            gates["gate"].set()
            await closing
        async with Engine(tmp_path / "log.db", execute=False) as client:
            return tags(await client.get(handle.id))

    async def second() -> Any:
        async with engine(tmp_path, grace=0) as e:
            return await end_of(e)

    assert asyncio.run(first())[-2:] == ["step.completed", "step.scheduled"]
    assert began == {"gated#1": 1}
    calm(tmp_path)
    assert asyncio.run(second()) == ["gate", 1]
    assert began == {"gated#1": 1, "quick#1": 1}


def test_a_step_that_does_not_is_interrupted_and_begun_again_under_its_key(tmp_path: Path) -> None:
    fresh()

    async def first() -> t.Event:
        async with engine(tmp_path, grace=0) as e:
            await e.start(two_steps, id="r")
            await gates["begun"].wait()
        async with Engine(tmp_path / "log.db", execute=False) as client:
            return next(x for x in (await client.get("r")).events() if isinstance(x, t.StepInterrupted))

    async def second() -> Any:
        async with engine(tmp_path, grace=0) as e:
            gates["gate"].set()
            return await end_of(e)

    interrupted = asyncio.run(first())
    assert isinstance(interrupted, t.StepInterrupted)
    assert interrupted.reason == "shutdown"
    calm(tmp_path)
    assert asyncio.run(second()) == ["gate", 1]
    assert began == {"gated#1": 2, "quick#1": 1}
    assert keys == {"r/gated#1", "r/quick#1"}
    calm(tmp_path)


def test_a_body_that_has_not_begun_is_released(tmp_path: Path) -> None:
    fresh()

    async def first() -> list[str]:
        async with engine(tmp_path, grace=30) as e:
            starting = asyncio.create_task(e.start(one_quick, id="r"))
            await asyncio.sleep(0)  # its append, with the intent, is in the queue; its commit comes after us
            await e.close()
            await starting
        async with Engine(tmp_path / "log.db", execute=False) as client:
            return tags(await client.get("r"))

    async def second() -> Any:
        async with engine(tmp_path, grace=0) as e:
            return await end_of(e)

    assert asyncio.run(first())[-2:] == ["step.started", "step.released"]
    assert began == {}
    assert asyncio.run(second()) == 7
    assert began == {"quick#1": 1}
    calm(tmp_path)


def test_a_thread_that_does_not_end_holds_up_nothing(tmp_path: Path) -> None:
    fresh()

    async def first() -> None:
        async with engine(tmp_path, grace=0) as e:
            await e.start(threaded, id="r")
            while not began:  # noqa: ASYNC110 - a thread begins it
                await asyncio.sleep(0.001)

    async def second() -> Any:
        async with engine(tmp_path, grace=0) as e:
            busy.set()
            return await end_of(e)

    asyncio.run(first())
    assert not busy.is_set()
    calm(tmp_path)
    assert asyncio.run(second()) == "done"
    assert began == {"in_thread#1": 2}


def test_pauses_sleeps_and_waits_outlive_a_shutdown_at_each_of_them(tmp_path: Path) -> None:
    fresh()

    async def until_begun() -> None:
        async with engine(tmp_path, grace=0) as e:
            await e.start(patient, id="r")
            await gates["begun"].wait()

    async def for_a_moment() -> bool:
        async with engine(tmp_path, grace=0) as e:
            handle = await e.get("r")
            with suppress(TimeoutError):
                await handle.result(timeout=0.03)
            return "wait.opened" in tags(handle)

    async def to_the_end() -> Any:
        async with engine(tmp_path, grace=0) as e:
            handle = await e.get("r")
            await handle.signal("go", "now")
            return await end_of(e)

    asyncio.run(until_begun())
    for _ in range(200):
        if asyncio.run(for_a_moment()):
            break
    assert asyncio.run(to_the_end()) == [3, "now"]
    assert began == {"failing_once#1": 2}


def test_whoever_waits_for_a_result_is_told_of_the_shutdown(tmp_path: Path) -> None:
    fresh()

    async def main() -> None:
        async with engine(tmp_path, grace=0) as e:
            handle = await e.start(two_steps, id="r")
            waiting = asyncio.create_task(handle.result())
            await gates["begun"].wait()
            await asyncio.sleep(0)
            await e.close()
            with pytest.raises(ConfigurationError, match="closed before run r ended"):
                await waiting

    asyncio.run(main())
