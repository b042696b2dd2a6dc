"""What a handler may write: concurrency, loops, operations, and that each of it replays."""

import asyncio
from typing import Any

import anyio
import pytest

from refold import Context, RunFailed, Workflow, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen, tags, until

pytestmark = pytest.mark.anyio


@step
async def double(x: int) -> int:
    return 2 * x


@workflow
async def sums(ctx: Context, numbers: list[int]) -> int:
    return sum([await double(x) for x in numbers])


async def test_a_run_returns_what_its_handler_returns(place: Place) -> None:
    async with engine(place, sums) as e:
        handle = await e.start(sums, [1, 2, 3])
        assert await handle.result() == 12
        assert tags(handle)[0] == "run.started"
        assert tags(handle)[-1] == "run.completed"
        assert await handle.result() == 12, "and again, from the log"


async def test_each_sequential_step_is_one_append(place: Place) -> None:
    """The cause, what the handler asks for next and its intent are one unit: one commit per step."""
    async with engine(place, sums) as e:
        before = e.worker.log.commits
        await e.run(sums, list(range(20)))
        assert e.worker.log.commits - before == 21  # the start, then one for each result


async def test_an_error_of_the_handler_fails_the_run(place: Place) -> None:
    @workflow
    async def fails(ctx: Context) -> None:
        await double(1)
        raise LookupError("no such order")

    async with engine(place, fails) as e:
        handle = await e.start(fails)
        with pytest.raises(RunFailed, match="LookupError: no such order"):
            await handle.result()
        (end,) = of(handle, t.RunFailed)
        assert end.error.traceback.rstrip().endswith("LookupError: no such order")
        assert "test_workflows.py" in end.error.traceback


def branches(kind: str, release: dict[str, asyncio.Event], began: list[str]) -> Workflow[Any, Any]:
    @step
    async def branch(name: str) -> str:
        began.append(name)
        await release[name].wait()
        return name.upper()

    @workflow
    async def parallel(ctx: Context) -> list[str]:
        if kind == "gather":
            return list(await asyncio.gather(*[branch(name) for name in "abc"]))
        if kind == "asyncio":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_await(branch(name))) for name in "abc"]
            return [task.result() for task in tasks]
        results: dict[str, str] = {}

        async def put(name: str) -> None:
            results[name] = await branch(name)

        async with anyio.create_task_group() as tasks_of_anyio:
            for name in "abc":
                tasks_of_anyio.start_soon(put, name)
        return [results[name] for name in "abc"]

    return parallel


async def _await(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.parametrize("kind", ["gather", "asyncio", "anyio"])
async def test_parallel_steps_run_at_once_and_return_in_the_order_of_the_input(
    kind: str, place: Place
) -> None:
    """A10."""
    began: list[str] = []
    release = {name: asyncio.Event() for name in "abc"}
    flow = branches(kind, release, began)
    async with engine(place, flow) as e:
        handle = await e.start(flow)
        await until(lambda: sorted(began) == ["a", "b", "c"])  # all three at once: none has been let go
        for count, name in enumerate("cab", 1):
            release[name].set()
            await seen(handle, t.StepCompleted, count)
        assert await handle.result() == ["A", "B", "C"]
        assert [event.step for event in of(handle, t.StepCompleted)] == [3, 1, 2]


@pytest.mark.parametrize("kind", ["gather", "asyncio", "anyio"])
async def test_after_a_stop_only_the_missing_branch_runs(kind: str, place: Place) -> None:
    """A12."""
    began: list[str] = []
    release = {name: asyncio.Event() for name in "abc"}
    flow = branches(kind, release, began)
    async with engine(place, flow, grace=0) as e:
        handle = await e.start(flow, id="r")
        release["c"].set()
        release["a"].set()
        await seen(handle, t.StepCompleted, 2)
    assert sorted(began) == ["a", "b", "c"]
    release["b"].set()
    async with engine(place, flow) as e:
        handle = await e.get("r")
        assert await handle.result() == ["A", "B", "C"]
        assert sorted(began) == ["a", "b", "b", "c"]
        assert len(of(handle, t.StepScheduled)) == 3
        assert [event.attempt for event in of(handle, t.StepCompleted)] == [1, 1, 2]


async def test_a_while_around_an_if_around_a_step_gives_distinct_rows_that_replay(place: Place) -> None:
    """A31."""
    calls: list[tuple[str, int]] = []

    @step
    async def probe(what: str, turn: int) -> int:
        calls.append((what, turn))
        return 10 * turn

    @workflow
    async def loops(ctx: Context) -> list[int]:
        turn, out = 0, []
        while turn < 3:
            if turn != 7:
                out.append(await probe("same line", turn))
                out.append(await probe("twice in a turn", turn) + await probe("twice in a turn", turn))
            turn += 1
        await ctx.wait_for_event("go")
        return out

    async with engine(place, loops) as e:
        handle = await e.start(loops, id="r")
        await seen(handle, t.WaitOpened)
    async with engine(place, loops) as e:
        handle = await e.get("r")
        await handle.signal("go")
        assert await handle.result() == [0, 0, 10, 20, 20, 40]
        scheduled = of(handle, t.StepScheduled)
    assert len(calls) == 9, "nothing ran again"
    assert [event.key for event in scheduled] == [f"probe#{n}" for n in range(1, 10)]
    first = [event for event in scheduled if b"same line" in bytes(event.args)]
    assert [event.iteration for event in first] == [0, 1, 2]
    twice = [event for event in scheduled if event not in first]
    assert [event.iteration for event in twice] == [0, 1, 2, 3, 4, 5], (
        "two calls on one line share their place"
    )


class Deploy:
    kind = "deploy"

    def __init__(self, target: str, log: list[str]) -> None:
        self.input = {"target": target}
        self.log = log

    async def run(self) -> str:
        self.log.append(self.input["target"])
        return f"deployed to {self.input['target']}"


async def test_a_custom_operation_is_recorded_and_never_runs_again(place: Place) -> None:
    """A07."""
    effects: list[str] = []

    @workflow
    async def ships(ctx: Context) -> str:
        done = await ctx.operation(Deploy("blue", effects))
        await ctx.wait_for_event("go")
        return str(done)

    for _ in range(2):
        async with engine(place, ships) as e:
            await seen(await e.start(ships, id="r"), t.WaitOpened)
    async with engine(place, ships) as e:
        handle = await e.start(ships, id="r")
        await handle.signal("go")
        assert await handle.result() == "deployed to blue"
        (scheduled,) = of(handle, t.StepScheduled)
    assert effects == ["blue"]
    assert (scheduled.kind, scheduled.key) == ("custom:deploy", "deploy#1")
    assert bytes(scheduled.args) == b'[{"target":"blue"}]'


async def test_any_callable_is_a_step_through_ctx_call(place: Place) -> None:
    def plain(x: int) -> int:
        return x + 1

    async def asynchronous(x: int) -> int:
        return x + 2

    @workflow
    async def calls(ctx: Context) -> list[Any]:
        return [
            await ctx.call(plain, 1),
            await ctx.call(asynchronous, 1),
            await ctx.call(lambda: "nameless", name="named"),
            await ctx.call(double, 4),
        ]

    async with engine(place, calls) as e:
        handle = await e.start(calls)
        assert await handle.result() == [2, 3, "nameless", 8]
        assert [(s.kind, s.name) for s in of(handle, t.StepScheduled)] == [
            ("call", "plain"), ("call", "asynchronous"), ("call", "named"), ("step", "double"),
        ]  # fmt: skip


async def test_steps_nobody_waits_for_are_cancelled_when_the_handler_returns(place: Place) -> None:
    stopped: list[str] = []

    @step
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("endless")

    @workflow
    async def leaves(ctx: Context) -> str:
        task = asyncio.create_task(_await(endless()))
        await double(1)
        return f"left {task.get_name()}"

    async with engine(place, leaves) as e:
        handle = await e.start(leaves)
        assert await handle.result() == "left m.1"
        assert [event.step for event in of(handle, t.StepCancelled)] == [2]
        await until(lambda: stopped == ["endless"])
        assert tags(handle)[-2:] == ["step.cancelled", "run.completed"]
