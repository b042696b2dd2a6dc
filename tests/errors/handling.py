"""What a handler, or a step, is told when it asks for something that cannot be."""

import asyncio
import math
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest

from refold import (
    Branch,
    Context,
    Engine,
    RunFailed,
    Stage,
    current_step,
    record_cost,
    step,
    workflow,
)
from refold.engine import data
from refold.events import codec, types as t
from refold.events.memory import MemoryStore
from tests.engine.kit import engine, seen
from tests.errors.cases import Said, in_handler, in_step, meets


@step
async def charge(amount: int) -> str:
    return "receipt"


@step
async def fails(text: str = "no") -> None:
    raise ValueError(text)


@workflow
async def one(ctx: Context, n: int = 1) -> int:
    return n


def deep() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


IN_HANDLER: dict[tuple[str, str], Any] = {
    ("ConfigurationError", "…: expected seconds, as an int or a float"): lambda ctx: ctx.sleep(timedelta(1)),
    ("ConfigurationError", "ctx.child() expects a @workflow, got …"): lambda ctx: ctx.child(charge, 1),
    ("ConfigurationError", "ctx.compensate() expects a @step, got …"): lambda ctx: ctx.compensate(print),
    ("ConfigurationError", "ctx.map expects a step, a workflow or a function, got …"): lambda ctx: ctx.map(
        [1], charge
    ),
    ("ConfigurationError", "ctx.map(…, …): expected a list, or what can be listed"): lambda ctx: ctx.map(
        charge, 3
    ),
    ("ConfigurationError", "ctx.map(on_error=…): expected 'fail' or 'continue'"): lambda ctx: ctx.map(
        charge, [1], on_error="stop"
    ),
    ("ConfigurationError", "ctx.map(limit=…): expected an int, 1 or more, or None for all"): lambda ctx: (
        ctx.map(charge, [1], limit=0)
    ),
    ("ConfigurationError", "ctx.map takes at most … items; start several maps, or runs"): lambda ctx: ctx.map(
        charge, range(1_000_001)
    ),
    ("ConfigurationError", "ctx.parallel(…): expected a list of branches"): lambda ctx: ctx.parallel(3),
    (
        "ConfigurationError",
        "ctx.parallel: branch … is …, expected a coroutine (`…`), an …",
    ): lambda ctx: ctx.parallel([3]),
    (
        "ConfigurationError",
        "ctx.parallel(min_success=…): expected 0 to …, the number of branches",
    ): lambda ctx: ctx.parallel([], min_success=1),
    ("ConfigurationError", "ctx.parallel: …: …; lower min_success"): lambda ctx: ctx.parallel(
        [Branch(lambda: charge(1), when=False)], min_success=1
    ),
    (
        "ConfigurationError",
        "run …: ctx.… needs what the steps have returned; declare …",
    ): lambda ctx: ctx.prior_outputs,
    ("ConfigurationError", "options=…: expected a list of texts"): lambda ctx: ctx.approval(
        "Ship?", options="yes"
    ),
    ("ConfigurationError", "voters=…: expected a list of names"): lambda ctx: ctx.approval(
        "Ship?", voters="ana"
    ),
    ("ConfigurationError", "on_timeout=…: expected reject, approve, fail or continue"): lambda ctx: (
        ctx.approval("Ship?", on_timeout="wait")
    ),
    ("ConfigurationError", "approvers=…: expected an int, 1 or more"): lambda ctx: ctx.approval(
        "Ship?", approvers=0
    ),
    (
        "ConfigurationError",
        "approvers=…, but only … of voters=… may vote…: nobody could ever open this gate",
    ): lambda ctx: ctx.approval("Ship?", approvers=3, voters=["ana", "bo"]),
    ("ConfigurationError", "timeout=…: expected seconds, more than 0"): lambda ctx: ctx.approval(
        "Ship?", timeout="1d"
    ),
    (
        "ConfigurationError",
        "a stage without a timeout never escalates: give it one, or end there",
    ): lambda ctx: ctx.approval("Ship?", escalation=[Stage(timeout=1.0)]),
    ("ConfigurationError", "wait_for_input(…): …; give a JSON Schema"): lambda ctx: ctx.wait_for_input(3),
    ("ConfigurationError", "wait_for_input(…): not a JSON Schema: …"): lambda ctx: ctx.wait_for_input(
        {"type": 3}
    ),
    ("ConfigurationError", "… …: expected text of at most 8192 characters, got …"): lambda ctx: ctx.approval(
        3
    ),
    (
        "ValueRefused",
        "… at … is NaN or infinite, which JSON cannot carry; use None or a string",
    ): lambda ctx: ctx.call(print, math.nan),
    ("ValueRefused", "… is nested too deeply, or contains itself; flatten it"): lambda ctx: ctx.call(
        print, deep()
    ),
    ("ValueRefused", "item … of the map: …"): lambda ctx: ctx.map(one, [1, "two"]),
    ("ForbiddenInHandler", "eager tasks are not available in a handler: leave eager_start out"): lambda ctx: (
        asyncio.get_running_loop().create_task(asyncio.sleep(0), eager_start=True)  # type: ignore[call-arg]
    ),
    (
        "ForbiddenInHandler",
        "loop.…() is not available in a handler: put it in a step …",
    ): lambda ctx: asyncio.to_thread(print),
    (
        "ForbiddenInHandler",
        "anyio's …() is I/O, and a handler must not do any: put it in …",
    ): lambda ctx: anyio.connect_tcp("localhost", 1),
    ("WaitTimeout", "run …: no event … within … s"): lambda ctx: ctx.wait_for_event("paid", timeout=0.001),
    ("GateTimedOut", "gate …: nobody decided in time"): lambda ctx: ctx.wait_for_input(str, timeout=0.001),
    ("GateRejected", "gate … was rejected by …: …"): lambda ctx: ctx.approval("Ship?", timeout=0.001),
    ("StepFailed", "step … failed: …: …"): lambda ctx: fails(),
}
for (_kind, _message), _body in IN_HANDLER.items():
    meets(_kind, _message)(lambda folder, body=_body: in_handler(body))

IN_STEP: dict[str, Any] = {
    "record_cost(…): money is Decimal, int or text, never a float": lambda: record_cost(0.25),  # type: ignore[arg-type]
    "record_cost(…): not an amount of money": lambda: record_cost("much"),
    "record_cost(…): expected a finite amount, 0 or more": lambda: record_cost("-1"),
    "record_cost(…=…): expected an int, 0 or more": lambda: record_cost(1, input_tokens=1.5),  # type: ignore[arg-type]
    "run … has no … folder: it was started without one; give …": lambda: current_step().artifacts_dir,
    "artifact(…): expected either path= or data=": lambda: current_step().artifact("report"),
    "artifact(…, data=…): expected bytes, got …": lambda: current_step().artifact("report", data="text"),  # type: ignore[arg-type]
}
for _message, _body in IN_STEP.items():
    meets("ConfigurationError", _message)(lambda folder, body=_body: in_step(body))


@meets("ValueRefused", "… has … bytes, the limit is …: store it elsewhere and return a reference")
async def a_result_beyond_the_limit(folder: Path) -> Said:
    return await in_step(lambda: "x" * codec.MAX_BYTES)


@meets("ValueRefused", "artifact … has … bytes, the limit is …: write it to a file and give its path")
async def an_artifact_beyond_the_limit(folder: Path) -> Said:
    with mock.patch.object(codec, "MAX_BYTES", 1_000):
        return await in_step(lambda: current_step().artifact("dump", data=bytes(1_001)), files=str(folder))


@meets(
    "ValueRefused",
    '… is an object with the keys "$blob" and "size" only, which …',
)
async def what_looks_like_a_reference(folder: Path) -> Said:
    return await in_step(lambda: {"$blob": "x", "size": 3})


@meets(
    "ValueRefused",
    "… at …: …; return plain data (dict, list, str, int, float …",
)
async def a_forgotten_await(folder: Path) -> Said:
    async def later() -> int:
        return 1

    made: list[Any] = []

    def body() -> Any:
        made.append(later())
        return {"total": made[0]}

    try:
        return await in_step(body)
    finally:
        made[0].close()


@meets("ValueRefused", "… does not fit its annotation: …")
async def a_result_of_another_type(folder: Path) -> Said:
    def body() -> int:
        return "one"  # type: ignore[return-value]

    return await in_step(body)


@meets("ConfigurationError", "run …: its folders cannot be made: …")
async def a_file_where_the_folders_should_be(folder: Path) -> Said:
    (folder / "artifacts").write_text("in the way")
    return await in_handler(lambda ctx: charge(1), files=str(folder))


@meets("ConfigurationError", "current_step() and record_cost() work in the body of a step that a run called")
def outside_of_a_step(folder: Path) -> None:
    current_step()


@meets(
    "ConfigurationError",
    "run …: ctx.set(…): the shared context has … keys, which is …",
)
async def too_many_keys(folder: Path) -> Said:
    def many(ctx: Context) -> None:
        for n in range(4):
            ctx.set(f"k{n}", n)

    with mock.patch.object(data, "MAX_KEYS", 3):
        return await in_handler(many)


@workflow(recursive=True)
async def below(ctx: Context) -> None:
    await ctx.child(below)


@meets("ConfigurationError", "children may go … deep (Settings.max_depth), this would be …: …")
async def children_without_end(folder: Path) -> Said:
    return await in_handler(lambda ctx: ctx.child(below), below, max_depth=0)


# ---- how runs, steps and children end


@meets("StepTimedOut", "step … failed: StepTimedOut: attempt … took longer than … s")
async def an_attempt_takes_too_long(folder: Path) -> Said:
    return await in_handler(lambda ctx: ctx.call(asyncio.sleep, 10, timeout=0.001))


@step(total_timeout=0.001, timeout=None)
async def slow() -> None:
    await asyncio.sleep(10)


@meets("StepTimedOut", "step … failed: StepTimedOut: its attempts took longer than … s…")
async def all_attempts_take_too_long(folder: Path) -> Said:
    return await in_handler(lambda ctx: slow())


@step(execution="at_most_once", on_unknown="fail")
async def transfer() -> None:
    await asyncio.get_running_loop().create_future()


@meets(
    "StepInterrupted",
    "step … failed: StepInterrupted: attempt … was cut off and may …",
)
async def a_step_is_cut_off(folder: Path) -> Said:
    @workflow
    async def pays(ctx: Context) -> None:
        await transfer()

    store = MemoryStore()
    async with engine(store, pays, grace=0) as e:
        run = await e.start(pays)
        await seen(run, t.StepStarted)
    async with engine(store, pays) as e:
        return await failure(e, run.id)


async def failure(e: Engine, run_id: str) -> Said:
    with pytest.raises(RunFailed) as met:
        await (await e.get(run_id)).result()
    return Said(met.value.type, met.value.message)


@workflow
async def breaks(ctx: Context) -> None:
    await fails()


@meets("ChildFailed", "child … is …: …: …")
async def a_child_fails(folder: Path) -> Said:
    return await in_handler(lambda ctx: ctx.child(breaks), breaks)


@meets("RunFailed", "run … failed: …: …")
async def a_run_fails(folder: Path) -> None:
    async with engine("memory://", breaks) as e:
        await e.run(breaks)


@step
async def undo() -> None: ...


@step
async def cannot_undo() -> None:
    raise ValueError("no")


@step(compensate=undo)
async def book() -> None: ...


@step(compensate=cannot_undo)
async def book_for_good() -> None: ...


@workflow
async def trip(ctx: Context, undoable: bool) -> None:
    await (book() if undoable else book_for_good())
    await fails()


@meets("RunFailed", "run … is compensated: …: …")
async def a_run_is_undone(folder: Path) -> None:
    async with engine("memory://", trip) as e:
        await e.run(trip, True)


@meets("RunFailed", "run … is compensation failed: …: …")
async def a_run_cannot_be_undone(folder: Path) -> None:
    async with engine("memory://", trip) as e:
        await e.run(trip, False)


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("never")


@meets("RunCancelled", "run … was cancelled: …")
async def a_run_is_cancelled(folder: Path) -> None:
    async with engine("memory://", waits) as e:
        run = await e.start(waits)
        await run.cancel("no longer needed")
        await run.result()


@meets("RunCancelled", "run … was terminated: …")
async def a_run_is_terminated(folder: Path) -> None:
    async with engine("memory://", waits) as e:
        run = await e.start(waits)
        await e.terminate(run.id)
        await run.result()


@meets("ValueRefused", "arguments of step …: …")
async def an_argument_without_a_form(folder: Path) -> Said:
    return await in_handler(lambda ctx: ctx.call(print, object()))
