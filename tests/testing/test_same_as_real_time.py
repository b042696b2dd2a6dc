"""Random workflows give the same events in virtual time as an engine without the kit gives in real time.

"Real" is the host loop of tests/protocol/simulation.py: a plain `Engine` with its own timers on a loop that
never sleeps. A machine's clock would make the comparison a matter of luck.
"""

import asyncio
import contextlib
import random
from datetime import datetime
from typing import Any

import msgspec
from hypothesis import example, given, settings, strategies as st

from refold import Context, Engine, GateRejected, Retry, RunFailed, Settings, StepFailed, step, workflow
from refold.errors import WaitTimeout
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.registry import encode_event
from refold.testing import TestEngine
from tests.protocol.simulation import EPOCH, SimClock, simulated

Node = list[Any]


@step(retry=Retry(max_attempts=2, initial_interval=3.0, jitter=0), timeout=40.0)
async def work(seconds: float, fails: int) -> float:
    raise AssertionError("each engine has its own body for it")


class Failed(Exception):
    """What a body raises when it is to."""


async def run_node(ctx: Context, node: Node) -> Any:
    kind, seconds, *rest = node
    try:
        match kind:
            case "sleep":
                await ctx.sleep(seconds)
            case "work":
                return await work(seconds, rest[0])
            case "wait":
                return await ctx.wait_for_event("news", timeout=seconds)
            case "ask":
                return (await ctx.approval("?", timeout=seconds, on_timeout="continue")).outcome
            case "within":
                async with asyncio.timeout(seconds):
                    return await run_node(ctx, rest[0])
            case "all":
                return await asyncio.gather(*(run_node(ctx, child) for child in rest))
            case "one by one":
                return [await run_node(ctx, child) for child in rest]
    except (TimeoutError, WaitTimeout, StepFailed, GateRejected) as error:
        return type(error).__name__
    return kind


@workflow
async def program(ctx: Context, tree: Node) -> Any:
    return await run_node(ctx, tree)


def grow(rng: random.Random, leaves: list[int], depth: int = 0) -> Node:
    """A tree of up to nine leaves whose sums of durations all differ: ties have no order to compare."""
    leaves[0] += 1
    seconds = rng.randint(1, 38) + 3.0 ** -leaves[0]
    if depth < 3 and leaves[0] < 9:
        kind = rng.choice(["all", "all", "one by one", "within", "sleep", "work", "work", "wait", "ask"])
        if kind == "within":
            return [kind, seconds, grow(rng, leaves, depth + 1)]
        if kind in ("all", "one by one"):
            return [
                kind,
                0,
                *(grow(rng, leaves, depth + 1) for _ in range(rng.randint(2, 3)) if leaves[0] < 9),
            ]
    kind = rng.choice(["sleep", "work", "wait", "ask"])
    return [kind, seconds, rng.choice([0, 0, 1, 2])] if kind == "work" else [kind, seconds]


def body(sleep: Any) -> Any:
    """A body that takes its time on the clock that it is given, and fails as often as it is told."""
    tries: dict[float, int] = {}

    async def do(seconds: float, fails: int) -> float:
        await sleep(seconds)
        tries[seconds] = tries.get(seconds, 0) + 1
        if tries[seconds] <= fails:
            raise Failed
        return seconds

    return do


NEWS_AT = (7.7, 31.3)


async def tell(engine: Engine, sleep: Any) -> None:
    """Somebody outside who sends news, and votes."""
    before = 0.0
    for at in NEWS_AT:
        await sleep(at - before)
        before = at
        if not isinstance(engine.events("run")[-1], t.ENDS):
            await engine.signal("run", "news", at)


def in_virtual_time(tree: Node) -> list[Any]:
    async def main() -> list[Any]:
        async with TestEngine(workflows=[program]) as engine:
            engine.mock(work, side_effect=body(engine.sleep))
            handle = await engine.start(program, tree, id="run")
            telling = asyncio.ensure_future(tell(engine, engine.sleep))
            await finished(handle)
            await telling
            return told(engine.events("run"), engine.events("run")[0].at)  # type: ignore[union-attr]

    return asyncio.run(main())


def in_real_time(tree: Node) -> list[Any]:
    async def main(engine: Engine) -> list[Any]:
        async with engine:
            handle = await engine.start(program, tree, id="run")
            telling = asyncio.ensure_future(tell(engine, asyncio.sleep))
            await finished(handle)
            await telling
            return told(engine.events("run"), datetime.fromtimestamp(EPOCH).astimezone())

    real = work.fn
    work.fn = body(asyncio.sleep)
    try:
        with simulated() as loop:
            quiet = Settings(projections=False)
            engine = Engine(MemoryStore(), workflows=[program], clock=SimClock(loop, 0.0), settings=quiet)
            task = loop.spawn("p", main(engine))
            found: list[Any] = loop.run_until_complete(task)
            return found
    finally:
        work.fn = real


async def finished(handle: Any) -> None:
    with contextlib.suppress(RunFailed):
        await handle.result()


UNLIKE = {"id", "cause", "trace", "owner", "seed", "runtime", "token", "due_at", "retry_at", "at", "site"}


def told(events: Any, since: datetime) -> list[Any]:
    """The events without what two runs never have in common, their times counted from the start."""
    found = []
    for event in events:
        plain = msgspec.json.decode(encode_event(event))
        fields = {name: value for name, value in plain.items() if name not in UNLIKE}
        fields.pop("error", None)
        found.append([event.TAG, round((event.at - since).total_seconds(), 3), fields])
    return found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
@example(seed=1)
def test_random_programs_have_the_same_history(seed: int) -> None:
    tree = grow(random.Random(seed), [0])
    assert in_virtual_time(tree) == in_real_time(tree)


def test_control_another_duration_is_another_history() -> None:
    tree = ["all", 0, ["work", 30.0, 1], ["sleep", 50.0], ["wait", 20.0]]
    other = ["all", 0, ["work", 30.0, 1], ["sleep", 90.0], ["wait", 20.0]]
    assert in_virtual_time(tree) != in_real_time(other)
