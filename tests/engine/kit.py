"""Helpers of the engine's tests: an engine in one line, waiting for a condition, looking at a history."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from refold import Engine, Handle, Settings, Workflow
from refold.events.clock import Clock
from refold.events.memory import MemoryStore
from refold.events.store import Store
from refold.events.types import Event
from refold.events.work import WorkFold

Place = str | Store
"""What `Engine` takes: given to a second engine, it is the same log."""

PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: f"sqlite:///{folder / 'runs.db'}",
}

T = TypeVar("T")
E = TypeVar("E", bound=Event)

PATIENCE_S = 20.0


def engine(
    place: Place,
    *workflows: Workflow[Any, Any],
    clock: Clock | None = None,
    execute: bool = True,
    **settings: Any,
) -> Engine:
    """An engine without read models: these tests look at the log."""
    settings.setdefault("projections", False)
    return Engine(place, workflows=workflows, clock=clock, execute=execute, settings=Settings(**settings))


async def until(condition: Callable[[], T], within_s: float = PATIENCE_S) -> T:
    """What `condition` returns as soon as that is true; a failure when it never is."""
    deadline = monotonic() + within_s
    while not (found := condition()):
        assert monotonic() < deadline, f"still not so after {within_s} s: {condition}"
        await asyncio.sleep(0.002)
    return found


def of(handle: Handle[Any], *kinds: type[E]) -> list[E]:
    """The run's events of these kinds, in order."""
    return [event for event in handle.events() if isinstance(event, kinds)]


def tags(handle: Handle[Any]) -> list[str]:
    """Tags of the run's whole history."""
    return [getattr(event, "TAG", "?") for event in handle.events()]


async def seen(handle: Handle[Any], kind: type[E], count: int = 1) -> list[E]:
    """Wait until the run's log holds so many events of a kind."""
    await until(lambda: len(of(handle, kind)) >= count)
    return of(handle, kind)


async def waiting(engine: Engine, run_id: str) -> None:
    """Wait until the run waits for a timer or a message, and nothing of it is in flight."""
    await until(lambda: (work := engine.store.work(run_id)) is not None and work.state == "waiting")
    await until(lambda: (live := engine.worker.live.get(run_id)) is None or live.idle)


def work_agrees(store: Store) -> bool:
    """Whether each run's row of `work` is what its events fold to."""
    for work, _ in store.all_work():
        fold = WorkFold(work.run_id)
        for row in store.read(work.run_id):
            fold.apply(row.event())
        assert fold.row() == work
    return True


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, seconds: float = 1_800_000_000.0) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds
