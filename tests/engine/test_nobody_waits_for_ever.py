"""Whoever waits is told: found by trying to break the engine, each of these once hung, lost or lied."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from refold import Context, Engine, RunFailed, Settings, StartConflict, record_cost, step, workflow
from refold.engine import following
from refold.errors import HandlerError
from refold.events.dispatch import rebuild_work, work_differences
from refold.events.errors import StoreCorrupt
from refold.events.open import open_store
from tests.engine.kit import tags, until

pytestmark = pytest.mark.anyio


@step
async def one(value: int = 1) -> int:
    return value


@step(pure=True)
async def pure_one() -> int:
    return 1


@workflow
async def waits(ctx: Context) -> Any:
    return await ctx.wait_for_event("go")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def test_steps_asked_for_in_the_activation_that_ends_the_run_never_were(path: Path) -> None:
    @workflow
    async def ends_at_once(ctx: Context) -> None:
        async def fails() -> None:
            raise ValueError("no")

        await asyncio.gather(*[one(i) for i in range(60)], fails())

    async with Engine(path, workflows=[ends_at_once]) as engine:
        handle = await engine.start(ends_at_once)
        with pytest.raises(RunFailed, match="no"):
            await handle.result(timeout=30)
        assert tags(handle) == ["run.started", "run.claimed", "run.failed"]


async def test_a_step_cancelled_before_its_body_began_holds_up_nothing(path: Path) -> None:
    @workflow
    async def fickle(ctx: Context) -> str:
        await ctx.wait_for_event("go")
        task = asyncio.create_task(pure_one())
        await ctx.wait_for_event("stop")
        task.cancel()
        return str(await ctx.wait_for_event("end"))

    async with Engine(path, workflows=[fickle]) as engine:
        await engine.start(fickle, id="r")
    async with Engine(path, execute=False) as door:
        await door.signal("r", "go")
        await door.signal("r", "stop")
    async with asyncio.timeout(30), Engine(path, workflows=[fickle]) as engine:
        handle = await engine.get("r")
        await handle.signal("end", "over")
        assert await handle.result() == "over"
        assert engine.worker.live == {}


async def test_more_overdue_runs_than_fit_a_page_all_wake(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    async def naps(ctx: Context) -> None:
        await ctx.sleep(0.2)

    monkeypatch.setattr(following, "PAGE", 5)
    async with Engine(path, workflows=[naps]) as engine:
        for number in range(40):
            await engine.start(naps, id=f"r{number}")
    async with asyncio.timeout(60), Engine(path, workflows=[naps]) as engine:
        for number in range(40):
            await (await engine.get(f"r{number}")).result()


async def test_a_value_that_cannot_be_read_back_blocks_only_its_own_run(path: Path) -> None:
    @workflow
    async def unreadable(ctx: Context) -> set[Any]:
        await one()
        return {frozenset({1})}

    async with Engine(path, workflows=[unreadable, waits]) as engine:
        with pytest.raises(RunFailed, match="does not fit"):
            await engine.run(unreadable)
        handle = await engine.start(waits)
        await handle.signal("go", 7)
        assert await handle.result(timeout=30) == 7


async def test_a_cancelled_scope_lets_the_store_go(path: Path) -> None:
    threads = threading.active_count()
    with anyio.move_on_after(0.2):
        async with Engine(path, workflows=[waits]) as engine:
            await engine.run(waits)
    assert threading.active_count() == threads
    async with Engine(path, workflows=[waits]) as engine:
        assert engine.store.holding()


async def test_a_def_body_that_never_began_does_not_begin_after_the_engine_closed(path: Path) -> None:
    began: list[int] = []
    gate, entered = threading.Event(), threading.Event()

    @step(execution="at_most_once", on_unknown="fail")
    def wire(number: int) -> int:
        began.append(number)
        entered.set()
        gate.wait(30)
        return number

    @workflow
    async def wires(ctx: Context) -> list[str]:
        found = await asyncio.gather(*[wire(i) for i in range(3)], return_exceptions=True)
        return [type(result).__name__ for result in found]

    async with Engine(path, workflows=[wires], settings=Settings(step_threads=1, grace=0)) as engine:
        await engine.start(wires, id="r")
        await until(entered.is_set)
    gate.set()
    assert began == [0]
    async with Engine(path, workflows=[wires]) as engine:
        result = await (await engine.get("r")).result(timeout=30)
    assert result == ["StepInterrupted", "int", "int"], "released, not interrupted: they had not begun"
    assert sorted(began) == [0, 1, 2]


async def test_what_a_body_spends_while_it_unwinds_after_the_end_is_kept(path: Path) -> None:
    @step
    async def costly() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            record_cost("3.00")

    @workflow
    async def gives_up(ctx: Context) -> int:
        with anyio.move_on_after(0.05):
            await costly()
        return 1

    async with Engine(path, workflows=[gives_up]) as engine:
        handle = await engine.start(gives_up)
        assert await handle.result(timeout=30) == 1
        await until(lambda: handle.status()["cost_usd"] == 3)


async def test_a_key_binds_to_the_run_that_its_id_found(path: Path) -> None:
    async with Engine(path, workflows=[waits]) as engine:
        first = await engine.start(waits, id="a")
        assert (await engine.start(waits, id="a", key="k")).id == first.id
        assert (await engine.start(waits, key="k")).id == first.id
        with pytest.raises(StartConflict, match="'a'"):
            await engine.start(waits, id="b", key="k")


async def test_who_waits_for_a_run_without_code_is_told(path: Path) -> None:
    async with Engine(path, workflows=[waits]) as engine:
        await engine.start(waits, id="r")
    async with Engine(path, workflows=[]) as engine:
        with pytest.raises(HandlerError, match="not registered"):
            await (await engine.get("r")).result(timeout=30)


async def test_the_dispatch_table_is_proven_and_built_again_from_the_log(path: Path) -> None:
    async with Engine(path, workflows=[waits]) as engine:
        for run_id in ("a", "b"):
            await engine.start(waits, id=run_id)
        assert work_differences(engine.store) == []
    store = open_store(path)
    store.rebuild_work([])
    assert {difference.run_id for difference in work_differences(store)} == {"a", "b"}
    assert rebuild_work(store) == 2
    assert work_differences(store) == []
    store.close()
    async with Engine(path, workflows=[waits]) as engine:
        handle = await engine.get("a")
        await handle.signal("go", 1)
        assert await handle.result(timeout=30) == 1


def test_an_emptied_file_is_no_store_that_is_well(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    os.utime(tmp_path / "empty.db", (0, 0))  # else somebody is perhaps making it
    with pytest.raises(StoreCorrupt, match="empty"):
        open_store(tmp_path / "empty.db", create=False)
