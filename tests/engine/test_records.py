"""What the log says of each step beside its result: its key, place, order, and trace."""

import asyncio
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from refold import Context, Engine, Settings, current_step, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen

pytestmark = pytest.mark.anyio


@step
async def load(x: int) -> int:
    return x


@step
async def store(x: int) -> int:
    return x


@workflow
async def shaped(ctx: Context, plan: list[int]) -> list[int]:
    """`plan` decides how many calls of which step each of several tasks makes, one after another."""

    async def lane(calls: int) -> int:
        total = 0
        for number in range(calls):
            total += await (load(number) if number % 2 else store(number))
        return total

    return list(await asyncio.gather(*[lane(calls) for calls in plan]))


def identities(events: list[Any]) -> list[tuple[Any, ...]]:
    return [
        (e.step, e.key, e.name, bytes(e.args), e.task, e.site, e.iteration)
        for e in events
        if isinstance(e, t.StepScheduled)
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), max_size=5))
def test_two_runs_of_one_program_have_equal_and_unique_keys(plan: list[int]) -> None:
    """B03. One step at a time finishes, so that both runs see their results in the same order."""

    async def twice() -> list[list[Any]]:
        async with Engine("memory://", workflows=[shaped], settings=Settings(projections=False)) as e:
            handles = [await e.start(shaped, plan) for _ in range(2)]
            for handle in handles:
                await handle.result()
            return [handle.events() for handle in handles]

    first, second = (identities(events) for events in asyncio.run(twice()))
    assert sorted(first) == sorted(second)
    keys = [key for _, key, *_ in first]
    assert len(keys) == len(set(keys)) == sum(plan)
    places = [(name, task, site, iteration) for _, _, name, _, task, site, iteration in first]
    assert len(set(places)) == len(places)


async def test_a_step_says_where_in_the_program_it_was_called(place: Place) -> None:
    """B03."""

    @workflow
    async def calls(ctx: Context) -> None:
        await load(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(helper(1))
            group.create_task(helper(2))

    async def helper(x: int) -> None:
        for _ in range(2):
            await load(x)

    async with engine(place, calls) as e:
        handle = await e.start(calls)
        await handle.result()
        scheduled = of(handle, t.StepScheduled)
    assert [event.key for event in scheduled] == [f"load#{n}" for n in range(1, 6)]
    assert [event.task for event in scheduled] == ["m", "m.1", "m.2", "m.1", "m.2"]
    file, _, line = scheduled[0].site.partition(":")
    assert file == "test_records.py"
    assert line == str(calls.fn.__code__.co_firstlineno + 2)
    assert len({event.site for event in scheduled[1:]}) == 1
    assert [event.iteration for event in scheduled[1:]] == [0, 0, 1, 1]


async def test_a_step_says_whose_results_were_known_when_it_was_called(place: Place) -> None:
    """B04, record side: after the wave {b, c} that follows a, d knows both."""

    @workflow
    async def diamond(ctx: Context) -> None:
        await load(1)
        await asyncio.gather(load(2), store(3))
        await load(4)

    async with engine(place, diamond) as e:
        handle = await e.start(diamond)
        await handle.result()
        after = [set(event.after) for event in of(handle, t.StepScheduled)]
    assert after[0] == set()
    assert after[1] == after[2] == {1}
    assert {2, 3} <= after[3]


async def test_keys_places_and_order_are_the_same_after_a_restart(place: Place) -> None:
    """B03: what runs after a restart counts on from where it stood."""

    @workflow
    async def loops(ctx: Context) -> None:
        for _ in range(3):
            await load(1)
            await ctx.wait_for_event("go")

    for turn in range(3):
        async with engine(place, loops) as e:
            handle = await e.start(loops, id="r")
            await seen(handle, t.WaitOpened, turn + 1)
            await handle.signal("go")
    async with engine(place, loops) as e:
        handle = await e.get("r")
        await handle.result()
        scheduled = of(handle, t.StepScheduled)
    assert [event.key for event in scheduled] == ["load#1", "load#2", "load#3"]
    assert [event.iteration for event in scheduled] == [0, 1, 2]
    assert len({event.site for event in scheduled}) == 1


async def test_every_event_carries_the_trace_of_its_run(place: Place) -> None:
    """B15."""
    given_trace = uuid.uuid4().hex
    traces: list[str] = []

    @step
    async def traced() -> None:
        traces.append(current_step().trace_id)

    @workflow
    async def asks(ctx: Context) -> None:
        await traced()
        await ctx.wait_for_event("go", timeout=60)
        await traced()

    for turn in range(2):
        async with engine(place, asks) as e:
            handle = await e.start(asks, id="r", trace_id=given_trace)
            await seen(handle, t.WaitOpened)
            if turn:
                await handle.signal("go")
                await handle.result()
                assert {event.trace for event in of(handle, t.Event)} == {given_trace}
            own = await e.start(asks)
            (started,) = of(own, t.RunStarted)
            assert len(started.trace) == 32
            assert int(started.trace, 16)
            assert started.trace != given_trace
    name = uuid.NAMESPACE_URL
    mine = [str(uuid.uuid5(name, f"refold:r/traced#{n}")) for n in (1, 2)]
    assert [trace for trace in traces if trace in mine] == mine


async def test_causes_link_the_events_of_a_run_to_a_chain(place: Place) -> None:
    @workflow
    async def one(ctx: Context) -> int:
        return await load(1)

    async with engine(place, one) as e:
        handle = await e.start(one)
        await handle.result()
        events = {event.id: event for event in of(handle, t.Event)}
        path = [event.TAG for event in events.values() if isinstance(event, t.RunCompleted)]
        event = of(handle, t.RunCompleted)[0]
        while event.cause:
            event = events[event.cause]  # type: ignore[assignment]
            path.append(event.TAG)
    assert path == ["run.completed", "step.completed", "step.started", "step.scheduled", "run.started"]
