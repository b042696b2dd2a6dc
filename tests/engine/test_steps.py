"""Steps: where their bodies run, what a body knows, and what is durable before it begins."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from refold import (
    ConfigurationError,
    Context,
    NonRetryable,
    RunFailed,
    StepFailed,
    current_step,
    step,
    workflow,
)
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen

pytestmark = pytest.mark.anyio


async def test_a_def_runs_in_a_thread_and_an_async_def_on_the_host_loop(place: Place) -> None:
    where: dict[str, Any] = {}

    @step
    def plain(x: int) -> int:
        where["plain"] = threading.current_thread()
        return x + 1

    @step
    async def asynchronous(x: int) -> int:
        where["loop"] = asyncio.get_running_loop()
        await asyncio.sleep(0)
        return x + 1

    @workflow
    async def both(ctx: Context) -> int:
        return await asynchronous(await plain(1))

    async with engine(place, both) as e:
        assert await e.run(both) == 3
    assert where["plain"] is not threading.current_thread()
    assert where["plain"].daemon
    assert where["loop"] is asyncio.get_running_loop()


async def test_many_def_steps_share_a_few_threads(place: Place) -> None:
    names: set[str] = set()

    @step
    def plain(x: int) -> int:
        names.add(threading.current_thread().name)
        return x

    @workflow
    async def many(ctx: Context) -> int:
        return sum(await asyncio.gather(*[plain(x) for x in range(50)]))

    async with engine(place, many, step_threads=3) as e:
        assert await e.run(many) == 1225
    assert len(names) <= 3


async def test_outside_a_handler_a_step_just_runs(place: Place) -> None:
    @step
    async def inner(x: int) -> int:
        return x + 1

    @step
    def plain(x: int) -> int:
        return x + 1

    @step
    async def outer(x: int) -> int:
        return await inner(x) + await plain(x)

    assert await inner(1) == 2
    assert await plain(1) == 2
    assert inner.fn is not inner

    @workflow
    async def nests(ctx: Context) -> int:
        return await outer(1)

    async with engine(place, nests) as e:
        handle = await e.start(nests)
        assert await handle.result() == 4
        assert [event.name for event in of(handle, t.StepScheduled)] == ["outer"], (
            "a step in a step is a call"
        )


async def test_a_body_knows_which_attempt_of_which_step_it_is(place: Place) -> None:
    infos: list[tuple[str, str, int, str]] = []

    @step
    def plain() -> None:
        info = current_step()
        infos.append((info.run_id, info.key, info.attempt, info.idempotency_key))

    @step(name="charge")
    async def asynchronous() -> None:
        await asyncio.create_task(_note())

    async def _note() -> None:
        info = current_step()
        infos.append((info.run_id, info.key, info.attempt, info.idempotency_key))

    @workflow
    async def asks(ctx: Context) -> None:
        await plain()
        await asynchronous()
        await asynchronous()

    async with engine(place, asks) as e:
        await e.run(asks, id="r")
    assert infos == [
        ("r", "plain#1", 1, "r/plain#1"),
        ("r", "charge#1", 1, "r/charge#1"),
        ("r", "charge#2", 1, "r/charge#2"),
    ]
    with pytest.raises(ConfigurationError, match="in the body of a step"):
        current_step()


async def test_nothing_of_the_starters_context_reaches_handler_or_body(place: Place) -> None:
    secret = contextvars.ContextVar("secret", default="none")

    @step
    async def peek() -> str:
        return secret.get()

    @workflow
    async def peeks(ctx: Context) -> list[str]:
        return [secret.get(), await peek()]

    async with engine(place, peeks) as e:
        secret.set("mine")
        handle = await e.start(peeks)
        assert (await handle.result())[0] == "none"


async def test_a_failure_reaches_the_handler_with_its_data_live_and_after_a_restart(place: Place) -> None:
    @step
    async def declines() -> None:
        raise NonRetryable("no funds", data={"code": 51, "tuple": (1, 2)})

    @workflow
    async def handles(ctx: Context) -> list[Any]:
        seen_now: list[Any] = []
        try:
            await declines()
        except StepFailed as error:
            seen_now = [error.step, error.type, error.message, error.data]
        await ctx.wait_for_event("go")
        return seen_now

    async with engine(place, handles) as e:
        handle = await e.start(handles, id="r")
        await seen(handle, t.WaitOpened)
    async with engine(place, handles) as e:
        await e.signal("r", "go")
        assert await (await e.get("r")).result() == [
            "declines#1", "NonRetryable", "no funds", {"code": 51, "tuple": [1, 2]},
        ]  # fmt: skip


async def test_no_body_begins_before_its_intent_is_stored(place: Place) -> None:
    """F12."""
    found: list[bool] = []

    @step
    async def looks() -> None:
        info = current_step()
        rows = e.store.read(info.run_id)
        found.append(any(row.tag == "step.started" for row in rows))

    @workflow
    async def asks(ctx: Context) -> None:
        await asyncio.gather(*[looks() for _ in range(5)])

    async with engine(place, asks) as e:
        await e.run(asks)
    assert found == [True] * 5


async def test_a_pure_step_may_begin_earlier_but_an_effect_waits_for_it(place: Place) -> None:
    """The control of the test above, and the limit of what running ahead may do."""
    stored_at: dict[str, list[str]] = {"pure": [], "effect": []}

    @step(pure=True)
    async def pure(x: int) -> int:
        stored_at["pure"] = [row.tag for row in e.store.read(current_step().run_id)]
        return x + 1

    @step
    async def effect(x: int) -> int:
        stored_at["effect"] = [row.tag for row in e.store.read(current_step().run_id)]
        return x

    @workflow
    async def mixes(ctx: Context) -> int:
        return await effect(await pure(await pure(1)))

    async with engine(place, mixes) as e:
        assert await e.run(mixes) == 3
    assert stored_at["pure"].count("step.completed") == 0
    assert stored_at["effect"].count("step.completed") == 2
    assert stored_at["effect"].count("step.started") == 3


async def test_wrong_arguments_of_a_step_fail_the_step_only(place: Place) -> None:
    @step
    async def takes_two(a: int, b: int) -> int:
        return a + b

    @workflow
    async def wrong(ctx: Context) -> list[str]:
        out = []
        calls: list[Any] = [(1,), (1, 2, 3), (1, "two")]
        for arguments in calls:
            try:
                await takes_two(*arguments)
            except StepFailed as error:
                out.append(f"{error.type}: {error.message}")
        return out

    async with engine(place, wrong) as e:
        missing, surplus, mistyped = await e.run(wrong)
    assert "TypeError" in missing
    assert "'b'" in missing
    assert "TypeError" in surplus
    assert mistyped.startswith("ValueRefused: ")
    assert "takes_two does not fit its annotation: Expected `int`, got `str`" in mistyped


async def test_an_unhandled_step_failure_fails_the_run_with_its_text(place: Place) -> None:
    @step
    def breaks() -> None:
        raise OSError("disk on fire")

    @workflow
    async def lets_it_through(ctx: Context) -> None:
        await breaks()

    async with engine(place, lets_it_through) as e:
        with pytest.raises(RunFailed, match="StepFailed: step breaks#1 failed: OSError: disk on fire"):
            await e.run(lets_it_through)
