"""A run can leave memory at any point and come back: same history, and nothing is left to the collector."""

import asyncio
import gc
import random
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from refold import Context, Engine, step, workflow
from refold.engine.loop import Loop
from refold.engine.run import Run
from refold.engine.settings import Settings
from refold.events import types as t
from refold.events.memory import MemoryStore

from .play import History, check, play
from .programs import Machine, generate, program
from .workflows import HANDWRITTEN

SEEDS = range(60)


def histories() -> Iterator[tuple[Any, History]]:
    for seed in SEEDS:
        rng = random.Random(seed)
        yield program, play(program, [generate(rng)], rng, 0.0)
    for workflow_, args in HANDWRITTEN.values():
        yield workflow_, play(workflow_, args, random.Random(7), 0.0)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python could not raise: coroutines that ignored their end, generators left to the collector."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


def test_evicted_anywhere_it_goes_on_as_if_nothing_had_been(unraisable: list[Any]) -> None:
    replays = 0
    for workflow_, history in histories():
        length = len(history.activations())
        replays += check(workflow_, history, range(1, length + 1, max(1, length // 8)))
    gc.collect()
    assert replays > 200
    assert not unraisable


def suspended(workflow_: Any, history: History) -> Run:
    """The run as it stood in the middle of its history."""
    whole = history.activations()
    started = whole[0].cause
    assert isinstance(started, t.RunStarted)
    run = Run(workflow_, history.run_id, started)
    run.replay(whole[: max(1, len(whole) // 2)])
    return run


def test_eviction_closes_every_frame_and_nothing_stays_behind(
    unraisable: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machines: list[weakref.ref[Machine]] = []
    init = Machine.__init__

    def remembered(machine: Machine, ctx: Context) -> None:
        machines.append(weakref.ref(machine))
        init(machine, ctx)

    monkeypatch.setattr(Machine, "__init__", remembered)
    loops: list[weakref.ref[Loop]] = []
    for workflow_, history in histories():
        run = suspended(workflow_, history)
        loops.append(weakref.ref(run.loop))
        coroutines: list[Any] = [task.get_coro() for task in run.loop.tasks]
        run.evict()
        assert not [coroutine for coroutine in coroutines if coroutine.cr_frame is not None], history.run_id
        del run, coroutines
    gc.collect()
    assert not [loop for loop in loops if loop() is not None]
    assert not [machine for machine in machines if machine() is not None]
    assert not unraisable


def test_control_a_run_that_is_only_dropped_complains(unraisable: list[Any]) -> None:
    gc.collect()
    for workflow_, history in histories():
        run = suspended(workflow_, history)
        del run
    gc.collect()
    assert unraisable


# ---- in an engine: least recently used first, by bytes


@step
async def price(number: int) -> int:
    return number


@workflow
async def waits(ctx: Context, steps: int) -> list[Any]:
    out: list[Any] = [await price(number) for number in range(steps)]
    out.append(await ctx.wait_for_event("go"))
    out.append(await price(steps))
    return out


async def settle(engine: Engine, count: int) -> None:
    while sum(event.tag == "wait.opened" for event in engine.store.scan()) < count:  # noqa: ASYNC110 - nobody announces what is in the log
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def a_crowd(budget: int, steps: list[int]) -> tuple[list[str], list[list[Any]]]:
    """Start a run for each number of steps; returns which of them stayed in memory, and all results."""
    options = Settings(memory_bytes=budget, projections=False)
    async with Engine(MemoryStore(), workflows=[waits], settings=options) as engine:
        handles = []
        for number, count in enumerate(steps):
            handles.append(await engine.start(waits, count, id=f"run-{number}"))
            await settle(engine, number + 1)
        here = sorted(engine.worker.live)
        for handle in handles:
            await handle.signal("go", handle.id)
        return here, [await handle.result(30) for handle in handles]


def test_without_need_nobody_leaves() -> None:
    here, results = asyncio.run(a_crowd(10_000_000, [1, 1, 1]))
    assert here == ["run-0", "run-1", "run-2"]
    assert results == [[0, f"run-{number}", 1] for number in range(3)]


def test_the_shortest_history_of_those_who_wait_longest_leaves_first_and_comes_back() -> None:
    steps = [5, 5, 1, 5, 5, 5]
    here, results = asyncio.run(a_crowd(50_000, steps))
    assert 0 < len(here) < len(steps)
    assert "run-2" not in here
    assert "run-5" in here
    assert results == [[*range(count), f"run-{number}", count] for number, count in enumerate(steps)]


def test_with_no_memory_at_all_every_run_leaves_and_comes_back() -> None:
    here, results = asyncio.run(a_crowd(0, [2, 2, 2]))
    assert here == []
    assert results == [[0, 1, f"run-{number}", 2] for number in range(3)]
