"""Handlers that misbehave: each ends visibly, harms only its own run, and goes on when its code is mended."""

import asyncio
import logging
import time
from typing import Any

import pytest

from refold import ConfigurationError, Context, NonRetryable, RunFailed, StepFailed, step, workflow
from refold.errors import HandlerStuck
from refold.events import types as t
from refold.events.errors import HandlerError
from tests.engine.kit import Place, engine, of, seen, tags, until, work_agrees

pytestmark = pytest.mark.anyio


@step
async def one() -> int:
    return 1


class Exotic(BaseException):
    pass


EXITS: dict[str, BaseException] = {
    "SystemExit": SystemExit(3),
    "GeneratorExit": GeneratorExit("out"),
    "a BaseException": Exotic("strange"),
    "StopIteration": StopIteration("stop"),
    "StopAsyncIteration": StopAsyncIteration("stop"),
    "an error whose text raises": type("Rude", (Exception,), {"__str__": lambda self: 1 / 0})(),
    "an error with half a character": ValueError("\ud800"),
    "an error with wild data": type("Wild", (Exception,), {"data": property(lambda self: 1 / 0)})("x"),
    "an error with large data": NonRetryable("x", data="x" * 100_000_000),
    "an error group": BaseExceptionGroup("several", [ValueError("a"), SystemExit(1)]),
}


@pytest.mark.parametrize("where", ["handler", "task", "task group"])
@pytest.mark.parametrize("what", EXITS)
async def test_whatever_a_handler_raises_ends_its_run_and_nothing_else(
    what: str, where: str, place: Place
) -> None:
    async def raises() -> None:
        raise EXITS[what]

    @workflow
    async def explodes(ctx: Context) -> None:
        await one()
        if where == "handler":
            await raises()
        elif where == "task":
            await asyncio.gather(raises())
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(raises())

    @workflow
    async def bystander(ctx: Context) -> Any:
        return await ctx.wait_for_event("go")

    async with engine(place, explodes, bystander) as e:
        other = await e.start(bystander)
        handle = await e.start(explodes)
        with pytest.raises(RunFailed):
            await handle.result(timeout=20)
        assert tags(handle)[-1] == "run.failed"
        await other.signal("go", "unharmed")
        assert await other.result() == "unharmed"
    async with engine(place, explodes, bystander) as e:
        with pytest.raises(RunFailed):
            await (await e.get(handle.id)).result()


@pytest.mark.parametrize("what", [*EXITS, "KeyboardInterrupt in a thread"])
async def test_whatever_a_body_raises_fails_its_step_and_nothing_else(what: str, place: Place) -> None:
    @step
    async def raises() -> None:
        raise EXITS[what]

    @step
    def raises_in_a_thread() -> None:
        raise EXITS.get(what) or KeyboardInterrupt

    @workflow
    async def survives(ctx: Context) -> list[str]:
        out = []
        for body in (raises, raises_in_a_thread) if what in EXITS else (raises_in_a_thread,):
            try:
                await body()
            except StepFailed as error:
                out.append(error.step)
        return out

    async with engine(place, survives) as e:
        assert await (await e.start(survives)).result(timeout=20)


async def test_a_handler_that_blocks_is_named_with_its_line(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="refold.watchdog")

    @workflow
    async def blocks(ctx: Context) -> None:
        hold_up(caplog)

    async with engine(place, blocks, blocking_limit=0.05, determinism="off") as e:
        await e.run(blocks, id="slowpoke")
    record, *_ = [record for record in caplog.records if record.name == "refold.watchdog"]
    text = record.getMessage()
    assert "run slowpoke: its handler has been busy for more than 0.1 s" in text
    assert "put slow or blocking work in a step" in text
    assert "the very line that is to be named" in text


def hold_up(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 20
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)  # the very line that is to be named


@pytest.mark.parametrize("when", ["first", "later"])
async def test_a_handler_that_never_becomes_idle_is_stuck_until_its_code_is_mended(
    when: str, place: Place
) -> None:
    async def _spins(ctx: Context) -> list[Any]:
        out = [await one()] if when == "later" else []
        if when == "later":
            out.append(await ctx.wait_for_event("go"))
        while True:
            await ctx.sleep(0)

    async def _mended(ctx: Context) -> list[Any]:
        out = [await one()] if when == "later" else []
        if when == "later":
            out.append(await ctx.wait_for_event("go"))
        out.append(await one())
        return out

    spins, mended = workflow(name="w")(_spins), workflow(name="w")(_mended)

    @workflow
    async def bystander(ctx: Context) -> int:
        return await one()

    async with engine(place, spins, bystander) as e:
        handle = await e.start(spins, id="r")
        if when == "later":
            await seen(handle, t.WaitOpened)
            await handle.signal("go", "gone")
        with pytest.raises(HandlerStuck, match=r"callbacks without waiting for anything.*sleep\(0\)"):
            await handle.result(timeout=60)
        (attention,) = await seen(handle, t.RunAttention)
        assert attention.kind == "stuck"
        assert "_spins" in attention.reason
        assert await e.run(bystander) == 1, "other runs go on"
        assert work_agrees(e.store)
    async with engine(place, mended, bystander) as e:
        handle = await e.get("r")
        assert await handle.result(timeout=20) == ([1, "gone", 1] if when == "later" else [1])
        assert [a.kind for a in of(handle, t.RunAttention)] == ["stuck", "none"]


BAD_NAMES: list[Any] = ["x" * 1_000_000, "\ud800", 7, "", None]


async def test_code_that_gets_stuck_where_it_once_went_on_is_stuck_until_mended(place: Place) -> None:
    """In replay: nothing is consumed, and a look by an engine without the code changes nothing."""
    spinning = False

    @workflow(name="w")
    async def turns(ctx: Context) -> Any:
        while spinning:
            await ctx.sleep(0)
        return [await one(), await ctx.wait_for_event("go")]

    @workflow
    async def bystander(ctx: Context) -> int:
        return await one()

    async with engine(place, turns) as e:
        await seen(await e.start(turns, id="r"), t.WaitOpened)
    spinning = True
    for count, flow, kind in ((1, turns, "stuck"), (2, bystander, "no_worker")):
        async with engine(place, flow) as e:
            handle = await e.get("r")
            if flow is turns:
                await handle.signal("go", "kept")
            with pytest.raises(HandlerError):
                await handle.result(timeout=60)
            kinds = [note.kind for note in await seen(handle, t.RunAttention, count)]
            assert kinds[-1] == kind
            assert work_agrees(e.store)
    spinning = False
    async with engine(place, turns) as e:
        handle = await e.get("r")
        assert await handle.result(timeout=20) == [1, "kept"]
        assert work_agrees(e.store)


async def test_names_that_cannot_be_are_refused_where_they_are_written(place: Place) -> None:
    async def body(ctx: Any = None) -> None: ...

    for bad in ("x" * 1_000_000, "a\nb", "\ud800", "\0"):
        with pytest.raises(ConfigurationError, match="step name"):
            step(name=bad)(body)
        with pytest.raises(ConfigurationError, match="workflow name"):
            workflow(name=bad)(body)
        with pytest.raises(ConfigurationError, match="workflow version"):
            workflow(version=bad)(body)
    with pytest.raises(ConfigurationError, match="expected no '#'"):
        step(name="a#1")(body)

    @workflow
    async def listens(ctx: Context) -> list[str]:
        out = []
        for bad in BAD_NAMES:
            try:
                await ctx.wait_for_event(bad)
            except ConfigurationError as error:
                out.append(str(error))
        return [*out, await ctx.wait_for_event("fine")]

    async with engine(place, listens) as e:
        handle = await e.start(listens)
        for bad in BAD_NAMES:
            with pytest.raises(ConfigurationError, match="event name") as refused:
                await handle.signal(bad)
            assert len(str(refused.value)) < 300
            with pytest.raises(ConfigurationError):
                await handle.signal("fine", by=bad)
        with pytest.raises(ConfigurationError, match="reason"):
            await handle.cancel(BAD_NAMES[2])
        with pytest.raises(ConfigurationError, match="signal id"):
            await handle.signal("fine", id=BAD_NAMES[2])
        await handle.signal("fine", "end")
        result = await handle.result()
        assert len(result) == 6
        assert all("event name" in text for text in result[:5])


def test_what_cannot_be_a_step_or_workflow_is_refused_where_it_is_written() -> None:
    async def generator() -> Any:
        yield 1

    def plain(ctx: Context) -> None: ...

    async def without_ctx() -> None: ...

    no_steps: list[Any] = [generator, int, 7]
    for bad in no_steps:
        with pytest.raises(ConfigurationError, match="@step"):
            step(bad)
    no_workflows: list[Any] = [plain, without_ctx, int]
    for bad in no_workflows:
        with pytest.raises(ConfigurationError, match="@workflow"):
            workflow(bad)
    no_options: list[dict[str, Any]] = [
        *[{"timeout": limit} for limit in (0, -1, float("nan"), float("inf"))],
        {"execution": "twice"}, {"on_unknown": "guess"}, {"execution": "at_most_once", "pure": True},
    ]  # fmt: skip
    for options in no_options:
        with pytest.raises(ConfigurationError):
            step(**options)(without_ctx)


async def test_a_thousand_tasks_that_all_fail_at_once_fail_the_run_only(place: Place) -> None:
    @step
    async def breaks(n: int) -> None:
        raise ValueError(n)

    @workflow
    async def crowd(ctx: Context) -> str:
        errors = await asyncio.gather(*[breaks(n) for n in range(300)], return_exceptions=True)
        return f"{len(errors)} {type(errors[0]).__name__}"

    async with engine(place, crowd) as e:
        assert await e.run(crowd) == "300 StepFailed"


async def test_a_run_whose_handler_waits_for_nothing_stays_waiting_and_can_be_cancelled(place: Place) -> None:
    @workflow
    async def deadlock(ctx: Context) -> None:
        await asyncio.Event().wait()

    async with engine(place, deadlock) as e:
        handle = await e.start(deadlock)
        await until(lambda: (work := e.store.work(handle.id)) is not None and work.state == "waiting")
        await handle.cancel()
        with pytest.raises(Exception, match="cancelled"):
            await handle.result(timeout=20)
