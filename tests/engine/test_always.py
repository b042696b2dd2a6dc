"""`@workflow(always=…)`: what follows a run however it ends, and cannot change how."""

import asyncio
import logging
from typing import Any

import pytest

from refold import ConfigurationError, Context, RunCancelled, RunFailed, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting

pytestmark = pytest.mark.anyio

said: list[str] = []


@pytest.fixture(autouse=True)
def _afresh() -> None:
    said.clear()


@step
async def say(what: str) -> None:
    said.append(what)


@step
async def undo(what: str, fails: bool) -> None:
    if fails:
        raise RuntimeError("cannot be undone")
    said.append(f"un{what}")


@step(compensate=undo)
async def do(what: str, fails: bool) -> None:
    said.append(what)


async def tidy(ctx: Context, status: str) -> None:
    await say(f"status {status}")
    await ctx.sleep(0.001)
    await say("tidied")


@workflow(always=tidy)
async def flow(ctx: Context, how: str) -> str:
    if "compensat" in how:
        await do("it", "failed" in how)
        raise ValueError("no")
    if how == "failed":
        raise ValueError("no")
    if how == "cancelled":
        await ctx.wait_for_event("never")
    return "yes"


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "compensated", "compensation_failed"])
async def test_it_follows_every_end_and_is_told_which(how: str, place: Place) -> None:
    """A35."""
    async with engine(place, flow) as e:
        handle = await e.start(flow, how, id="r")
        if how == "cancelled":
            await waiting(e, "r")
            await handle.cancel("no longer")
        if how == "completed":
            assert await handle.result() == "yes"
        elif how == "cancelled":
            with pytest.raises(RunCancelled, match="no longer"):
                await handle.result()
        else:
            with pytest.raises(RunFailed, match="ValueError: no") as failed:
                await handle.result()
            assert failed.value.status == how
        assert of(handle, *t.ENDS) == handle.events()[-1:]
        assert tags(handle)[-1] == f"run.{how}"
    before = {"compensated": ["it", "unit"], "compensation_failed": ["it"]}.get(how, [])
    assert said == [*before, f"status {how}", "tidied"]


@pytest.mark.parametrize("how", ["completed", "failed"])
async def test_it_goes_on_after_a_restart_in_the_middle_of_it(how: str, place: Place) -> None:
    gate, begun = asyncio.Event(), list[str]()

    @step
    async def slow(status: str) -> None:
        begun.append(status)
        await gate.wait()
        said.append(status)

    async def slowly(ctx: Context, status: str) -> None:
        await say("first")
        await slow(status)

    @workflow(always=slowly, name="flow")
    async def handler(ctx: Context) -> str:
        if how == "failed":
            raise ValueError("no")
        return "yes"

    for count in (1, 2):
        async with engine(place, handler, grace=0) as e:
            await e.start(handler, id="r")
            await until(lambda count=count: len(begun) == count)  # type: ignore[misc]
    gate.set()
    async with engine(place, handler) as e:
        handle = await e.get("r")
        await until(lambda: of(handle, *t.ENDS))
        assert tags(handle)[-1] == f"run.{how}"
    assert said == ["first", how]
    assert begun == [how] * 3


@pytest.mark.parametrize("fault", [ValueError("oops"), SystemExit(3), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("how", ["completed", "failed"])
async def test_its_own_failure_is_told_and_changes_nothing(
    how: str, fault: BaseException, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """A35."""

    async def faulty(ctx: Context, status: str) -> None:
        raise fault

    @workflow(always=faulty)
    async def handler(ctx: Context) -> str:
        if how == "failed":
            raise ValueError("no")
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler, id="r")
        await until(lambda: of(handle, *t.ENDS))
        assert tags(handle)[-1] == f"run.{how}"
        *_, noted = of(handle, t.CheckpointRecorded)
        assert noted.name == "always failed"
        assert type(fault).__name__.encode() in bytes(noted.data)
    (told,) = [record for record in caplog.records if record.name == "refold.run"]
    assert told.levelno == logging.ERROR
    assert "run r: its `always` failed" in told.getMessage()


async def test_a_step_of_it_that_fails_is_a_step_that_failed(place: Place) -> None:
    @step
    async def fails() -> None:
        raise RuntimeError("no")

    async def faulty(ctx: Context, status: str) -> None:
        await fails()

    @workflow(always=faulty)
    async def handler(ctx: Context) -> str:
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler)
        assert await handle.result() == "yes"
        (failed,) = of(handle, t.StepFailed)
        assert failed.error.message == "no"


async def test_a_cancel_meanwhile_does_not_stop_it(place: Place) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        begun.set()
        await gate.wait()
        said.append("tidied")

    async def slowly(ctx: Context, status: str) -> None:
        await slow()

    @workflow(always=slowly)
    async def handler(ctx: Context) -> str:
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler)
        await begun.wait()
        await handle.cancel("stop it all")
        gate.set()
        assert await handle.result() == "yes"
        assert of(handle, t.RunCancelRequested)
    assert said == ["tidied"]


async def test_what_the_handler_left_running_is_stopped_before_it(place: Place) -> None:
    async def last(ctx: Context, status: str) -> None:
        assert len(asyncio.all_tasks()) == 1
        await say("last")

    @workflow(always=last)
    async def handler(ctx: Context) -> str:
        beside = [asyncio.ensure_future(c) for c in (ctx.sleep(99), ctx.wait_for_event("x"))]
        await say("first")
        assert beside
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler)
        assert await handle.result() == "yes"
        events = tags(handle)
        assert events.index("timer.cancelled") < events.index("checkpoint.recorded")
        assert not [note for note in of(handle, t.CheckpointRecorded) if note.name == "always failed"]
    assert said == ["first", "last"]


async def test_it_may_wait_for_events_and_run_more_than_once_when_the_run_ends_again(place: Place) -> None:
    async def waits(ctx: Context, status: str) -> None:
        if status == "completed":
            await say(f"went {await ctx.wait_for_event('go')}")
        await say(status)

    @workflow(always=waits)
    async def handler(ctx: Context) -> str:
        await do("it", fails=False)
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler, id="r")
        await seen(handle, t.WaitOpened)
        await handle.signal("go", 7)
        assert await handle.result() == "yes"
        await e.compensate("r")
        await until(lambda: tags(handle)[-1] == "run.compensated")
    assert said == ["it", "went 7", "completed", "unit", "compensated"]


async def test_a_run_to_be_undone_while_it_tidies_up_is_undone_after_that(place: Place) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        begun.set()
        await gate.wait()

    async def slowly(ctx: Context, status: str) -> None:
        said.append(status)
        await slow()

    @workflow(always=slowly, compensate_on=())
    async def handler(ctx: Context) -> str:
        await do("it", fails=False)
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler, id="r")
        await begun.wait()
        await e.compensate("r")
        gate.set()
        await until(lambda: of(handle, *t.ENDS))
        assert tags(handle)[-1] == "run.compensated"
    assert said == ["it", "completed", "unit", "compensated"]


async def test_it_does_not_run_when_the_run_goes_on_as_a_new_one(place: Place) -> None:
    @workflow(always=tidy)
    async def handler(ctx: Context, left: int) -> str:
        if left:
            ctx.continue_as_new(left - 1)
        return "yes"

    async with engine(place, handler) as e:
        handle = await e.start(handler, 2, id="r")
        assert await handle.result() == "yes"
    assert said == ["status completed", "tidied"]


def test_what_is_no_async_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="always"):
        workflow(always=lambda ctx, status: None)  # type: ignore[arg-type,return-value]


async def test_a_retry_of_a_failed_run_goes_back_to_its_handler_not_to_what_followed(place: Place) -> None:
    """Also when a step of `always` has failed since."""
    mended: list[Any] = []

    @step
    async def fails() -> str:
        if not mended:
            raise RuntimeError("no")
        return "yes"

    async def faulty(ctx: Context, status: str) -> None:
        await say(status)
        await fails()

    @workflow(always=faulty)
    async def handler(ctx: Context) -> str:
        await say("begins")
        return await fails()

    async with engine(place, handler) as e:
        handle = await e.start(handler, id="r")
        with pytest.raises(RunFailed):
            await handle.result()
        mended.append(1)
        await e.retry("r")
        await until(lambda: len(of(handle, *t.ENDS)) == 2)
        assert await handle.result() == "yes"
    assert said == ["begins", "failed", "completed"]


async def test_a_fork_shares_what_the_handler_did_and_has_an_always_of_its_own(place: Place) -> None:
    async with engine(place, flow) as e:
        handle = await e.start(flow, "failed", id="r")
        with pytest.raises(RunFailed):
            await handle.result()
        fork = await e.get(await e.fork("r", id="f"))
        with pytest.raises(RunFailed):
            await fork.result()
        assert len(of(fork, t.CheckpointRecorded)) == 1
    assert said == ["status failed", "tidied"] * 2
