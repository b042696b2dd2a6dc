"""Handlers written by hand, as people write them. Their histories are golden: change one under a new name."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream

from refold import Context, Retry, step, workflow
from refold.engine.workflow import Workflow
from refold.events.errors import StepFailed, WaitTimeout


class Order(msgspec.Struct, frozen=True):
    item: str
    amount: int


@step(retry=Retry(max_attempts=3, initial_interval=0.5, jitter=0))
async def charge(order: Order) -> tuple[str, int]:
    return order.item, order.amount


@step(execution="at_most_once", on_unknown="fail")
async def ship(order: Order, day: str = "today") -> str:
    return day


@step
async def bad(order: Order) -> None:
    raise AssertionError("the world fails it")


@step(pure=True)
async def price(item: str) -> int:
    return len(item)


@workflow
async def checkout(ctx: Context, order: Order) -> dict[str, Any]:
    """A deadline for a person, a refund when something fails, an answer that may be late."""
    receipt = await charge(order)
    assert type(receipt) is tuple
    try:
        answer = await ctx.wait_for_event("a", timeout=86_400)
    except WaitTimeout:
        answer = "nobody answered"
    problem = ""
    try:
        await bad(order)
    except StepFailed as error:
        problem = error.message
    await anyio.sleep(3_600)
    parcel = await ship(order, day="tomorrow")
    return {"receipt": receipt, "answer": answer, "problem": problem, "parcel": parcel, "id": ctx.uuid4()}


@workflow
async def fan_out(ctx: Context, count: int) -> list[int]:
    """Many at a time, a few of them at once, in the order in which they end."""
    limiter = anyio.CapacityLimiter(3)
    prices: list[int] = []

    async def one(number: int) -> None:
        async with limiter:
            prices.append(await price("x" * number))

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    first = [asyncio.ensure_future(price("y" * number)) for number in range(count)]
    for done in asyncio.as_completed(first):
        prices.append(await done)
    return prices


@workflow
async def hedge(ctx: Context, rounds: int) -> list[Any]:
    """Races whose losers are cancelled and clean up, timeouts in timeouts."""
    out: list[Any] = []

    async def slow(number: int) -> str:
        try:
            await ctx.sleep(number)
            return (await ship(Order("x", number))) + str(number)
        finally:
            with anyio.CancelScope(shield=True):
                out.append(await price("clean" + str(number)))

    for number in range(rounds):
        with anyio.move_on_after(5) as scope:
            async with asyncio.TaskGroup() as group:
                racers = [group.create_task(slow(number + i)) for i in range(3)]
                done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
                for racer in pending:
                    racer.cancel()
                out += [racer.result() for racer in done]
        out.append(scope.cancelled_caught)
    return out


@workflow
async def mailbox(ctx: Context, count: int) -> dict[str, Any]:
    """A reader and a deadline beside each other; messages may come before anybody asks for them."""
    read: list[Any] = []
    other: asyncio.Task[Any] | None = None
    until = ctx.now() + timedelta(seconds=20)

    async def reader() -> None:
        for _ in range(count):
            read.append(await ctx.wait_for_event("a", timeout=7))

    try:
        async with asyncio.timeout((until - ctx.now()).total_seconds()), asyncio.TaskGroup() as group:
            group.create_task(reader())
            other = group.create_task(ctx.wait_for_event("b"))
    except* (TimeoutError, WaitTimeout):
        pass
    return {
        "read": read,
        "other": other.result() if other and other.done() and not other.cancelled() else None,
    }


@workflow
async def pipeline(ctx: Context, count: int) -> list[int]:
    """A generator feeds a stream, two tasks drain it, chance decides who rests."""
    send, receive = anyio.create_memory_object_stream[int](2)
    out: list[int] = []

    async def source() -> AsyncGenerator[int, None]:
        for number in range(count):
            yield await price("z" * number)

    async def produce() -> None:
        async with send, aclosing(source()) as numbers:
            async for number in numbers:
                await send.send(number)

    async def drain(mine: MemoryObjectReceiveStream[int]) -> None:
        async with mine:
            async for number in mine:
                if ctx.random.random() < 0.5:
                    await ctx.sleep(1)
                out.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        async with receive:
            group.start_soon(drain, receive.clone())
            group.start_soon(drain, receive.clone())
    return out


HANDWRITTEN: dict[str, tuple[Workflow[Any, Any], list[Any]]] = {
    "checkout": (checkout, [Order("book", 3)]),
    "fan_out": (fan_out, [6]),
    "hedge": (hedge, [3]),
    "mailbox": (mailbox, [3]),
    "pipeline": (pipeline, [6]),
}
