"""The test kit, used wrongly."""

import io
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from refold import Context, step, workflow
from refold.events.memory import MemoryStore
from refold.testing import TestEngine, crash_server, durable_crash, history_files, replay_history, schedules
from refold.testing.door import Door
from tests.engine.kit import engine
from tests.errors.cases import meets


@step
async def pay() -> str:
    return "receipt"


@workflow
async def shop(ctx: Context) -> str:
    return await pay()


@workflow
async def other(ctx: Context) -> None: ...


@meets("ConfigurationError", "the engine is not open: use `async with TestEngine(…) as engine:`")
async def crash_what_is_not_open(folder: Path) -> None:
    await TestEngine(workflows=[shop]).crash()


@meets("ConfigurationError", "crash_after(…) and crash_before(…) expect …")
async def crash_at_no_event(folder: Path) -> None:
    async with TestEngine(workflows=[shop]) as e:
        e.crash_after(0)


@meets("ConfigurationError", "mock(…): expected a @step, or the name of one")
async def mock_no_step(folder: Path) -> None:
    async with TestEngine(workflows=[shop]) as e:
        e.mock(3, returns=1)  # type: ignore[arg-type]


@meets("ConfigurationError", "mock(…): expected one of …, not both")
async def mock_two_ways(folder: Path) -> None:
    async with TestEngine(workflows=[shop]) as e:
        e.mock(pay, returns="x", raises=ValueError())


@meets("ConfigurationError", "mock(…, takes=…): expected virtual seconds, 0 or more")
async def mock_backwards(folder: Path) -> None:
    async with TestEngine(workflows=[shop]) as e:
        e.mock(pay, returns="x", takes=-1)


@meets("ConfigurationError", "advance(…): expected virtual seconds, 0 or more")
async def advance_backwards(folder: Path) -> None:
    async with TestEngine(workflows=[shop]) as e:
        await e.advance(-1)


@meets("ConfigurationError", "start=…: expected an aware datetime, …")
async def begin_in_no_zone(folder: Path) -> None:
    TestEngine(workflows=[shop], start=datetime(2026, 1, 1))


async def played(*flows: Any) -> MemoryStore:
    store = MemoryStore()
    async with engine(store, *flows) as e:
        await e.run(flows[0], id="r")
    return store


@meets("ConfigurationError", "replay_history: expected a run of …, the history has runs of …")
async def replay_another_workflow(folder: Path) -> None:
    replay_history(other, await played(shop))


@meets("ConfigurationError", "run … began with version … of …, given is version …: …")
async def replay_another_version(folder: Path) -> None:
    replay_history(workflow(version="2")(shop.fn), await played(shop))


@meets("ConfigurationError", "replay_history: the history of … does not begin with …")
async def replay_half_a_history(folder: Path) -> None:
    async with engine(await played(shop), shop) as e:
        replay_history(shop, e.events("r")[2:])


@meets("ConfigurationError", "…: expected histories, found no *.jsonl; …")
def no_histories(folder: Path) -> None:
    history_files(folder)


@meets("ConfigurationError", "durable_crash(limit=…): expected 1 or more crashes")
async def no_crashes(folder: Path) -> None:
    durable_crash(shop, limit=0)


@meets("StoreError", "simulated crash: this process is dead")
def ask_a_dead_process(folder: Path) -> None:
    door = Door(MemoryStore())
    door.kill()
    door.read("r")


class Broken(io.StringIO):
    """A pipe to a process that has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def answered(answer: str) -> Any:
    """What `durable_crash(kill=True)` says when its other process answers so, or has ended."""
    server = object.__new__(crash_server.Server)
    server._cases, server._folder = 0, Path()
    server._process = SimpleNamespace(  # type: ignore[assignment]
        stdin=io.StringIO() if answer else Broken(), stdout=io.StringIO(answer)
    )
    return server.play(1, 0)


meets("ConfigurationError", "the process that imports the workflow ended; …")(lambda folder: answered(""))
meets("ConfigurationError", "the run could not be played in a process of its own:…")(
    lambda folder: answered('{"error": "ImportError: no module named shop"}\n')
)


@meets("ConfigurationError", "schedules() needs Hypothesis: pip install hypothesis")
def schedules_without_hypothesis(folder: Path) -> None:
    with mock.patch.dict("sys.modules", {"hypothesis": None}):
        schedules()
