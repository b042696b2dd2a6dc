"""Steps that only a worker with a tag executes: each is a run below the one that calls it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from refold import (
    Context,
    Engine,
    Retry,
    RunCancelled,
    RunFailed,
    Settings,
    StepFailed,
    current_step,
    step,
    workflow,
)
from refold.events import types as t
from refold.testing import TestEngine
from tests.engine.kit import PLACES, Place, of, seen, until

pytestmark = pytest.mark.anyio

PATIENCE_S = 90.0
QUICK = {"projections": False, "grace": 0.0, "lease_ttl": 1.5, "lease_refresh": 0.5}


def workers(place: Place, *flows: Any, tags: tuple[str, ...] = (), only: bool = False) -> Engine:
    return Engine(
        place,
        workflows=flows,
        tags=tags,
        only_tagged=only,
        settings=Settings(**QUICK),  # type: ignore[arg-type]
    )


UNDONE: list[tuple[Any, ...]] = []


@step(run_on="gpu")
def forget(epochs: int, result: Any) -> None:
    UNDONE.append((epochs, result))


@step(run_on="gpu", retry=Retry(max_attempts=2, initial_interval=0.01), compensate=forget)
def train(epochs: int) -> tuple[int, str]:
    if epochs < 0:
        error = ValueError("negative")
        error.data = {"epochs": epochs}  # type: ignore[attr-defined]
        raise error
    return epochs, current_step().idempotency_key


@step(run_on="gpu", optional=True)
def may_fail() -> int:
    raise ValueError("as expected")


async def through_a_helper(epochs: int) -> str:
    return (await train(epochs))[1]


@workflow
async def fits(ctx: Context) -> list[Any]:
    found: list[Any] = [await train(1), await may_fail(), await through_a_helper(2)]
    found += list(await ctx.map(train, [3, 4]))
    try:
        await train(-1)
    except StepFailed as error:
        found.append((error.step, error.type, error.message, error.data, error.attempt))
    return found


@pytest.mark.parametrize("kind", PLACES)
async def test_the_handler_sees_an_ordinary_step(kind: str, tmp_path: Path) -> None:
    place = PLACES[kind](tmp_path)
    async with workers(place, fits, tags=("gpu",)) as e:
        handle = await e.start(fits, id="r")
        assert await handle.result() == [
            [1, "r~1/train#1"], None, "r~3/train#1", [3, "r~4/train#1"], [4, "r~5/train#1"],
            ["train#5", "ValueError", "negative", {"epochs": -1}, 2],
        ]  # fmt: skip
        assert [c.run_on for c in of(handle, t.ChildStarted)] == ["gpu"] * 6
        assert len(of(await e.get("r~6"), t.StepAttemptFailed)) == 1, "its retries are those of the step"
        assert e.verify().problems == ()


@workflow
async def fails_later(ctx: Context) -> None:
    await train(7)
    raise RuntimeError("later")


async def test_it_is_undone_where_it_was_done() -> None:
    UNDONE.clear()
    async with workers("memory://", fails_later, tags=("gpu",)) as e:
        with pytest.raises(RunFailed, match="later"):
            await e.run(fails_later, id="r")
        assert UNDONE == [(7, [7, "r~1/train#1"])]
        assert [c.run_on for c in of(await e.get("r"), t.ChildStarted)] == ["gpu", "gpu"]


@workflow
async def one(ctx: Context) -> tuple[int, str]:
    return await train(1)


async def test_it_waits_for_a_worker_with_the_tag_and_meanwhile_takes_nobodys_place(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with workers(url, one) as e:
        handle = await e.start(one, id="r")
        await seen(handle, t.ChildStarted)
        await until(lambda: e.worker.live["r"].idle)
        work = e.store.work("r~1")
        assert work is not None
        assert (work.state, work.run_on) == ("pending", "gpu")
        e.projections.catch_up()
        row = e.runs.get("r~1")
        assert (row["status"], row["run_on"]) == ("pending", "gpu"), "it says what is missing"
    async with workers(url, one, tags=("gpu",)) as e:
        assert await (await e.get("r")).result() == (1, "r~1/train#1")


async def test_who_no_longer_waits_for_it_cancels_it() -> None:
    async with workers("memory://", one) as e:
        handle = await e.start(one, id="r")
        await seen(handle, t.ChildStarted)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result()
        await until(lambda: (work := e.store.work("r~1")) is not None and work.state == "done")


@workflow(name="one", version="2")
async def one_changed(ctx: Context) -> tuple[int, str]:
    return await train(1)


async def test_a_worker_with_other_code_leaves_it_alone_and_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with workers(url, one) as e:
        await seen(await e.start(one, id="r"), t.ChildStarted)
    async with workers(url, one_changed, tags=("gpu",)) as e:
        (said,) = await seen(await e.get("r~1"), t.RunAttention)
        assert "step:train" in said.reason
    async with workers(url, one_changed, one, tags=("gpu",)) as e:
        assert await (await e.get("r")).result() == (1, "r~1/train#1")


async def test_a_test_stands_in_for_it_and_a_crash_changes_nothing() -> None:
    async with TestEngine(workflows=[one]) as e:
        mock = e.mock(train, returns=(5, "mocked"))
        e.crash_after(3)
        assert await e.run(one) == (5, "mocked")
        assert len(mock.calls) == 1
        assert e.crashes == 1


@step
def add(one: int, two: int) -> int:
    return one + two


@workflow
async def goes_on(ctx: Context) -> int:
    return await add((await train(1))[0], 1)


async def test_a_fork_does_not_do_again_what_was_done() -> None:
    async with workers("memory://", goes_on, tags=("gpu",)) as e:
        assert await e.run(goes_on, id="r") == 2
        fork = await e.get(await e.fork("r", id="fork"))
        assert await fork.result() == 2
        assert [child.run_id for child in of(fork, t.ChildStarted)] == ["r~1"]


async def test_outside_of_a_handler_the_body_just_runs() -> None:
    with pytest.raises(ValueError, match="negative"):
        await train(-1)


# ---- several workers ------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
import anyio
from pathlib import Path
from refold import Context, Engine, Settings, step, workflow

@step(run_on="gpu", timeout=None)
def slow(folder: str) -> int:
    own = Path(folder) / f"at-{os.getpid()}"
    own.touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.01)
    return os.getpid()

@workflow
async def plain(ctx: Context, folder: str) -> int:
    return await slow(folder)

async def main() -> None:
    settings = Settings(lease_ttl=1.5, lease_refresh=0.5, grace=0.2)
    async with Engine(sys.argv[1], workflows=[plain], tags=["gpu"], only_tagged=True, settings=settings):
        await anyio.sleep_forever()

if __name__ == "__main__":
    anyio.run(main)
"""


@pytest.fixture
def hire(postgres: str, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts workers with the tag, in processes of their own."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with ExitStack() as stack:

        def start() -> "subprocess.Popen[bytes]":
            env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
            worker = subprocess.Popen([sys.executable, str(program), postgres], env=env)
            stack.callback(worker.wait, 60)
            stack.callback(worker.kill)
            return worker

        yield start


@step(name="slow", run_on="gpu")
def slow_elsewhere(folder: str) -> int:
    raise AssertionError("this worker has no tag")


@workflow(name="plain")
async def asks(ctx: Context, folder: str) -> int:
    return await slow_elsewhere(folder)


async def test_a_worker_that_is_killed_in_mid_step_is_replaced_by_another_with_the_tag(
    postgres: str, hire: Callable[[], "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    async with workers(postgres, asks) as e:
        handle = await e.start(asks, str(tmp_path), id="r")
        first = hire()
        await until(lambda: (tmp_path / f"at-{first.pid}").exists(), PATIENCE_S)
        first.kill()
        second = hire()
        await until(lambda: (tmp_path / f"at-{second.pid}").exists(), PATIENCE_S)
        (tmp_path / "go").touch()
        assert await handle.result(timeout=PATIENCE_S) == second.pid
        below = await e.get("r~1")
        assert [cut.reason for cut in of(below, t.StepInterrupted)] == ["crash"]
        claims = of(below, t.RunClaimed)
        assert len({claim.owner for claim in claims}) == 2
        assert e.worker.owner not in {claim.owner for claim in claims}
        assert e.verify().problems == ()
