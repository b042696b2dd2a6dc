"""Runs that this engine has no code for, or cannot read: visible, never failed, resumable."""

import asyncio
import logging
from typing import Any

import pytest

from refold import Context, RefoldError, step, workflow
from refold.events import types as t
from refold.events.errors import HandlerError, UnknownEvent
from refold.events.open import open_store
from refold.events.store import Append, Unit
from refold.events.stream import Row, row_hash
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting, work_agrees

pytestmark = pytest.mark.anyio


@step
async def one() -> int:
    return 1


async def _sums(ctx: Context, extra: int = 0) -> int:
    got = await one()
    await asyncio.sleep(60)
    return got + await one() + extra


sums = workflow(name="sums")(_sums)
sums2 = workflow(name="sums", version="2")(_sums)


@workflow
async def other(ctx: Context) -> int:
    return await one()


@pytest.mark.parametrize(
    ("have", "kind", "says"),
    [
        ((other,), "no_worker", "workflow 'sums' version '1' is not registered: no engine here has it"),
        ((), "no_worker", r"pass it in `workflows=\[…\]`"),
        ((sums2, other), "missing_version", "this engine has version 2"),
    ],
    ids=["another workflow", "none", "another version"],
)
@pytest.mark.parametrize("state", ["pending", "running", "waiting"])
async def test_a_run_without_code_waits_visibly_and_goes_on_when_its_code_is_back(
    state: str, have: tuple[Any, ...], kind: str, says: str, place: Place
) -> None:
    """C05 as far as the kernel goes: attention, never failed."""
    clock = HandClock()
    if state == "pending":
        async with engine(place, sums, clock=clock, execute=False) as outside:
            await outside.start(sums, id="r")
    else:
        async with engine(place, sums, clock=clock, grace=0) as e:
            handle = await e.start(sums, id="r")
            await waiting(e, "r")
        clock.move(61)
    for _ in range(2):
        async with engine(place, *have, clock=clock) as e:
            handle = await e.get("r")
            with pytest.raises(HandlerError, match=says):
                await handle.result()
            await seen(handle, t.RunAttention)
            if other in have:
                assert await e.run(other) == 1, "other runs go on"
    assert [a.kind for a in of_closed(place, clock)] == [kind], "said once, however often it is found"
    async with engine(place, sums, clock=clock) as e:
        handle = await e.get("r")
        if state == "pending":
            await waiting(e, "r")
            clock.move(61)
        assert await handle.result() == 2
        assert [a.kind for a in of(handle, t.RunAttention)] == [kind, "none"]
        assert {"run.failed", "step.failed"}.isdisjoint(tags(handle))
        assert work_agrees(e.store)


def of_closed(place: Place, clock: HandClock) -> list[t.RunAttention]:
    store = open_store(place) if isinstance(place, str) else place
    found = [row.event() for row in store.read("r") if row.tag == t.RunAttention.TAG]
    if isinstance(place, str):
        store.close()
    return [event for event in found if isinstance(event, t.RunAttention)]


async def test_signals_and_cancels_for_a_run_without_code_are_kept(place: Place) -> None:
    @workflow(name="listens")
    async def listens(ctx: Context) -> Any:
        return await ctx.wait_for_event("go")

    async with engine(place, listens) as e:
        for run_id in ("a", "b"):
            await e.start(listens, id=run_id)
            await waiting(e, run_id)
    async with engine(place, other) as e:
        await e.signal("a", "go", 1)
        await e.cancel("b", "never mind")
        await until(lambda: len(e.worker.blocked) == 2)
    async with engine(place, listens) as e:
        assert await (await e.get("a")).result() == 1
        with pytest.raises(RefoldError, match="never mind"):
            await (await e.get("b")).result()


async def test_an_event_of_a_newer_refold_blocks_only_its_own_run(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with engine(place, other, sums) as e:
        await e.start(sums, id="r")
        await waiting(e, "r")
    store = open_store(place) if isinstance(place, str) else place
    version, last = store.tail("r")
    tag, at = "run.teleported", version + 1
    row = Row("r", at, tag, b"{}", row_hash(last, "r", at, tag, b"{}"))
    assert store.commit([Unit((Append("r", version, [row]),))]) == [None]
    if isinstance(place, str):
        store.close()
    async with engine(place, other, sums) as e:
        await e.signal("r", "hello")
        handle = await e.get("r")
        with pytest.raises(UnknownEvent, match=r"'run.teleported' at r@.*newer Refold"):
            await handle.result()
        assert await e.run(other) == 1
        assert "run.teleported" in [getattr(event, "tag", "") for event in handle.events()]


async def test_a_run_whose_arguments_no_longer_fit_has_failed_with_the_reason(place: Place) -> None:
    async def _old(ctx: Context, count: Any) -> Any:
        return count

    async def _new(ctx: Context, count: int) -> Any:
        return count

    async with engine(place, workflow(name="w")(_old), execute=False) as outside:
        await outside.start(workflow(name="w")(_old), "many", id="r")
    async with engine(place, workflow(name="w")(_new)) as e:
        with pytest.raises(RefoldError, match="argument 1 of w does not fit its annotation: Expected `int`"):
            await (await e.get("r")).result()
