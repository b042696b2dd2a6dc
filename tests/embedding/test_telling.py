"""What a worker says of runs that it cannot execute, of doubts, and of a store that it has lost."""

import asyncio
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, step, workflow
from refold.cli.news import News
from refold.cli.screen import Screen
from refold.cli.worker import Telling, _follow
from refold.errors import StoreBusy
from refold.events.sqlite import SQLiteStore
from tests.engine.kit import until

pytestmark = pytest.mark.anyio


@workflow
async def checkout(ctx: Context) -> None:
    await ctx.wait_for_event("paid")


@workflow
async def elsewhere(ctx: Context) -> None:
    await ctx.wait_for_event("paid")


def telling(json: bool = False) -> tuple[Telling, io.StringIO]:
    said = io.StringIO()
    return Telling(Screen(said), json), said


async def test_runs_that_none_of_its_files_has_are_counted_when_it_begins(tmp_path: Path) -> None:
    async with Engine(tmp_path / "a.db", workflows=[elsewhere]) as engine:
        for number in range(2):
            await engine.start(elsewhere, id=f"e{number}")
        await engine.projections.wait()
    told, said = telling()
    async with Engine(tmp_path / "a.db", workflows=[checkout]) as engine:
        told.ready(engine)
    assert "ready  checkout 1; runs of " in said.getvalue()
    assert "missing  elsewhere 1: in none of these files, 2 unfinished" in said.getvalue()


async def test_a_store_that_another_has_taken_over_ends_it(tmp_path: Path) -> None:
    told, _ = telling()
    store = SQLiteStore(tmp_path / "a.db")
    async with Engine(store, workflows=[checkout]) as engine:
        following = asyncio.create_task(_follow(engine, News(store), told))
        os.remove(tmp_path / "a.db.lock")  # what is done about a process that hangs for good
        async with Engine(tmp_path / "a.db", workflows=[checkout]):
            with pytest.raises(StoreBusy, match="another process has taken over"):
                await asyncio.wait_for(following, 20)
    store.close()


async def test_a_doubt_and_an_end_are_told_to_programs_with_all_that_is_known() -> None:
    @step(execution="at_most_once")
    async def pay() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # as somebody outside would: nobody knows what it did
        await asyncio.sleep(0)

    @workflow
    async def paying(ctx: Context) -> None:
        await pay()

    told, said = telling(json=True)

    def lines() -> list[dict[str, Any]]:
        while told.page(news):
            pass
        return [json.loads(line) for line in said.getvalue().splitlines()]

    async with Engine("memory://", workflows=[paying]) as engine:
        news = News(engine.store)
        handle = await engine.start(paying, id="p1")
        await until(lambda: any(line["event"] == "in_doubt" for line in lines()))
        await handle.resolve_step("pay#1", "failed", reason="the bank says no")
        await until(lambda: lines()[-1]["event"] == "failed")
    began, doubt, failed = lines()
    assert (began["event"], began["run"], began["workflow"]) == ("began", "p1", "paying")
    assert (doubt["run"], doubt["attempt"]) == ("p1", 1)
    assert "the bank says no" in failed["error"]["message"]
    assert failed["seconds"] >= 0
