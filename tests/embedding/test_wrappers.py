"""Step wrappers: around every body, in order, and nothing of them in the log but what they mean to change."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from refold import (
    ConfigurationError,
    Context,
    Engine,
    NonRetryable,
    NotHappened,
    Retry,
    RunFailed,
    StepInfo,
    step,
    workflow,
)
from tests.engine.kit import until

pytestmark = pytest.mark.anyio

Call = Callable[[], Awaitable[Any]]
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
heard: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    heard.clear()


@step
async def charge(total: int) -> str:
    heard.append("charge")
    return f"receipt for {total}"


@step
def ship(parcel: str) -> str:
    return f"{parcel}, for {tenant.get()}"


@step(retry=Retry(max_attempts=2, initial_interval=0.001))
async def refuse() -> None:
    raise ConnectionError("no")


@step(timeout=0.05)
async def hang() -> None:
    await asyncio.sleep(3600)


@workflow
async def checkout(ctx: Context, total: int) -> str:
    return await ship(await charge(total))


@workflow
async def refused(ctx: Context) -> None:
    await refuse()


@workflow
async def hanging(ctx: Context) -> None:
    await hang()


@workflow
async def nothing(ctx: Context) -> None:
    """Does nothing."""


def engine(*wrappers: Any) -> Engine:
    return Engine("memory://", workflows=[checkout, refused, hanging], step_wrappers=wrappers)


def noting(name: str) -> Any:
    async def wrapper(info: StepInfo, call: Call) -> Any:
        heard.append(f"{name} before {info.key}")
        try:
            return await call()
        finally:
            heard.append(f"{name} after {info.key}")

    return wrapper


async def test_the_first_is_outermost() -> None:
    async with engine(noting("a"), noting("b"), noting("c")) as refold:
        await refold.run(checkout, 5)
    assert heard[:7] == [
        "a before charge#1", "b before charge#1", "c before charge#1", "charge",
        "c after charge#1", "b after charge#1", "a after charge#1",
    ]  # fmt: skip
    assert heard[7] == "a before ship#1"


async def test_it_knows_the_attempt() -> None:
    infos: list[tuple[Any, ...]] = []

    async def wrapper(info: StepInfo, call: Call) -> Any:
        infos.append((info.run_id, info.workflow, info.name, info.key, info.attempt, info.run_trace_id))
        return await call()

    async with engine(wrapper) as refold:
        handle = await refold.start(refused, id="r1", trace_id="ab" * 16)
        with pytest.raises(RunFailed, match="ConnectionError: no"):
            await handle.result()
    assert infos == [("r1", "refused", "refuse", "refuse#1", n, "ab" * 16) for n in (1, 2)]


async def test_what_it_sets_is_seen_in_a_body_also_in_its_thread() -> None:
    async def wrapper(info: StepInfo, call: Call) -> Any:
        token = tenant.set("ana")
        try:
            return await call()
        finally:
            tenant.reset(token)

    async with engine(wrapper) as refold:
        assert await refold.run(checkout, 5) == "receipt for 5, for ana"
    async with engine() as refold:  # control: it is the wrapper that sets it
        assert await refold.run(checkout, 5) == "receipt for 5, for nobody"


async def test_the_log_does_not_tell_that_there_was_one() -> None:
    async def history(*wrappers: Any) -> list[Any]:
        async with engine(*wrappers) as refold:
            handle = await refold.start(checkout, 5, id="o1")
            await handle.result()
            return [(getattr(e, "TAG", ""), getattr(e, "result", None)) for e in handle.events()]

    assert await history(noting("a")) == await history()


async def test_it_may_translate_an_error_and_then_its_own_is_recorded() -> None:
    async def wrapper(info: StepInfo, call: Call) -> Any:
        try:
            return await call()
        except ConnectionError as error:
            raise NonRetryable(f"{info.name}: give up") from error

    async with engine(wrapper) as refold:
        handle = await refold.start(refused, id="r1")
        with pytest.raises(RunFailed, match="NonRetryable: refuse: give up"):
            await handle.result()
        assert [row["attempt"] for row in handle.steps()] == [1]


async def test_what_it_returns_is_the_result() -> None:
    async def wrapper(info: StepInfo, call: Call) -> Any:
        return "mocked" if info.name == "charge" else await call()

    async with engine(wrapper) as refold:
        assert await refold.run(checkout, 5) == "mocked, for nobody"
    assert "charge" not in heard


async def test_a_timeout_passes_through_it() -> None:
    async with engine(noting("a")) as refold:
        with pytest.raises(RunFailed, match=r"took longer than 0\.05 s"):
            await refold.run(hanging)
    assert heard == ["a before hang#1", "a after hang#1"]


async def test_a_cancel_passes_through_it() -> None:
    async with engine(noting("a")) as refold:
        handle = await refold.start(hanging, id="h1")
        await until(lambda: heard)
        await handle.terminate()
        await until(lambda: len(heard) == 2)
    assert heard == ["a before hang#1", "a after hang#1"]


async def test_a_probe_is_no_attempt_and_is_not_wrapped() -> None:
    asked: list[str] = []

    async def probe(total: int) -> NotHappened:
        asked.append("probed")
        return NotHappened()

    tries: list[int] = []

    @step(execution="at_most_once", probe=probe)
    async def pay(total: int) -> int:
        tries.append(total)
        if len(tries) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # as somebody outside would
            await asyncio.sleep(0)
        return total

    @workflow
    async def paying(ctx: Context) -> int:
        return await pay(5)

    async with Engine("memory://", workflows=[paying], step_wrappers=[noting("a")]) as refold:
        assert await refold.run(paying) == 5
    assert asked == ["probed"]
    assert heard == ["a before pay#1", "a after pay#1"] * 2


@pytest.mark.parametrize("wrapper", [print, lambda info, call: call(), 5, noting, nothing])
async def test_what_cannot_wrap_is_refused_when_the_engine_is_made(wrapper: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"step_wrappers|two arguments"):
        engine(wrapper)


async def test_an_object_with_an_async_call_will_do() -> None:
    class Counting:
        count = 0

        async def __call__(self, info: StepInfo, call: Call) -> Any:
            self.count += 1
            return await call()

    counting = Counting()
    async with engine(counting) as refold:
        await refold.run(checkout, 5)
    assert counting.count == 2


async def one_argument(info: StepInfo) -> None:
    """No wrapper."""


async def test_the_wrong_number_of_arguments_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"called with two arguments, \(info, call\)"):
        engine(one_argument)
