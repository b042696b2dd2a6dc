"""What is executed in storms: steps, retries, timers, children, branches, and words from outside."""

import asyncio
from typing import Any

from refold import Context, Retry, Workflow, current_step, step, workflow
from tests.crash.scene import here

STEPS = 4
"""Of a job by itself, beside those of its branches and its child."""


class Flaky(Exception):
    """The first attempt of some steps fails."""


@step(retry=Retry(max_attempts=3, initial_interval=0.02))
async def work(number: int) -> int:
    info = current_step()
    here().say("effects", info.run_id, info.key, info.attempt)
    await asyncio.sleep(0.005)
    if number % 7 == 3 and info.attempt == 1:
        raise Flaky
    return number + 1


@workflow
async def piece(ctx: Context, number: int) -> int:
    first = await work(number)
    await ctx.sleep(0.02)
    return first + await work(number + 1)


@workflow
async def job(ctx: Context, number: int) -> int:
    total = 0
    for turn in range(STEPS):
        total += await work(number + turn)
        if turn == 1:
            await ctx.sleep(0.03)
    if number % 3 == 0:
        total += await ctx.child(piece, number)
    if number % 3 == 1:
        total += sum(await asyncio.gather(work(number), work(number + 5)))
    if hears(number):
        total += await ctx.wait_for_event("word", type=int)
    return total


def hears(number: int) -> bool:
    """Whether this job waits for a word from outside."""
    return number % 4 == 2


def expected(number: int) -> int:
    """What `job` comes to, without any engine."""
    total = sum(number + turn + 1 for turn in range(STEPS))
    if number % 3 == 0:
        total += (number + 1) + (number + 2)
    if number % 3 == 1:
        total += (number + 1) + (number + 6)
    return total + (number if hears(number) else 0)


def run_id(number: int) -> str:
    return f"run-{number}"


def steps(number: int) -> int:
    """How many steps the job itself has."""
    return STEPS + 2 * (number % 3 == 1)


@step
async def rest(seconds: float) -> int:
    info = current_step()
    here().say("effects", info.run_id, info.key, info.attempt)
    await asyncio.sleep(seconds)
    return info.attempt


@workflow
async def rests(ctx: Context) -> int:
    """Long enough for others to try to take it."""
    return await rest(1.0)


ALL: list[Workflow[Any, Any]] = [job, piece, rests]
