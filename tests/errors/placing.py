"""Steps that are to run in another process or on a cluster, and cannot."""

from pathlib import Path
from typing import Any

from msgspec import Raw

from refold import Context, Engine, Step, step, workflow
from refold.engine import remote
from refold.engine.executors import check_executors
from refold.events import types as t
from tests.engine import far
from tests.engine.kit import engine, of
from tests.errors.cases import Said, meets


@workflow
async def weighs(ctx: Context) -> list[Any]:
    return await far.weighs("word")


def shadowed() -> int:
    return 1


FIRST = step(run_in="process")(shadowed)


@workflow
async def calls_the_first(ctx: Context) -> int:
    return await FIRST()


@meets("ConfigurationError", "@step(run_in=…) …: …; another process finds it…")
def inside_a_function(folder: Path) -> Step[[], int]:
    return step(run_in="process")(lambda: 1)


@step(name="train", run_on="gpu")
def one_train() -> None: ...


@step(name="train", run_on="gpu")
def other_train() -> None: ...


@workflow
async def trains_both(ctx: Context) -> None:
    await one_train()
    await other_train()


@meets("ConfigurationError", "two steps with run_on are called …")
def two_of_a_name(folder: Path) -> object:
    return Engine("memory://", workflows=[trains_both])


@meets("ConfigurationError", "@step(run_in=…) …: ….… is something else now, …")
async def another_under_its_name(folder: Path) -> Said:
    before, globals()["shadowed"] = globals()["shadowed"], None
    try:
        async with engine("memory://", calls_the_first) as e:
            handle = await e.start(calls_the_first)
            await e.end_of(handle.id)
            (failed,) = of(handle, t.StepFailed)
            return Said(failed.error.type, failed.error.message)
    finally:
        globals()["shadowed"] = before


@meets("ConfigurationError", "run_in=… with execution='at_most_once': …")
def once_on_a_cluster(folder: Path) -> object:
    return step(run_in="dask", execution="at_most_once")(shadowed)


@meets("ConfigurationError", "executors=…: expected a dict…")
def executors_in_a_list(folder: Path) -> object:
    return check_executors([object()])


@meets("ConfigurationError", "executors={…: …}: expected an object …")
def no_executor(folder: Path) -> object:
    return check_executors({"dask": "tcp://127.0.0.1:8786"})


@meets("ConfigurationError", "@step(run_in=…) …: this engine has …")
def executor_not_given(folder: Path) -> object:
    return Engine("memory://", workflows=[weighs])


@meets("ConfigurationError", "… makes an engine when it is imported, …")
def engine_while_it_is_imported(folder: Path) -> object:
    with remote.loading_main("app.py"):
        return Engine("memory://")


@meets("ConfigurationError", "step …: there is no function ….… where it is to run; …")
def not_there(folder: Path) -> Said:
    call = remote.Call(
        module=__name__, qualname="nowhere", args=Raw(b"[]"), kwargs=Raw(b"{}"), count=0, step="s", key="s#1",
        run_id="r", attempt=1, workflow="w", trace="", files="",
    )  # fmt: skip
    end = remote.decode_reply(remote.execute(remote.encode(call))).end
    assert isinstance(end, remote.Failed)
    return Said(end.failure.type, end.failure.message)
