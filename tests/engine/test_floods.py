"""Too much at once: a run with very many messages stays workable, and so do its neighbours."""

import asyncio
from pathlib import Path

import pytest

from refold import Context, RunEnded, workflow
from refold.errors import InboxFull
from refold.events import types as t

from .kit import Place, engine, of, until, waiting, work_agrees

pytestmark = pytest.mark.anyio


@workflow
async def listens(ctx: Context, count: int) -> int:
    total = 0
    for _ in range(count):
        total += await ctx.wait_for_event("n")
    return total


@workflow
async def quick(ctx: Context) -> str:
    await asyncio.sleep(0.001)
    return "done"


async def test_thousands_of_messages_are_delivered_in_order_and_hold_up_nobody(tmp_path: Path) -> None:
    url, count = f"sqlite:///{tmp_path / 'runs.db'}", 2_500
    async with engine(url, listens, quick) as it:
        handle = await it.start(listens, count, id="r")
        await waiting(it, "r")
        it.worker.evict("r")
    async with engine(url, listens, quick, execute=False) as outside:
        for number in range(count):
            await outside.signal("r", "n", number)
    async with engine(url, listens, quick) as it:
        handle = await it.get("r")
        await until(lambda: of(handle, t.SignalReceived))
        assert len(of(handle, t.SignalReceived)) < count, "a page at a time"
        assert await it.run(quick) == "done", "others go on meanwhile"
        assert await handle.result(60) == sum(range(count))
        payloads = [int(bytes(e.payload)) for e in of(handle, t.SignalReceived)]
        assert payloads == list(range(count))
        assert work_agrees(it.store)


async def test_a_run_that_does_not_listen_refuses_more_than_the_limit(place: Place) -> None:
    async with engine(place, listens) as it:
        await it.start(listens, 1, id="r")
        await waiting(it, "r")
    async with engine(place, listens, execute=False, max_inbox=20) as outside:
        for number in range(20):
            await outside.signal("r", "n", number)
        with pytest.raises(InboxFull, match="20 messages that it has not received yet, the limit is 20"):
            await outside.signal("r", "n", 20)
        await outside.set_attributes("r", {"loud": True})  # operators are let through
    async with engine(place, listens, max_inbox=20) as it:  # what was accepted arrives
        assert await (await it.get("r")).result(10) == 0
        with pytest.raises(RunEnded):
            await it.signal("r", "n", 1)


async def test_a_timer_waits_for_all_the_mail_that_came_before_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with engine(url, late) as it:
        await it.start(late, id="r")
        await waiting(it, "r")
    async with engine(url, late, execute=False) as outside:
        for number in range(1_200):  # more than a page
            await outside.signal("r", "other", number)
        await outside.signal("r", "n", 7)
    async with engine(url, late) as it:
        assert await (await it.get("r")).result(30) == "7"


@workflow
async def late(ctx: Context) -> str:
    try:
        return str(await ctx.wait_for_event("n", timeout=0.05))
    except TimeoutError:
        return "too late"
