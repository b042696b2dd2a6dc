"""Workflows, steps, settings, engines and tables of one's own that cannot work as they are written."""

import asyncio
import functools
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, cast
from unittest import mock

import msgspec

import refold
from refold import Context, Engine, Retry, Settings, step, workflow
from refold.engine import _compat
from refold.projections import projection, runner
from refold.projections.projection import column
from tests.engine.kit import engine
from tests.errors.cases import Provoke, Said, in_handler, meets

MADE_BY: dict[str, Provoke] = {}
"""Messages of `ConfigurationError`, and what is written wrongly."""


@step
async def charge(amount: int) -> str:
    return "receipt"


@workflow
async def checkout(ctx: Context, amount: int) -> str:
    return await charge(amount)


def plain(ctx: Any) -> None: ...


async def handler(ctx: Any) -> None: ...


async def without_parameters() -> None: ...


class Shop:
    async def charge(self, amount: int) -> None: ...


async def items() -> Any:
    yield 1


@workflow
async def around(ctx: Context) -> None:
    await ctx.child(around)


async def takes_three(a: int, b: int, c: int) -> None: ...


MADE_BY |= {
    "@workflow expects an `async def` function, got …": lambda _: workflow(plain),  # type: ignore[arg-type]
    "@workflow …: the first parameter must be `ctx`": lambda _: workflow(without_parameters),  # type: ignore[arg-type]
    "… …: expected 1 to 200 printable characters, got …": lambda _: workflow(functools.partial(handler)),
    "timeout=…: expected seconds, more than 0, or None": lambda _: workflow(timeout=timedelta(1)),  # type: ignore[call-overload]
    "always=…: expected `async def always(ctx, status)`": lambda _: workflow(always=plain),  # type: ignore[arg-type]
    "compensate_on=…: expected 'failure', 'cancel', both, or none of them": lambda _: workflow(
        compensate_on="fail"  # type: ignore[arg-type]
    ),
    "@step expects a function, got …": lambda _: step(Path),
    "@step … is a generator; return a list instead": lambda _: step(items),
    "@step … is a method, and no object is recorded: …": lambda _: step(Shop.charge),
    "step name …: expected no '#', it separates name and ordinal in keys": lambda _: step(name="a#1")(plain),
    "retry=…: expected Retry(max_attempts=…), or None for one": lambda _: step(retry=3),  # type: ignore[call-overload]
    "…: expected max_attempts >= 1, backoff >= 1, 0 <= jitter < 1 …": lambda _: Retry(
        max_attempts="3"  # type: ignore[arg-type]
    ),
    "non_retryable=…: expected a tuple of exception classes": lambda _: Retry(
        non_retryable=[ValueError]  # type: ignore[arg-type]
    ),
    "…: expected 0 to … seconds, or None for no limit": lambda _: step(timeout="30"),  # type: ignore[call-overload]
    "execution=…: expected 'at_least_once' or 'at_most_once'": lambda _: step(execution="once"),  # type: ignore[call-overload]
    "execution='at_most_once' allows neither retry nor pure=True": lambda _: step(
        execution="at_most_once", pure=True
    ),
    "on_unknown=…: expected 'retry', 'fail' or 'ask'": lambda _: step(on_unknown="guess"),  # type: ignore[call-overload]
    "probe=…: expected a function, `async` or not": lambda _: step(probe=True),  # type: ignore[call-overload]
    "…=…: expected a @step, or the name of one": lambda _: step(compensate=plain),  # type: ignore[call-overload]
    "step …: …=…: … has …; give it the step": lambda _: step(compensate="refund")(handler).undo,
    "step_wrappers=[…] expects `async def wrapper(info, call)`, got …": lambda _: Engine(
        "memory://",
        step_wrappers=[3],  # type: ignore[list-item]
    ),
    "step wrapper … is called with two arguments, (info, call): …": lambda _: Engine(
        "memory://",
        step_wrappers=[takes_three],  # type: ignore[list-item]
    ),
    "Engine(…): expected a URL, a path or an open store first": lambda _: Engine([checkout]),  # type: ignore[arg-type]
    "settings=…: expected Settings(…)": lambda _: Engine("memory://", settings={"grace": 1}),  # type: ignore[arg-type]
    "clock=…: expected a clock, which has now()": lambda _: Engine("memory://", clock=3),  # type: ignore[arg-type]
    "workflows=…: expected a list, workflows=[…]": lambda _: Engine("memory://", workflows=checkout),  # type: ignore[arg-type]
    "workflows=[…] expects @workflow functions, got …": lambda _: Engine("memory://", workflows=[handler]),  # type: ignore[list-item]
    "two workflows are called … version …: give one of them another name or version": lambda _: Engine(
        "memory://", workflows=[checkout, workflow(name="checkout")(handler)]
    ),
    "…: … would run inside itself; declare it …": lambda _: Engine("memory://", workflows=[around]),
    "Settings(…=…): expected an int, … or more": lambda _: Settings(max_active=0),
    "Settings(…=…): expected seconds, 0 or more": lambda _: Settings(grace="10"),  # type: ignore[arg-type]
    "Settings(files=…): expected the path of a folder": lambda _: Settings(files=None),  # type: ignore[arg-type]
    "Settings(…=…): expected seconds, more than 0": lambda _: Settings(lease_ttl=0),
    "Settings(lease_ttl=…, lease_refresh=…): expected a refresh of at most half the ttl, …": (
        lambda _: Settings(lease_ttl=5)
    ),
    "determinism=…: expected 'strict', 'warn' or 'off'": lambda _: Settings(determinism="lax"),  # type: ignore[arg-type]
    "the engine is not open: use `async with Engine(…) as engine:`": lambda _: Engine("memory://").store,
}
for _message, _provoke in MADE_BY.items():
    meets("ConfigurationError", _message)(_provoke)


# ---- engines in use


@meets("ConfigurationError", "this engine is already open; make a second Engine")
async def enter_twice(folder: Path) -> None:
    async with Engine("memory://") as e, e:
        pass


@meets("ConfigurationError", "this engine does not execute: make it with Engine(…, execute=True)")
async def ask_for_the_worker_of_none(folder: Path) -> None:
    async with Engine("memory://", execute=False) as e:
        e.worker  # noqa: B018 - it raises


@meets("ConfigurationError", "the engine was opened on another event loop; …")
async def use_from_another_loop(folder: Path) -> None:
    async with Engine("memory://", workflows=[checkout]) as e:
        await asyncio.to_thread(lambda: asyncio.run(e.run(checkout, 1)))


@meets("ConfigurationError", "the engine was closed before run … ended; …")
async def close_while_somebody_waits(folder: Path) -> None:
    @workflow
    async def sleeper(ctx: Context) -> None:
        await ctx.sleep(1000)

    async with engine("memory://", sleeper, grace=0) as e:
        handle = await e.start(sleeper)
        waiter = asyncio.ensure_future(handle.result())
        await asyncio.sleep(0)
    await waiter


@meets("ConfigurationError", "the handler loop needs …, which Python … with anyio … does not have; …")
def a_python_it_is_not_made_for(folder: Path) -> None:
    with mock.patch.object(_compat, "_missing", return_value=["asyncio.Task._fut_waiter"]):
        _compat.self_test(asyncio)


@meets("ConfigurationError", "refold.run(…) blocks, and an event loop runs in this thread already …")
async def block_in_async_code(folder: Path) -> None:
    refold.run(checkout, 1, store="memory://")


@meets("ConfigurationError", "refold.run(…) blocks, and a handler must not: write `await ctx.child(…, …)`")
async def block_in_a_handler(folder: Path) -> Said:
    return await in_handler(lambda ctx: refold.run(checkout, 1, store="memory://"))


@meets("NotRegistered", "workflow … version … is not registered: Engine(…, workflows=[…])")
async def start_what_is_not_registered(folder: Path) -> None:
    async with engine("memory://") as e:
        await e.start(checkout, 1)


# ---- read models of one's own


class Row(msgspec.Struct, frozen=True):
    run_id: Annotated[str, column("Which run.")]
    count: Annotated[int, column("How many.")]


class Bare(msgspec.Struct, frozen=True):
    run_id: str


class Silent(msgspec.Struct, frozen=True):
    run_id: Annotated[str, column("")]


class Odd(msgspec.Struct, frozen=True):
    run_id: Annotated[complex, column("Which run.")]


@dataclass(frozen=True)
class Mine:
    """A projection, as far as it gets."""

    name: str
    table: projection.Table
    version: int = 1


def columns(row: type[Any], name: str = "mine", **options: Any) -> projection.Table:
    return projection.table(name, row, **{"key": ("run_id",), **options})


OF_TABLES: dict[str, Provoke] = {
    "table …: its key … must be the first fields of …": lambda _: columns(Row, key=("count",)),
    "table …: rare columns need a default in …": lambda _: columns(Row, rare=("count",)),
    "… cannot name a table or column: use a-z, 0-9 and _": lambda _: columns(Row, "My Table"),
    '…: annotate it as Annotated[…, column("what it says")]': lambda _: columns(Bare),
    '…: say what it holds, with column("…")': lambda _: columns(Silent),
    "…: … is none of str, int, float, bool, bytes (or None)": lambda _: columns(Odd),
    "the projection … cannot use the name …: it is …; give yours …": lambda _: runner.check_names(
        [cast(Any, Mine("projections", columns(Row)))]
    ),
}
for _message, _provoke in OF_TABLES.items():
    meets("ConfigurationError", _message)(_provoke)
