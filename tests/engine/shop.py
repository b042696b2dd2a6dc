"""A shop whose payments can be broken: what the tests of operators and repairs work on."""

import asyncio
from collections import Counter
from typing import Any

from refold import Context, Engine, Retry, step, workflow

from .kit import Place, engine

ran: Counter[str] = Counter()
broken = {"pay"}


@step
async def reserve(order: str) -> str:
    ran[f"reserve {order}"] += 1
    return f"reserved {order}"


@step
async def pay(order: str) -> str:
    ran[f"pay {order}"] += 1
    if "pay" in broken:
        raise ValueError("card declined")
    return f"paid {order}"


@step
async def ship(order: str) -> str:
    ran[f"ship {order}"] += 1
    return f"shipped {order}"


@workflow
async def shop(ctx: Context, order: str) -> list[str]:
    return [await reserve(order), await pay(order), await ship(order)]


@workflow
async def patient(ctx: Context) -> list[Any]:
    first = await ctx.wait_for_event("go")
    await asyncio.sleep(5)
    second = await ctx.wait_for_event("go")
    return [first, await reserve("x"), second]


gate: dict[str, asyncio.Event] = {}


@step
async def slow(order: str) -> str:
    ran[f"slow {order}"] += 1
    gate["entered"].set()
    await gate["open"].wait()
    return f"slow {order}"


@workflow
async def slowly(ctx: Context) -> list[str]:
    return [await slow("a"), await reserve("b")]


@step
async def left(n: int) -> int:
    ran["left"] += 1
    return n


@step(retry=Retry(max_attempts=2, initial_interval=0.001))
async def right(n: int) -> int:
    ran["right"] += 1
    if "pay" in broken:
        raise ValueError("no")
    return n


@workflow
async def flaky_pair(ctx: Context) -> list[Any]:
    found = await asyncio.gather(left(1), right(2), left(3), right(4), return_exceptions=True)
    if any(isinstance(value, Exception) for value in found):
        raise ValueError("one failed")
    return list(found)


@workflow
async def cleans_up(ctx: Context) -> str:
    try:
        return await pay("c")
    except Exception:
        await ship("apology")
        raise


@workflow
async def counting(ctx: Context) -> list[Any]:
    found = [await ctx.wait_for_event("n"), await ctx.wait_for_event("n")]
    if "pay" in broken:
        raise ValueError("broken")
    return found


@workflow
async def reset_me(ctx: Context) -> list[Any]:
    return [await reserve("one"), await reserve("two"), await ctx.wait_for_event("go")]


def restart(place: Place, **options: Any) -> Engine:
    return engine(place, shop, patient, slowly, flaky_pair, cleans_up, counting, reset_me, **options)
