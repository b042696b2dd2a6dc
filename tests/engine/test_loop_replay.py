"""A history replays to the same commands and the same result: in this process, in others, on other sets."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from refold.engine import _compat
from refold.engine.loop import Future, Loop, Task
from tests.engine import programs
from tests.engine.fake import Context, FakeRun, StepFailed, play

ROOT = Path(__file__).parents[2]


def program(seed: int) -> Any:
    return programs.handler(programs.generate(random.Random(seed)), StepFailed)


def differs(seed: int, every: int) -> bool:
    """Play a random program, crash it after every so many events, replay: is anything different?"""
    run = play(program(seed), seed, cancel=0.1 if seed % 3 == 0 else 0.0)
    try:
        for crash in range(1, len(run.history) + 1, every):
            again = FakeRun(program(seed)).replay(run.history[:crash]).replay(run.history[crash:])
            if again.commands != run.commands:
                return True
        return False
    finally:
        FakeRun.evict_all()


@pytest.mark.parametrize("block", range(10))
def test_random_programs_replay_to_the_same_commands_and_result(block: int) -> None:
    assert not [seed for seed in range(block * 40, block * 40 + 40) if differs(seed, every=7)]


@pytest.fixture
def by_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks and futures hashed by address, as asyncio's are."""
    noise = [object() for _ in range(1000)]
    monkeypatch.setattr(Task, "__hash__", object.__hash__)
    monkeypatch.setattr(Future, "__hash__", object.__hash__)
    yield
    del noise


def test_control_tasks_hashed_by_address_do_not_replay(by_address: None) -> None:
    assert any(differs(seed, every=50) for seed in range(400))


def test_control_sets_of_a_stock_cancel_scope_do_not_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "__hash__", object.__hash__)  # anyio's set of scopes alone differs too rarely
    monkeypatch.setattr(_compat, "OrderedSet", set)
    assert any(differs(seed, every=50) for seed in range(400))


SETS = """
import asyncio, sys
junk = [object() for _ in range(int(sys.argv[1]))]
import anyio
from tests.engine.fake import FakeRun, play
async def leaf(ctx, i): return await ctx.step("s", i)
async def handler(ctx):
    names = [t.get_name() for t in {asyncio.create_task(leaf(ctx, i)) for i in range(20)}]
    names += [t.get_name() for t in asyncio.all_tasks()]
    gathers = [asyncio.gather(leaf(ctx, 100 + i), leaf(ctx, 200 + i)) for i in range(20)]
    done, _ = await asyncio.wait(gathers)
    for gather in done:
        names.append(gather.result()[0])
    more = [object() for _ in range(int(sys.argv[1]))]
    for first in asyncio.as_completed([leaf(ctx, 300 + i) for i in range(30)]):
        names.append(await first)
    with anyio.move_on_after(5):
        async with anyio.create_task_group() as group:
            for i in range(20):
                group.start_soon(stubborn, ctx, i)
    return names
async def stubborn(ctx, i):
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.step("end", i)
run = play(handler, 5)
assert run.closed
print(run.commands)
"""


def test_other_processes_and_hash_seeds_issue_the_same_commands() -> None:
    outputs = set()
    for number in range(4):
        done = subprocess.run(
            [sys.executable, "-c", SETS, str(number * 37)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(ROOT)},
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


async def kitchen(ctx: Context) -> Any:
    """Everything a handler may wait with, once."""
    out: list[Any] = []

    async def work(name: str, times: int) -> list[Any]:
        results = [await ctx.step(name, i) for i in range(times)]
        out.append(name)
        return results

    out.append(await asyncio.gather(work("a", 2), work("b", 3)))
    barrier, semaphore, condition = asyncio.Barrier(3), asyncio.Semaphore(1), asyncio.Condition()

    async def meet(i: int) -> None:
        async with semaphore:
            out.append(await ctx.step("meet", i))
        await barrier.wait()
        async with condition:
            condition.notify_all()

    async with asyncio.TaskGroup() as group:
        for i in range(3):
            group.create_task(meet(i))
    async with anyio.Lock(), anyio.Semaphore(1):
        out.append(await ctx.step("locked"))

    async def starting(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
        task_status.started(await ctx.step("starting"))
        await anyio.sleep(3)

    async with anyio.create_task_group() as tasks:
        out.append(await tasks.start(starting))
    queue: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
    for i in (3, 1, 2):
        queue.put_nowait(i)
    out.append([await queue.get() for _ in range(3)])
    try:
        async with asyncio.timeout(10) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + 1)
            await ctx.step("never")
    except TimeoutError:
        out.append("late")
    return out


@pytest.mark.parametrize("seed", range(20))
def test_every_primitive_replays(seed: int) -> None:
    run = play(kitchen, seed)
    assert run.closed
    assert FakeRun(kitchen).replay(run.history).commands == run.commands
    assert Loop.MAX_CALLBACKS == 200_000
    assert run.result


async def order(ctx: Context) -> list[int]:
    out: list[int] = []

    async def work(i: int) -> None:
        await ctx.step("s", i)
        out.append(i)

    await asyncio.gather(*[work(i) for i in range(4)])
    return out


@pytest.mark.parametrize("numbers", [[4, 2, 1, 3], [1, 2, 3, 4]])
def test_results_arrive_in_the_order_of_the_log(numbers: list[int]) -> None:
    run = FakeRun(order).start()
    for number in numbers:
        run.feed(("done", number, None, 1.0))
    assert run.result == [number - 1 for number in numbers]
