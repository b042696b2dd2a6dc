"""Random sagas, stopped at random moments: what was done is undone once, in reverse, and the end is true."""

import asyncio
import random
from typing import Any

import pytest
from msgspec import Struct

from refold import Context, Engine, Handle, step, workflow
from refold.engine import compensation
from refold.events import types as t
from refold.events.memory import MemoryStore
from tests.engine.kit import engine, of, until, work_agrees

pytestmark = pytest.mark.anyio

SEEDS = range(40)
undos: dict[str, int] = {}
"""How often each undo was called."""


class Plan(Struct):
    """A random saga. Each inner list runs in parallel."""

    stages: list[list[str]]
    registered: list[str]
    """Undos that the handler registers by itself, before the stage of that place."""
    fails_at: int
    """Stage after which the handler raises; beyond the last: it does not."""
    broken: list[str]
    """Undos that fail at the first call."""
    stops: list[int]
    """Lengths of the log at which the engine is stopped."""
    seed: int


def plan_of(seed: int) -> Plan:
    rng = random.Random(seed)
    count = rng.randint(1, 4)
    names = iter(f"s{number}" for number in range(99))
    stages = [[next(names) for _ in range(rng.randint(1, 4))] for _ in range(count)]
    registered = [f"r{place}" if rng.random() < 0.4 else "" for place in range(count)]
    everything = [name for stage in stages for name in stage] + [name for name in registered if name]
    broken = [name for name in everything if rng.random() < 0.2]
    stops = sorted(rng.randint(3, 60) for _ in range(rng.randint(0, 4)))
    return Plan(stages, registered, rng.randint(0, count), broken, stops, seed)


@step
async def undo(name: str, broken: bool) -> None:
    undos[name] = undos.get(name, 0) + 1
    await asyncio.sleep(0)
    if broken and undos[name] == 1:
        raise RuntimeError("not now")


@step(compensate=undo)
async def do(name: str, broken: bool) -> str:
    await asyncio.sleep(random.Random(name).random() / 1_000)  # parallel ones end in another order
    return name


@step
async def last_words(status: str) -> None:
    pass


async def always(ctx: Context, status: str) -> None:
    await last_words(status)


@workflow(always=always)
async def saga(ctx: Context, plan: Plan) -> str:
    for place, stage in enumerate(plan.stages):
        if name := plan.registered[place]:
            ctx.compensate(undo, name, name in plan.broken)
        await asyncio.gather(*[do(name, name in plan.broken) for name in stage])
        if place == plan.fails_at:
            raise ValueError("enough")
    return "done"


async def executed(plan: Plan) -> tuple[MemoryStore, list[Any]]:
    """Run it to its end in as many engines as it takes, then undo by hand what is left; its events."""
    store = MemoryStore()
    for stop in plan.stops:
        async with engine(store, saga, grace=0) as e:
            handle = await e.start(saga, plan, id="r")
            await until(lambda handle=handle, stop=stop: over(handle) or len(handle.events()) >= stop)  # type: ignore[misc]
    async with engine(store, saga) as e:
        handle = await e.start(saga, plan, id="r")
        await until(lambda: over(handle))
        if not isinstance(over(handle), t.RunCompensated):
            await by_hand(e, handle)
        assert work_agrees(store)
        assert e.verify("r").problems == ()
        return store, list(handle.events())


def over(handle: Handle[Any]) -> Any:
    ends, reopened = of(handle, *t.ENDS), of(handle, t.RunReopened)
    return ends[-1] if len(ends) > len(reopened) else None


async def by_hand(e: Engine, handle: Handle[Any]) -> None:
    if isinstance(over(handle), t.RunCompensationFailed):
        await e.retry("r")
    else:
        await e.compensate("r")
    await until(lambda: over(handle))
    if not isinstance(over(handle), t.RunCompensated):
        await e.retry("r")
        await until(lambda: over(handle))


def faults(plan: Plan, events: list[Any]) -> list[str]:
    """What is wrong with this history; empty: nothing."""
    found: list[str] = []
    keys = {event.step: event for event in events if isinstance(event, t.StepScheduled)}
    done: list[str] = []
    undone: list[str] = []
    for event in events:
        if isinstance(event, t.StepCompleted) and keys[event.step].compensate:
            done.append(keys[event.step].key)
        elif isinstance(event, t.CompensationRegistered):
            done.append(event.key)
        elif isinstance(event, t.CompensationStarted):
            expected = tuple(key for key in reversed(done) if key not in undone)
            if event.steps != expected:
                found.append(f"to undo are {expected}, it undoes {event.steps}")
        elif isinstance(event, t.StepScheduled) and event.undoes in undone:
            found.append(f"{event.undoes} is undone again")
        elif isinstance(event, t.StepCompensated):
            undone.append(event.key)
        elif isinstance(event, t.RunCompensated) and sorted(undone) != sorted(done):
            found.append(f"it says that it is compensated, and of {done} only {undone} is undone")
        elif isinstance(event, t.RunCompensationFailed) and set(event.failed) | set(undone) != set(done):
            found.append(f"it says that {event.failed} are not undone; undone are {undone}")
    last = [event for event in events if isinstance(event, t.ENDS)][-1]
    if not isinstance(last, t.RunCompensated):
        found.append(f"it ended with {last.TAG}")
    statuses = [e.TAG.removeprefix("run.") for e in events if isinstance(e, t.ENDS)]
    words = [bytes(e.args).decode()[2:-2] for e in keys.values() if e.name == "last_words"]
    if words != statuses:
        found.append(f"`always` heard {words}, the run ended {statuses}")
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_sagas_end_as_they_say(seed: int) -> None:
    """D10, D11, A35."""
    undos.clear()
    plan = plan_of(seed)
    _, events = await executed(plan)
    assert faults(plan, events) == []


async def test_control_a_stack_in_the_wrong_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensation, "left", lambda run: [undo for undo in run.undos if not undo.done])
    found = []
    for seed in range(5):
        undos.clear()
        plan = plan_of(seed)
        found += faults(plan, (await executed(plan))[1])
    assert any("it undoes" in fault for fault in found)


async def test_control_an_undo_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = compensation.left
    monkeypatch.setattr(compensation, "left", lambda run: right(run)[1:])
    plan = plan_of(1)
    undos.clear()
    assert faults(plan, (await executed(plan))[1])
