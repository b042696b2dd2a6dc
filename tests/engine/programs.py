"""Random handler programs: trees of operations over asyncio and anyio, and what runs them.

A node is [operation, k, child, …]. `ctx` needs `step(name, *args)`, `now()` and `random`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel

Node = list[Any]
LEAVES = ("step", "step", "yields", "sleep", "asleep", "fail", "qput", "qget", "setev", "waitev", "rand")
ONE = ("timeout", "moveon", "failafter", "waitfor", "cleanup", "limiter", "lock", "trycancel", "shield")
MANY = ("seq", "gather", "gather_rx", "tg", "atg", "atg_cancel", "stream", "agen", "wait1", "race")
TASKS = ("ascomp", "ascomp_bare", "cancelkids")


class Boom(Exception):
    """Raised by a program."""


def generate(rng: random.Random, depth: int = 0, budget: list[int] | None = None) -> Node:
    """A random program of up to some 60 nodes."""
    budget = budget if budget is not None else [rng.randint(6, 60)]
    budget[0] -= 1
    if depth > 5 or budget[0] <= 0 or (depth and rng.random() < 0.15):
        return [rng.choice(LEAVES), rng.randint(0, 3)]
    operation = rng.choice(ONE + MANY + TASKS)
    children = 1 if operation in ONE else rng.randint(2, 4)
    return [operation, rng.randint(0, 3)] + [generate(rng, depth + 1, budget) for _ in range(children)]


def handler(program: Node, failed: type[Exception]) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """A handler that runs the program; `failed` is what it sees of a failed step."""

    async def run(ctx: Any) -> Any:
        machine = Machine(ctx, failed)
        try:
            result = await machine.run(program)
        except BaseExceptionGroup as error:
            result = ["group", len(error.exceptions), type(error).__name__]
        except (Boom, failed) as error:
            result = ["error", type(error).__name__]
        return [result, machine.trace, machine.steps, len(asyncio.all_tasks()), ctx.now()]

    return run


class Machine:
    """Runs one program: a method `do_…` for each operation."""

    def __init__(self, ctx: Any, failed: type[Exception]) -> None:
        self.ctx, self.failed = ctx, failed
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.event, self.limiter, self.lock = anyio.Event(), anyio.CapacityLimiter(1), asyncio.Lock()
        self.trace: list[Any] = []
        self.steps = 0

    async def run(self, node: Node) -> Any:
        operation, k, *children = node
        return await getattr(self, "do_" + operation)(k, children)

    # ---- leaves

    async def do_step(self, k: int, _: list[Node]) -> Any:
        result = await self.ctx.step(f"s{k}", self.steps)
        self.steps += 1
        self.trace.append(result)
        return result

    async def do_fail(self, k: int, _: list[Node]) -> Any:
        try:
            return await self.ctx.step("bad", k)
        except self.failed:
            self.trace.append("failed")
            if k == 0:
                raise Boom(k) from None
            return "caught"

    async def do_sleep(self, k: int, _: list[Node]) -> Any:
        await asyncio.sleep(k * 0.5)
        self.trace.append(self.ctx.now())
        return k

    async def do_asleep(self, k: int, _: list[Node]) -> Any:
        await anyio.sleep(k * 0.5 + 0.1)
        return k

    async def do_qput(self, k: int, _: list[Node]) -> Any:
        self.queue.put_nowait(k)
        return k

    async def do_qget(self, k: int, _: list[Node]) -> Any:
        try:
            async with asyncio.timeout(2 + k):
                return await self.queue.get()
        except TimeoutError:
            return "empty"

    async def do_setev(self, k: int, _: list[Node]) -> Any:
        self.event.set()

    async def do_waitev(self, k: int, _: list[Node]) -> Any:
        with anyio.move_on_after(1 + k):
            await self.event.wait()
        return self.event.is_set()

    async def do_yields(self, k: int, _: list[Node]) -> Any:
        for _round in range(k):
            await asyncio.sleep(0)
        await anyio.lowlevel.checkpoint()
        return len(self.trace)

    async def do_rand(self, k: int, _: list[Node]) -> Any:
        return self.ctx.random.random()

    # ---- around one

    async def do_timeout(self, k: int, children: list[Node]) -> Any:
        try:
            async with asyncio.timeout(k * 0.7):
                return await self.run(children[0])
        except TimeoutError:
            self.trace.append("late")
            return "late"

    async def do_moveon(self, k: int, children: list[Node]) -> Any:
        with anyio.move_on_after(k * 0.7) as scope:
            return await self.run(children[0])
        return scope.cancelled_caught

    async def do_failafter(self, k: int, children: list[Node]) -> Any:
        try:
            with anyio.fail_after(k * 0.7):
                return await self.run(children[0])
        except TimeoutError:
            return "late"

    async def do_waitfor(self, k: int, children: list[Node]) -> Any:
        try:
            return await asyncio.wait_for(self.run(children[0]), k * 0.7 + 0.1)
        except TimeoutError:
            return "late"

    async def do_cleanup(self, k: int, children: list[Node]) -> Any:
        try:
            return await self.run(children[0])
        finally:
            with anyio.CancelScope(shield=True):
                await self.ctx.step("cleanup", k)

    async def do_trycancel(self, k: int, children: list[Node]) -> Any:
        try:
            return await self.run(children[0])
        except asyncio.CancelledError:
            self.trace.append("cancelled")
            raise

    async def do_shield(self, k: int, children: list[Node]) -> Any:
        return await asyncio.shield(asyncio.ensure_future(self.run(children[0])))

    async def do_limiter(self, k: int, children: list[Node]) -> Any:
        with anyio.move_on_after(30):
            async with self.limiter:
                return await self.ctx.step("limited", k)

    async def do_lock(self, k: int, children: list[Node]) -> Any:
        async with self.lock:
            return await self.ctx.step("locked", k)

    # ---- around many

    async def do_seq(self, k: int, children: list[Node]) -> Any:
        return [await self.run(child) for child in children]

    async def do_gather(self, k: int, children: list[Node]) -> Any:
        return await asyncio.gather(*[self.run(child) for child in children])

    async def do_gather_rx(self, k: int, children: list[Node]) -> Any:
        results = await asyncio.gather(*[self.run(child) for child in children], return_exceptions=True)
        return [type(x).__name__ if isinstance(x, BaseException) else x for x in results]

    async def do_tg(self, k: int, children: list[Node]) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.run(child)) for child in children]
        return [task.result() for task in tasks]

    async def do_atg(self, k: int, children: list[Node]) -> Any:
        results = {}

        async def work(number: int, child: Node) -> None:
            results[number] = await self.run(child)

        async with anyio.create_task_group() as group:
            for number, child in enumerate(children):
                group.start_soon(work, number, child)
        return [results.get(number) for number in range(len(children))]

    async def do_atg_cancel(self, k: int, children: list[Node]) -> Any:
        async def work(child: Node) -> None:
            try:
                await self.run(child)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.ctx.step("finally", self.steps)

        async with anyio.create_task_group() as group:
            for child in children:
                group.start_soon(work, child)
            await anyio.sleep(k * 0.4)
            group.cancel_scope.cancel()
        return "cancelled"

    async def do_wait1(self, k: int, children: list[Node], race: bool = False) -> Any:
        tasks = [asyncio.create_task(self.run(child)) for child in children]
        try:
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        if race:
            for task in pending:
                task.cancel()
        rest = await asyncio.gather(*pending, return_exceptions=True)
        return [task.result() for task in done] + [len(rest)]

    async def do_race(self, k: int, children: list[Node]) -> Any:
        return await self.do_wait1(k, children, race=True)

    async def do_cancelkids(self, k: int, children: list[Node]) -> Any:
        tasks = {asyncio.create_task(self.run(child)) for child in children}
        await asyncio.sleep(k * 0.3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return sum(task.cancelled() for task in tasks)

    async def do_ascomp(self, k: int, children: list[Node]) -> Any:
        tasks = [asyncio.ensure_future(self.run(child)) for child in children]
        try:
            return [await first for first in asyncio.as_completed(tasks)]
        finally:
            for task in tasks:
                task.cancel()

    async def do_ascomp_bare(self, k: int, children: list[Node]) -> Any:
        return [await first for first in asyncio.as_completed([self.run(child) for child in children])]

    async def do_agen(self, k: int, children: list[Node]) -> Any:
        async def results() -> AsyncIterator[Any]:
            for child in children:
                yield await self.run(child)

        return [result async for result in results()]

    async def do_stream(self, k: int, children: list[Node]) -> Any:
        send, receive = anyio.create_memory_object_stream[Any](k)

        async def produce() -> None:
            async with send:
                for child in children:
                    await send.send(await self.run(child))

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            async with receive:
                return [item async for item in receive]
