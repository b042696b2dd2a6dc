"""`refold.run`: a script's way in. It starts or goes on, and Ctrl-C leaves everything in order."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import refold
from refold import (
    ConfigurationError,
    Context,
    Engine,
    NonDeterminismError,
    RunFailed,
    StartConflict,
    step,
    workflow,
)
from refold.errors import StoreBusy
from tests.engine.kit import waiting

done: list[str] = []


@step
async def charge(order: str) -> str:
    done.append(f"charge {order}")
    return f"receipt for {order}"


@step
async def ship(order: str) -> str:
    done.append(f"ship {order}")
    return f"parcel of {order}"


@workflow
async def checkout(ctx: Context, order: str) -> list[str]:
    return [await charge(order), await ship(order)]


@workflow
async def paid(ctx: Context, order: str) -> list[str]:
    receipt = await charge(order)
    await ctx.wait_for_event("paid")
    return [receipt, await ship(order)]


@workflow(name="paid")
async def paid_edited(ctx: Context, order: str) -> str:
    return await ship(order)


@workflow
async def broken(ctx: Context) -> None:
    raise ValueError("no")


@workflow
async def blocks(ctx: Context) -> None:
    refold.run(checkout, "tea")


@pytest.fixture(autouse=True)
def fresh() -> None:
    done.clear()


def test_it_returns_the_result_and_the_same_id_does_nothing_twice(tmp_path: Path) -> None:
    for _ in range(2):
        assert refold.run(checkout, "tea", store=tmp_path / "a.db", id="o1") == [
            "receipt for tea",
            "parcel of tea",
        ]
    assert done == ["charge tea", "ship tea"]


def test_without_an_id_every_call_is_a_run_of_its_own(tmp_path: Path) -> None:
    refold.run(checkout, "tea", store=tmp_path / "a.db")
    refold.run(checkout, "tea", store=tmp_path / "a.db")
    assert done.count("charge tea") == 2


def test_errors_are_those_of_start_and_result(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="ValueError: no"):
        refold.run(broken, store="memory://")
    refold.run(checkout, "tea", store=tmp_path / "a.db", id="o1")
    with pytest.raises(StartConflict):
        refold.run(checkout, "milk", store=tmp_path / "a.db", id="o1")


def test_it_goes_on_with_a_run_that_another_process_left(tmp_path: Path) -> None:
    place = tmp_path / "a.db"

    async def leave() -> None:
        async with Engine(place, workflows=[paid]) as engine:
            handle = await engine.start(paid, "tea", id="o1")
            await waiting(engine, "o1")
            await handle.signal("paid")

    asyncio.run(leave())
    assert refold.run(paid, "tea", store=place, id="o1") == ["receipt for tea", "parcel of tea"]
    assert done == ["charge tea", "ship tea"]


def test_edited_code_is_told_at_once_though_the_run_only_waits(tmp_path: Path) -> None:
    place = tmp_path / "a.db"

    async def leave() -> None:
        async with Engine(place, workflows=[paid]) as engine:
            await engine.start(paid, "tea", id="o1")
            await waiting(engine, "o1")

    asyncio.run(leave())
    with pytest.raises(NonDeterminismError, match="charge"):
        refold.run(paid_edited, "tea", store=place, id="o1")
    assert done == ["charge tea"]


def test_a_store_that_another_executes_is_refused_by_name(tmp_path: Path) -> None:
    async def held() -> None:
        async with Engine(tmp_path / "a.db", workflows=[checkout]):
            with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
                await asyncio.to_thread(refold.run, checkout, "tea", store=tmp_path / "a.db")

    asyncio.run(held())


def test_inside_an_event_loop_it_refuses_and_names_what_to_write() -> None:
    async def cell() -> None:
        with pytest.raises(ConfigurationError, match=r"await engine\.run\(checkout"):
            refold.run(checkout, "tea", store="memory://")

    asyncio.run(cell())
    assert done == []


def test_inside_a_handler_it_names_the_child() -> None:
    with pytest.raises(RunFailed, match=r"await ctx\.child\(checkout"):
        refold.run(blocks, store="memory://")


def test_a_thread_without_a_loop_may_use_it() -> None:
    results: list[list[str]] = []
    thread = threading.Thread(target=lambda: results.append(refold.run(checkout, "tea", store="memory://")))
    thread.start()
    thread.join()
    assert results == [["receipt for tea", "parcel of tea"]]


# ---- Ctrl-C, in a process of its own -----------------------------------------------------------------

SCRIPT = """
import refold
from refold import Context, step, workflow

@step
async def charge() -> str:
    print("charged", flush=True)
    return "receipt"

@workflow
async def paid(ctx: Context) -> str:
    receipt = await charge()
    print("waiting", flush=True)
    await ctx.wait_for_event("paid")
    return receipt

try:
    print(refold.run(paid, store="a.db", id="o1"), flush=True)
except KeyboardInterrupt:
    print("stopped in order", flush=True)
"""


def test_ctrl_c_shuts_down_in_order_and_the_same_call_goes_on(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["charged\n", "waiting\n"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "stopped in order\n"

    async def pay() -> None:
        async with Engine(tmp_path / "a.db", execute=False) as engine:  # the store was let go
            assert not engine.verify().problems
            await engine.signal("o1", "paid")

    asyncio.run(pay())
    again = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "charged" not in again.stdout
    assert again.stdout.endswith("receipt\n")
