"""Where a suspended handler stands: frames, lines, columns and locals, through whatever it awaits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from refold.engine import inspect
from refold.engine.inspect import Frame, Snapshot, format_stacks, frames, snapshots
from tests.engine import fake
from tests.engine.fake import Context, FakeRun


@pytest.fixture(autouse=True)
def _the_fake_engine_is_hidden_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "_HIDDEN", (*inspect._HIDDEN, fake.__file__))


async def leaf(ctx: Context) -> Any:
    answer = 42
    result = await ctx.step("leaf")
    return result, answer


async def generator(ctx: Context) -> AsyncIterator[Any]:
    yield await leaf(ctx)


class Awaited:
    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def __await__(self) -> Generator[Any, Any, Any]:
        return leaf(self.ctx).__await__()


@asynccontextmanager
async def managed(ctx: Context) -> AsyncIterator[int]:
    await leaf(ctx)
    yield 1


async def asend(ctx: Context) -> Any:
    return await generator(ctx).__anext__()


async def athrow(ctx: Context) -> Any:
    async def catching() -> AsyncIterator[Any]:
        try:
            yield 1
        except LookupError:
            yield await leaf(ctx)

    source = catching()
    await anext(source)
    return await source.athrow(LookupError())  # type: ignore[attr-defined]


async def next_of(ctx: Context) -> Any:
    return await anext(generator(ctx))


async def next_or(ctx: Context) -> Any:
    return await anext(generator(ctx), 5)


async def loop_over(ctx: Context) -> Any:
    async with aclosing(generator(ctx)) as source:  # type: ignore[type-var]
        return [item async for item in source]


async def awaitable(ctx: Context) -> Any:
    return await Awaited(ctx)


async def context_manager(ctx: Context) -> Any:
    async with managed(ctx) as one:
        return one


async def task_group(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(ctx))


async def anyio_group(ctx: Context) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(leaf, ctx)


async def gathered(ctx: Context) -> None:
    await asyncio.gather(leaf(ctx))


async def waited_for(ctx: Context) -> None:
    await asyncio.wait_for(leaf(ctx), 9)


async def shielded(ctx: Context) -> None:
    await asyncio.shield(leaf(ctx))


SHAPES: list[Callable[[Context], Awaitable[Any]]] = [
    asend,
    athrow,
    next_of,
    next_or,
    loop_over,
    awaitable,
    context_manager,
    task_group,
    anyio_group,
    gathered,
    waited_for,
    shielded,
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_innermost_function_is_found_through(shape: Any) -> None:
    run = FakeRun(shape).start()
    (found,) = [frame for task in snapshots(run.loop) for frame in task.frames if frame.function == "leaf"]
    assert found.locals["answer"] == 42
    assert text_of(found) == 'await ctx.step("leaf")'
    assert any(shape.__name__ == frame.function for task in snapshots(run.loop) for frame in task.frames)
    waits = [task.waiting_on for task in snapshots(run.loop) if task.frames and task.frames[-1] == found]
    assert waits == ["step 1 leaf[]"] or waits == [f"step {number} leaf[]" for number in run.numbers("step")]


def text_of(frame: Frame) -> str:
    line = Path(frame.file).read_text().splitlines()[frame.line - 1]
    return line[frame.columns[0] : frame.columns[1]]


async def fetch_all(ctx: Context, items: list[str]) -> AsyncIterator[tuple[int, Any]]:
    for index, item in enumerate(items):
        got = await ctx.step("fetch", item)
        yield index, got


async def collect(ctx: Context, items: list[str]) -> list[Any]:
    collected = []
    async for _index, got in fetch_all(ctx, items):
        collected.append(got)
    return collected


async def audited(ctx: Context) -> Any:
    async def side(tag: str) -> str:
        doubled = tag * 2
        await asyncio.sleep(10)
        return doubled

    task = asyncio.create_task(side("q"), name="side task")
    total = len(await collect(ctx, ["a", "b", "c"]))
    return total, await task


def test_any_past_moment_can_be_looked_at() -> None:
    run = FakeRun(audited).start().feed(("done", 1, "A", 1.0)).feed(("done", 3, "B", 1.0))
    seen = []
    for events in range(1, len(run.history) + 1):
        then = FakeRun(audited).replay(run.history[:events])
        variables = {frame.function: frame.locals for frame in snapshots(then.loop)[0].frames}
        seen.append((variables["fetch_all"]["index"], list(variables["collect"]["collected"])))
    assert seen == [(0, []), (1, ["A"]), (2, ["A", "B"])]


def test_each_task_tells_its_place_name_state_and_what_it_waits_for() -> None:
    run = FakeRun(audited).start()
    main, side = snapshots(run.loop)
    assert [frame.function for frame in main.frames] == ["audited", "collect", "fetch_all"]
    assert (main.path, main.name, main.state, main.waiting_on) == ("m", "m", "suspended", "step 1 fetch['a']")
    assert [frame.function.split(".")[-1] for frame in side.frames] == ["side", "sleep"]
    assert (side.path, side.name, side.waiting_on) == ("m.1", "side task", "timer 2 10.0")
    assert side.frames[0].locals["doubled"] == "qq"


async def waits_for(what: str, ctx: Context) -> Any:
    if what == "gather":
        await asyncio.gather(*[leaf(ctx) for _ in range(7)])
    elif what == "task":
        await asyncio.create_task(leaf(ctx))
    elif what == "queue":
        await asyncio.Queue().get()
    elif what == "event":
        await anyio.Event().wait()
    else:
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("what", "waiting_on"),
    [
        ("gather", "gather(task m.1, task m.2, task m.3, task m.4, task m.5, … 2 more)"),
        ("task", "task m.1"),
        ("queue", "Queue.get"),
        ("event", "Event.wait"),
        ("future", "waits_for"),
    ],
)
def test_what_is_waited_for_is_said_in_words(what: str, waiting_on: str) -> None:
    async def handler(ctx: Context) -> None:
        await waits_for(what, ctx)

    assert snapshots(FakeRun(handler).start().loop)[0].waiting_on == waiting_on


def test_states_other_than_suspended() -> None:
    async def handler(ctx: Context) -> list[Snapshot]:
        async def one() -> None:
            pass

        async def two() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        done, ready = asyncio.create_task(one()), asyncio.create_task(two())
        await asyncio.sleep(0)
        fresh = asyncio.create_task(one())
        taken = snapshots(run.loop)
        await asyncio.gather(done, ready, fresh)
        return taken

    run = FakeRun(handler)
    taken = run.start().result
    assert {task.path: task.state for task in taken if task.path != "m"} == {
        "m.1": "done",
        "m.2": "ready",
        "m.3": "new",
    }


def test_looking_changes_nothing_and_keeps_nothing() -> None:
    class Held:
        freed: ClassVar[list[bool]] = []

        def __del__(self) -> None:
            self.freed.append(True)

    async def handler(ctx: Context) -> None:
        held = Held()
        await ctx.step("a")
        del held
        await ctx.step("b")

    run, other = FakeRun(handler).start(), FakeRun(handler).start()
    assert "held" in snapshots(run.loop)[0].frames[-1].locals
    assert not Held.freed
    for one in (run, other):
        one.feed(("done", 1, None, 1.0))
    assert len(Held.freed) == 2
    assert run.commands == other.commands


def test_frames_of_a_coroutine_leave_the_engine_out() -> None:
    run = FakeRun(leaf).start()
    assert run.main is not None
    assert [frame.function for frame in frames(run.main.get_coro())][-1] == "leaf"


def test_stacks_as_text() -> None:
    run = FakeRun(audited).start()
    text = format_stacks(snapshots(run.loop))
    assert text.startswith("task m waits for step 1 fetch['a']\n")
    assert "test_inspect.py:" in text
    assert "      item = 'a'\n" in text
    assert "item" not in format_stacks(snapshots(run.loop), locals=False)
