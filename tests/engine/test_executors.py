"""Steps whose bodies an executor runs: the cluster computes, the log decides what counts."""

import asyncio
import contextlib
import importlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, RunFailed, Settings, StepFailed, workflow
from refold.engine.doubt import MAX_CRASHES
from refold.errors import ConfigurationError
from refold.events import types as t
from refold.executors import Executor, TaskLost
from tests.engine import far
from tests.engine.kit import of, seen

pytestmark = pytest.mark.anyio


class Threads:
    """The smallest cluster: threads of this process; the first so many tasks are lost."""

    def __init__(self, loses: int = 0) -> None:
        self.loses, self.asked, self.cancelled = loses, 0, 0
        self.payloads: list[bytes] = []

    async def run(self, target: Callable[[bytes], bytes], payload: bytes) -> bytes:
        self.asked += 1
        self.payloads.append(payload)
        if self.asked <= self.loses:
            raise TaskLost("its machine is gone")
        try:
            return await asyncio.to_thread(target, payload)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def engine_with(executor: Executor, *workflows: Any, place: Any = "memory://") -> Engine:
    settings = Settings(projections=False, grace=0.0)
    return Engine(place, workflows=workflows, settings=settings, executors={"cluster": executor})


@workflow
async def weighing(ctx: Context, words: list[str]) -> list[Any]:
    return list(await ctx.map(far.weighs, words))


async def weighed(executor: Executor) -> None:
    async with engine_with(executor, weighing) as e:
        handle = await e.start(weighing, ["a", "bb", "ccc"], id="r")
        assert await handle.result() == [[1, "r/weighs#1"], [2, "r/weighs#2"], [3, "r/weighs#3"]]
        assert sorted(cost.model for cost in of(handle, t.CostRecorded)) == ["a", "bb", "ccc"]
        assert e.verify().problems == ()


async def test_a_map_over_a_step_that_an_executor_runs() -> None:
    executor = Threads()
    await weighed(executor)
    assert executor.asked == 3
    assert b'"qualname":"weighs"' in executor.payloads[0], "a name and JSON, nothing else"


@workflow
async def failing(ctx: Context, folder: str) -> str:
    try:
        await far.fails_there(folder)
    except StepFailed as error:
        return f"{error.type} {error.attempt} {error.data}"
    return "never"


async def test_what_fails_there_is_tried_again_as_the_step_says(tmp_path: Path) -> None:
    async with engine_with(Threads(), failing) as e:
        assert await e.run(failing, str(tmp_path)) == "Unlucky 2 {'odds': 13}"
    assert (tmp_path / "tries").read_text() == "xx"


async def test_a_lost_task_was_cut_off_and_is_made_again_though_not_for_ever() -> None:
    async with engine_with(Threads(loses=2), weighing) as e:
        handle = await e.start(weighing, ["a"], id="r")
        assert await handle.result() == [[1, "r/weighs#1"]]
        lost = [cut.reason for cut in of(handle, t.StepInterrupted)]
        assert lost == ["lost: its machine is gone"] * 2
    executor = Threads(loses=100)
    async with engine_with(executor, weighing) as e:
        handle = await e.start(weighing, ["a"], id="r")
        await seen(handle, t.StepInDoubt)
        assert executor.asked == MAX_CRASHES


@workflow
async def late(ctx: Context, seconds: float) -> str:
    return await far.takes_long(seconds)


async def test_the_fence_is_ours_and_a_result_that_comes_late_counts_for_nothing() -> None:
    executor = Threads()
    async with engine_with(executor, late) as e:
        with pytest.raises(RunFailed, match="StepTimedOut"):
            await e.run(late, 0.6, id="r")
        assert executor.cancelled == 1
        handle = await e.get("r")
        assert not of(handle, t.StepCompleted, t.StepLate)


async def test_an_engine_without_the_executor_refuses_the_workflow() -> None:
    with pytest.raises(ConfigurationError, match=r"this engine has 'process'; give it the executor"):
        Engine("memory://", workflows=[weighing])
    Engine("memory://", workflows=[weighing], execute=False)


# ---- Dask -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def dask(folder: Path, *, processes: bool) -> AsyncIterator[tuple[Any, Any]]:
    """A cluster on this machine, and an executor for it."""
    distributed, config = pytest.importorskip("distributed"), pytest.importorskip("dask.config")
    executors = importlib.import_module("refold.executors.dask")
    here = config.set({"temporary-directory": str(folder)})
    async with (
        distributed.LocalCluster(
            n_workers=2 if processes else 1, threads_per_worker=2, processes=processes, asynchronous=True,
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
            host="127.0.0.1" if processes else None,
        ) as cluster,
        distributed.Client(cluster, asynchronous=True) as client,
    ):  # fmt: skip
        with here:
            yield cluster, executors.DaskExecutor(client)


async def test_dask_runs_the_bodies_of_steps(tmp_path: Path) -> None:
    async with dask(tmp_path, processes=False) as (_, executor):
        await weighed(executor)


@workflow
async def survives(ctx: Context, file: str) -> int:
    return await far.kills_its_worker_once(file)


@pytest.mark.slow
async def test_a_dask_worker_that_dies_takes_no_run_along(tmp_path: Path) -> None:
    async with dask(tmp_path, processes=True) as (_, executor):
        async with engine_with(executor, survives, weighing) as e:
            died = await e.run(survives, str(tmp_path / "worker"))
            assert died
        await weighed(executor)


# ---- Ray ------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_ray_runs_the_bodies_of_steps() -> None:
    ray = pytest.importorskip("ray", reason='pip install "refold[ray]"')
    executors = importlib.import_module("refold.executors.ray")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # a socket's path must be short
        here = {"_node_ip_address": "127.0.0.1", "_temp_dir": folder}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, **here)
        try:
            await weighed(executors.RayExecutor())
        finally:
            ray.shutdown()
