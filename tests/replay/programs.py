"""Random handlers: trees of operations over steps, asyncio and anyio, and the handler that runs them.

A node is [operation, k, child, …] with k from 0 to 3. The golden histories of `tests/histories` were made
by these very operations: never change what one asks for, add another one.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel

from refold import Context, Retry, step, workflow
from refold.events.errors import StepFailed, WaitTimeout

Node = list[Any]
LEAVES = [
    *("step", "step", "step", "pure", "pure", "fail", "retried", "set_and_dict"),
    *("sleep", "asleep", "spin", "yields", "rand", "uuid", "now", "signal", "signal_late"),
    *("qput", "qget", "setev", "waitev", "limiter", "lock", "semaphore"),
]
ONE = [
    *("timeout", "moveon", "failafter", "waitfor", "waitfor0"),
    *("cleanup", "acleanup", "trycancel", "shield", "loop", "catch"),
]
MANY = [
    *("seq", "seq", "gather", "gather_rx", "tg", "atg", "wait1", "race", "ascomp", "agen", "stream"),
    *("atg_cancel", "cancelkids", "nested_scopes"),
]


class Boom(Exception):
    """Raised by a program."""


@step
async def plain(k: int, count: int) -> list[int]:
    return [k, count]


@step(pure=True)
async def pure(k: int) -> tuple[int, str]:
    """A tuple: on replay and live it must be the same kind of thing."""
    return (k, "pure")


@step
async def bad(k: int) -> int:
    raise AssertionError("the world fails it")


@step(retry=Retry(max_attempts=3, initial_interval=0.5, jitter=0))
async def retried(k: int) -> int:
    return k


@step
async def cleanup(k: int) -> str:
    return "clean"


@step
async def sets(names: set[str], table: dict[str, int]) -> frozenset[str]:
    return frozenset(names)


@workflow
async def program(ctx: Context, tree: Node) -> list[Any]:
    """Runs one tree."""
    machine = Machine(ctx)
    try:
        result = await machine.run(tree)
    except BaseExceptionGroup as error:
        result = ["group", len(error.exceptions), type(error).__name__]
    except (Boom, StepFailed) as error:
        result = ["error", type(error).__name__]
    return [repr(result), machine.trace, machine.steps, len(asyncio.all_tasks()), ctx.now().isoformat()]


def generate(rng: random.Random, depth: int = 0, budget: list[int] | None = None) -> Node:
    """A random tree of up to some 60 nodes."""
    budget = budget if budget is not None else [rng.randint(6, 60)]
    budget[0] -= 1
    if depth > 5 or budget[0] <= 0 or (depth and rng.random() < 0.12):
        return [rng.choice(LEAVES), rng.randint(0, 3)]
    operation = rng.choice(ONE + MANY)
    children = 1 if operation in ONE else rng.randint(2, 4)
    return [operation, rng.randint(0, 3)] + [generate(rng, depth + 1, budget) for _ in range(children)]


class Machine:
    """Runs one tree: a method `do_…` for each operation."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.event, self.limiter = anyio.Event(), anyio.CapacityLimiter(1)
        self.lock, self.semaphore = asyncio.Lock(), asyncio.Semaphore(2)
        self.trace: list[Any] = []
        self.steps = 0

    async def run(self, node: Node) -> Any:
        operation, k, *children = node
        return await getattr(self, "do_" + operation)(k, children)

    # ---- steps

    async def do_step(self, k: int, _: list[Node]) -> Any:
        result = await plain(k, self.steps)
        self.steps += 1
        self.trace.append(result)
        return result

    async def do_pure(self, k: int, _: list[Node]) -> Any:
        result = await pure(k)
        assert type(result) is tuple
        return result

    async def do_fail(self, k: int, _: list[Node]) -> Any:
        try:
            return await bad(k)
        except StepFailed as error:
            self.trace.append(error.step)
            if k == 0:
                raise Boom(k) from None
            return str(error)

    async def do_retried(self, k: int, _: list[Node]) -> Any:
        return await retried(k)

    async def do_set_and_dict(self, k: int, _: list[Node]) -> Any:
        names = {f"name-{n}" for n in range(k + 2)}
        return sorted(await sets(names, dict.fromkeys(names, k)))

    # ---- time, chance, messages

    async def do_sleep(self, k: int, _: list[Node]) -> Any:
        await asyncio.sleep(k * 0.5)
        self.trace.append(self.ctx.now().timestamp())
        return k

    async def do_asleep(self, k: int, _: list[Node]) -> Any:
        await anyio.sleep(k * 0.5 + 0.1)
        return k

    async def do_spin(self, k: int, _: list[Node]) -> Any:
        for _round in range(k):
            await asyncio.sleep(0)
        return k

    async def do_yields(self, k: int, _: list[Node]) -> Any:
        await anyio.lowlevel.checkpoint()
        return len(self.trace)

    async def do_rand(self, k: int, _: list[Node]) -> Any:
        return self.ctx.random.random()

    async def do_uuid(self, k: int, _: list[Node]) -> Any:
        return str(self.ctx.uuid4())

    async def do_now(self, k: int, _: list[Node]) -> Any:
        return self.ctx.now().isoformat()

    async def do_signal(self, k: int, _: list[Node]) -> Any:
        payload = await self.ctx.wait_for_event("ab"[k % 2])
        self.trace.append(payload)
        return payload

    async def do_signal_late(self, k: int, _: list[Node]) -> Any:
        try:
            return await self.ctx.wait_for_event("ab"[k % 2], timeout=k * 0.6 + 0.1, type=int)
        except WaitTimeout:
            return "nobody"

    # ---- what tasks share

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

    async def do_limiter(self, k: int, _: list[Node]) -> Any:
        with anyio.move_on_after(30):
            async with self.limiter:
                return await plain(k, -1)

    async def do_lock(self, k: int, _: list[Node]) -> Any:
        async with self.lock:
            return await pure(k)

    async def do_semaphore(self, k: int, _: list[Node]) -> Any:
        async with self.semaphore:
            return await plain(k, -2)

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

    async def do_waitfor0(self, k: int, children: list[Node]) -> Any:
        try:
            return await asyncio.wait_for(self.run(children[0]), 0)
        except TimeoutError:
            return "at once"

    async def do_cleanup(self, k: int, children: list[Node]) -> Any:
        try:
            return await self.run(children[0])
        finally:
            with anyio.CancelScope(shield=True):
                await cleanup(k)

    async def do_acleanup(self, k: int, children: list[Node]) -> Any:
        try:
            return await self.run(children[0])
        except asyncio.CancelledError:
            with anyio.move_on_after(k, shield=True):
                await anyio.sleep(0.5)
                await cleanup(k)
            raise

    async def do_trycancel(self, k: int, children: list[Node]) -> Any:
        try:
            return await self.run(children[0])
        except asyncio.CancelledError:
            self.trace.append("cancelled")
            raise

    async def do_shield(self, k: int, children: list[Node]) -> Any:
        return await asyncio.shield(asyncio.ensure_future(self.run(children[0])))

    async def do_loop(self, k: int, children: list[Node]) -> Any:
        return [await self.run(children[0]) for _ in range(k)]

    async def do_catch(self, k: int, children: list[Node]) -> Any:
        try:
            return await self.run(children[0])
        except (Exception, BaseExceptionGroup) as error:
            return type(error).__name__

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
                    await cleanup(self.steps)

        async with anyio.create_task_group() as group:
            for child in children:
                group.start_soon(work, child)
            await anyio.sleep(k * 0.4)
            group.cancel_scope.cancel()
        return "cancelled"

    async def do_nested_scopes(self, k: int, children: list[Node]) -> Any:
        with anyio.move_on_after(2) as outer, anyio.move_on_after(k) as inner:
            async with anyio.create_task_group() as group:
                for child in children:
                    group.start_soon(self.run, child)
        return [outer.cancelled_caught, inner.cancelled_caught]

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
