"""Random trees of runs under random acts, restarts and evictions: nobody is forgotten, told twice or left."""

import asyncio
import contextlib
import random
from typing import Any

import pytest

from refold import ActRefused, ChildFailed, Context, RunEnded, WaitTimeout, step, workflow
from refold.events import types as t
from refold.events.store import Store
from tests.engine.kit import HandClock, Place, engine, until, work_agrees

pytestmark = pytest.mark.anyio

Plan = list[Any]
LEAVES = ("nap", "wait", "gate", "fail", "continue")
BELOW = ("child", "child", "timeout", "detached")
VERBS = ("cancel", "terminate", "signal", "signal", "approve", "evict", "pause", "resume")
DEPTH = 3


@step
async def nap() -> None:
    await asyncio.sleep(0)


@workflow(recursive=True)
async def node(ctx: Context, plan: Plan, again: bool = True) -> str:
    for part in plan:
        if part[0] == "group":
            async with asyncio.TaskGroup() as group:
                for one in part[1]:
                    group.create_task(do(ctx, one, plan, again))
        elif part[0] == "loose":
            loose = [asyncio.ensure_future(do(ctx, one, plan, again)) for one in part[1]]
            await asyncio.sleep(0)
            assert len(loose) == len(part[1])
        else:
            await do(ctx, part, plan, again)
    return ctx.run_id


async def do(ctx: Context, part: Plan, plan: Plan, again: bool) -> None:
    """One part of a plan: its kind, what is below, its time."""
    kind, below, seconds = part
    with contextlib.suppress(TimeoutError, WaitTimeout, ChildFailed):
        async with asyncio.timeout(seconds if kind == "timeout" else None):
            if kind in ("child", "timeout"):
                await ctx.child(node, below)
            elif kind == "detached":
                await ctx.child(node, below, wait=False)
            elif kind == "nap":
                await nap()
            elif kind == "wait":
                await ctx.wait_for_event("x", timeout=seconds)
            elif kind == "gate":
                await ctx.approval("?", timeout=seconds, on_timeout="continue")
            elif kind == "fail":
                raise ValueError("as planned")
            elif again:
                ctx.continue_as_new(plan, False)


def make(rng: random.Random, depth: int = 0) -> Plan:
    """A random plan."""
    return [make_part(rng, depth, many=True) for _ in range(rng.randint(1, 3))]


def make_part(rng: random.Random, depth: int, *, many: bool = False) -> Plan:
    kinds = [*LEAVES, *(BELOW * 2 if depth < DEPTH else ()), *(("group", "loose") if many else ())]
    kind = rng.choice(kinds)
    if kind in ("group", "loose"):
        return [kind, [make_part(rng, depth) for _ in range(rng.randint(2, 3))]]
    return [kind, make(rng, depth + 1) if kind in BELOW else [], rng.randint(1, 30)]


def going_on(store: Store) -> list[str]:
    return [work.run_id for work, _ in store.all_work() if work.state != "done"]


async def act(e: Any, rng: random.Random, clock: HandClock) -> None:
    """Let a little happen, then do something to a run that goes on."""
    clock.move(rng.random() * 5)
    for _ in range(rng.randint(0, 20)):
        await asyncio.sleep(0)
    runs = going_on(e.store)
    if not runs:
        return
    run_id, verb = rng.choice(runs), rng.choice(VERBS)
    with contextlib.suppress(ActRefused, RunEnded):  # not possible as the run stands
        if verb == "evict":
            e.worker.evict(run_id)
        elif verb == "signal":
            await e.signal(run_id, "x")
        elif verb == "approve":
            await e.approve(run_id, by=f"person {rng.random()}")
        else:
            await getattr(e, verb)(run_id)


def check(e: Any) -> None:
    """What must be true of every run once all have ended."""
    for work, _ in e.store.all_work():
        events = e.events(work.run_id)
        if any(isinstance(event, t.RunRewound) for event in events):  # `resume` of one that failed: a retry
            continue
        started = [event for event in events if isinstance(event, t.ChildStarted)]
        told = [event.child for event in events if isinstance(event, t.ChildEnded)]
        given_up = {event.child for event in events if isinstance(event, t.ChildCancelled)}
        assert sum(isinstance(event, t.ENDS) for event in events) == 1
        assert len({event.run_id for event in started}) == len(started)
        assert len(set(told)) == len(told), "each end is told once"
        for event in started:
            assert e.store.work(event.run_id) is not None
            if not event.detached and work.status in ("completed", "failed"):
                assert event.child in given_up or event.child in told, "nobody is forgotten"


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_to_a_family_all_of_it_comes_to_an_end(seed: int, place: Place) -> None:
    rng, clock = random.Random(seed), HandClock()
    settings: dict[str, Any] = {
        "grace": 0,
        "max_active": rng.choice([2, 1_000]),
        "memory_bytes": rng.choice([0, 1 << 26]),
    }
    plan = make(rng)
    for _ in range(4):
        async with engine(place, node, clock=clock, **settings) as e:
            await e.start(node, plan, id="r")
            for _ in range(rng.randint(0, 12)):
                await act(e, rng, clock)
    async with engine(place, node, clock=clock, **settings) as e:
        for run_id in going_on(e.store):
            with contextlib.suppress(ActRefused, RunEnded):  # not paused, or over by now
                await e.resume(run_id)

        def all_over() -> bool:
            clock.move(10)
            return not going_on(e.store)

        await until(all_over)
        assert e.worker.blocked == {}
        assert work_agrees(e.store)
        assert e.verify().problems == ()
        check(e)
