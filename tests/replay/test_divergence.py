"""Code that asks for something else than the log says: a full report, nothing written, and a way back."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, step, workflow
from refold.engine.run import Run
from refold.engine.workflow import Workflow
from refold.events import types as t
from refold.events.errors import NonDeterminismError
from refold.events.open import open_store
from refold.events.types import Event

from .play import History, play

ROOT = Path(__file__).parents[2]


@step
async def charge(amount: int, currency: str = "CHF") -> int:
    return amount


@step
async def ship(amount: int) -> int:
    return amount


async def fetch(amount: int) -> int:
    return amount


Handler = Callable[[Context], Awaitable[Any]]


async def recorded(ctx: Context) -> Any:
    await charge(1)
    await asyncio.gather(charge(2), ship(3))
    await ctx.sleep(5)
    await ctx.wait_for_event("a")
    return "end"


async def other_name(ctx: Context) -> Any:
    await ship(1)


async def other_kind(ctx: Context) -> Any:
    await ctx.call(fetch, 1, name="charge")


async def other_arguments(ctx: Context) -> Any:
    await charge(11)


async def other_keyword(ctx: Context) -> Any:
    await charge(1, currency="EUR")


async def other_order(ctx: Context) -> Any:
    await charge(1)
    await asyncio.gather(ship(3), charge(2))


async def extra_command(ctx: Context) -> Any:
    await asyncio.gather(charge(1), ship(9))


async def missing_command(ctx: Context) -> Any:
    await charge(1)
    await charge(2)


async def other_timer(ctx: Context) -> Any:
    await charge(1)
    await asyncio.gather(charge(2), ship(3))
    await ctx.sleep(6)


async def other_event(ctx: Context) -> Any:
    await charge(1)
    await asyncio.gather(charge(2), ship(3))
    await ctx.sleep(5)
    await ctx.wait_for_event("b")


async def ends_early(ctx: Context) -> Any:
    await charge(1)


async def ends_otherwise(ctx: Context) -> Any:
    await recorded(ctx)
    return "another end"


CASES: list[tuple[Handler, str, str, str, str]] = [
    (other_name, "step charge#1", "step 'charge'", "step 'ship'", "the handler's code"),
    (other_kind, "step charge#1", "step 'charge'", "call 'charge'", ""),
    (other_arguments, "step charge#1", "arguments [1]", "arguments [11]", "same step, different arguments"),
    (
        other_keyword,
        "step charge#1",
        "arguments [1]",
        'arguments [1] {"currency":"EUR"}',
        "different arguments",
    ),
    (other_order, "step charge#2", "step 'charge'", "step 'ship'", "same commands, different order"),
    (extra_command, "step 'ship'", "nothing more", "step 'ship' with arguments [9]", ""),
    (missing_command, "step ship#1", "step 'ship'", "nothing", ""),
    (other_timer, "timer.started", "timer due at", "timer due at", ""),
    (other_event, "wait.opened", "event 'a'", "event 'b'", ""),
    (ends_early, "step charge#2", "step 'charge'", "end of the run", ""),
    (ends_otherwise, "run.completed", '"end"', '"another end"', ""),
]


def flow(handler: Handler, name: str = "pay") -> Workflow[Any, Any]:
    return workflow(name=name)(handler)  # type: ignore[arg-type]


def full_history() -> History:
    """One in which the handler really waited for its event."""
    histories = (play(flow(recorded), [], random.Random(seed), 0.0) for seed in range(100))
    return next(h for h in histories if "wait.opened" in dict(h.rows) and h.ended)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_the_report_says_where_both_sides_and_what_to_do(case: tuple[Handler, str, str, str, str]) -> None:
    handler, key, expected, found, hint = case
    history = full_history()
    whole = history.activations()
    started = whole[0].cause
    assert isinstance(started, t.RunStarted)
    run = Run(flow(handler), history.run_id, started)
    try:
        with pytest.raises(NonDeterminismError) as caught:
            run.replay(whole)
    finally:
        run.evict()
    error, message = caught.value, str(caught.value)
    assert key in error.key
    assert expected in error.expected
    assert found in error.found
    assert hint in message
    for part in (history.run_id, "log has", "now asks", "hint", "remedy"):
        assert part in message, message
    if error.key.startswith("step ") and "#" in error.key:
        assert "(test_divergence.py:" in message, message  # where the log says the call was made


# ---- with a real store, two engines after each other


def history_of(path: Path) -> list[Event]:
    store = open_store(path)
    events = [row.event() for row in store.read("x")]
    store.close()
    return events


async def resume_with(path: Path, handler: Handler) -> None:
    async with Engine(path, workflows=[flow(handler)]) as engine:
        handle = await engine.get("x")
        await engine.signal("x", "a")
        with pytest.raises(NonDeterminismError):
            await handle.result(30)


async def finish(path: Path) -> Any:
    async with Engine(path, workflows=[flow(quick)]) as engine:
        await engine.signal("x", "a")
        return await (await engine.get("x")).result(30)


async def quick(ctx: Context) -> Any:
    """`recorded` without its sleep."""
    await charge(1)
    await asyncio.gather(charge(2), ship(3))
    await ctx.wait_for_event("a")
    return "end"


async def quick_but_other(ctx: Context) -> Any:
    await charge(1)
    await asyncio.gather(charge(2), ship(4))


def test_the_wrong_code_writes_nothing_and_the_right_code_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def begin() -> None:
        async with Engine(path, workflows=[flow(quick)]) as engine:
            await engine.start(engine.workflows["pay", "1"], id="x")
            while not any(isinstance(e, t.WaitOpened) for e in engine.events("x")):  # noqa: ASYNC110
                await asyncio.sleep(0)

    asyncio.run(begin())
    before = history_of(path)
    for _ in range(2):  # tried twice, noted once
        asyncio.run(resume_with(path, quick_but_other))
    after = history_of(path)
    assert after[: len(before)] == before
    (note,) = after[len(before) :]
    assert isinstance(note, t.RunAttention)
    assert note.kind == "diverged"
    assert "step ship#1" in note.reason
    assert "the handler's code" in note.reason
    assert asyncio.run(finish(path)) == "end"
    kinds = [event.kind for event in history_of(path) if isinstance(event, t.RunAttention)]
    assert kinds == ["diverged", "none"]
    assert sum(isinstance(event, t.StepStarted) for event in history_of(path)) == 3


def test_control_code_that_asks_for_the_same_is_no_divergence(tmp_path: Path) -> None:
    history = full_history()
    whole = history.activations()
    started = whole[0].cause
    assert isinstance(started, t.RunStarted)
    Run(flow(recorded), history.run_id, started).replay(whole)


# ---- sets and dicts come in another order in another process

SETS = """
import asyncio, sys
from refold import Context, Engine, step, workflow

@step
async def keep(names: set[str], table: dict[str, set[str]], *more: frozenset[str], **x: set[str]) -> set[str]:
    return names

@workflow
async def sets(ctx: Context) -> list[str]:
    names = {f"name-{n}" for n in range(20)}
    kept = await keep(names, {name: names for name in names}, frozenset(names), extra=names)
    await ctx.wait_for_event("go")
    return sorted(await keep(kept, {}))

async def main(last: bool) -> None:
    async with Engine(sys.argv[1], workflows=[sets]) as engine:
        handle = await engine.start(sets, id="x")
        if last:
            await engine.signal("x", "go")
            assert len(await handle.result(30)) == 20
        else:
            while not [e for e in handle.events() if e.TAG == "wait.opened"]:
                await asyncio.sleep(0)
    print("fine")

asyncio.run(main(sys.argv[2] == "last"))
"""


def test_the_order_of_sets_and_dicts_in_annotated_arguments_is_no_divergence(tmp_path: Path) -> None:
    for seed, last in ((1, "first"), (2, "again"), (3, "last")):
        command = [sys.executable, "-c", SETS, str(tmp_path / "x.db"), last]
        environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT), "PATH": ""}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert done.stdout == "fine\n", done.stderr[-3_000:]
