"""A step that kills its process, again and again, is stopped, and a person asked."""

import pytest

from refold import Context, step, workflow
from refold.engine import doubt
from refold.events import types as t
from refold.testing import Mock, TestEngine
from tests.engine.kit import of, until

pytestmark = pytest.mark.anyio

CRASHES = 3


@step
async def poison() -> str:
    return "never, in a test"


@workflow
async def poisoned(ctx: Context) -> str:
    return await poison()


async def die(engine: TestEngine, mock: Mock, times: int) -> None:
    """Let the process die so often while the step runs; it runs again, or nobody dares to."""
    run = await engine.get("r")
    for _ in range(times):
        begun = len(mock.calls)
        await engine.crash()
        await until(lambda: len(mock.calls) > begun or run.status()["attention"] == "in_doubt")  # noqa: B023


async def test_it_is_in_doubt_after_so_many_crashes_and_a_person_goes_on_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doubt, "MAX_CRASHES", CRASHES)
    async with TestEngine(workflows=[poisoned], skip=False) as engine:
        mock = engine.mock(poison, hangs=True)
        handle = await engine.start(poisoned, id="r")
        await until(lambda: mock.calls)
        await die(engine, mock, CRASHES - 1)
        assert handle.status()["attention"] == "none"
        assert len(mock.calls) == CRASHES
        await die(engine, mock, 1)
        status = handle.status()
        assert (status["status"], status["attention"]) == ("waiting", "in_doubt")
        assert "died 3 times in a row" in status["attention_reason"]
        await die(engine, mock, 2)  # it does not run any more
        assert len(mock.calls) == CRASHES
        await engine.resolve_step("r", "poison#1", "retry", by="ana")
        await die(engine, mock, CRASHES - 1)  # as often as before
        assert handle.status()["attention"] == "none"
        await die(engine, mock, 1)
        await engine.resolve_step("r", "poison#1", "completed", "by hand", by="ana")
        assert await handle.result() == "by hand"
        (_, second) = of(handle, t.StepInDoubt)
        assert "died 3 times in a row" in second.reason


async def test_the_limit_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "MAX_CRASHES", 1)
    async with TestEngine(workflows=[poisoned], skip=False) as engine:
        mock = engine.mock(poison, hangs=True)
        handle = await engine.start(poisoned, id="r")
        await until(lambda: mock.calls)
        await die(engine, mock, 1)
        assert handle.status()["attention"] == "in_doubt"  # control: the limit is the one that was set
