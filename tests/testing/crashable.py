"""Workflows to crash: durable ones, and ones that break a rule each."""

import asyncio
from pathlib import Path
from typing import Any

from refold import Context, Retry, current_step, step, workflow
from refold.testing import TestEngine

STATE = {"calls": 0}
"""What a workflow should not keep."""


@step
async def reserve(item: str) -> str:
    """Idempotent: however often it runs for one key, there is one reservation."""
    Path("reservations").mkdir(exist_ok=True)  # noqa: ASYNC240 - a small file
    file = Path("reservations", current_step().idempotency_key.replace("/", "_"))
    file.write_text(item)  # noqa: ASYNC240 - the same
    return f"reserved {item}"


@step(retry=Retry(max_attempts=2, initial_interval=30.0))
async def notify(number: int) -> int:
    return number * 2


@workflow
async def below(ctx: Context, number: int) -> list[Any]:
    return [await notify(number), ctx.random.randint(0, 10**9)]


@workflow
async def durable(ctx: Context, items: list[str]) -> list[Any]:
    """Steps at once and in turn, a day, a child, a decision, chance."""
    reserved = await asyncio.gather(*(reserve(item) for item in items))
    await ctx.sleep(86_400)
    child = await ctx.child(below, 4)
    decision = await ctx.approval("Ship?", timeout=86_400)
    return [*reserved, await notify(2), child, decision.by, ctx.random.random()]


def prepare(engine: TestEngine) -> None:
    engine.approve_when_asked(by="ana", after=60.0)


def reservations() -> list[str]:
    return sorted(path.read_text() for path in Path("reservations").iterdir())


@workflow
async def counts_in_a_global(ctx: Context) -> list[int]:
    """Broken: the count is not part of the run."""
    found = []
    for number in range(3):
        STATE["calls"] += 1
        found.append(await notify(number + 10 * STATE["calls"]))
    return found


def reset() -> None:
    STATE["calls"] = 0


def reset_first(engine: TestEngine) -> None:
    reset()


def write(line: str) -> None:
    with Path("ledger").open("a") as file:
        file.write(line + "\n")


@workflow
async def writes_in_the_handler(ctx: Context) -> int:
    """Broken: an effect outside a step happens once more with each replay."""
    write("charged")
    return await notify(1)


def ledger() -> list[str]:
    return Path("ledger").read_text().splitlines()


@step
async def charge_twice(cents: int) -> int:
    """Broken: not idempotent."""
    write(str(cents))
    return cents


@workflow
async def charges(ctx: Context) -> int:
    return await charge_twice(5)


@step
async def log_in() -> str:
    STATE["token"] = 7
    return "logged in"


@workflow
async def reads_what_a_body_left(ctx: Context) -> int:
    """Broken: after a crash the body does not run again, and what it left in the process is gone."""
    await log_in()
    await ctx.sleep(60.0)
    return await notify(STATE.get("token", 0))


@workflow
async def differs_each_time(ctx: Context) -> int:
    STATE["calls"] += 1
    return await notify(STATE["calls"])


@workflow
async def circles(ctx: Context) -> None:
    while True:
        await ctx.sleep(1)


@workflow
async def never_ends(ctx: Context) -> None:
    await ctx.wait_for_event("nobody sends it")
