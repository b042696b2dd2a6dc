"""Open runs go on in the store that their log was moved to."""

from pathlib import Path
from typing import Any

import pytest

from refold import Context, Workflow, step, workflow
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.store import Store
from refold.events.stream import INBOX
from refold.events.transfer import import_log
from refold.events.verify import verify
from tests.engine.kit import HandClock, engine, of, until, waiting, work_agrees

pytestmark = pytest.mark.anyio

done: list[str] = []


@step
async def note(text: str) -> str:
    done.append(text)
    return text


@workflow
async def sleeps(ctx: Context) -> str:
    await note("before the sleep")
    await ctx.sleep(3600)
    return await note("after the sleep")


@workflow
async def asks(ctx: Context) -> str:
    decision = await ctx.approval("Go?", voters=["ana", "bo"], approvers=2)
    return await note(f"approved by {', '.join(sorted(decision.approvals))}")


@workflow
async def reads(ctx: Context) -> list[Any]:
    return [await ctx.wait_for_event("letter") for _ in range(3)]


@workflow
async def has_a_child(ctx: Context) -> str:
    return f"above {await ctx.child(sleeps)}"


@workflow
async def keeps(ctx: Context) -> int:
    big = await note("x" * 400_000)
    await ctx.wait_for_event("go")
    return len(big) + len(await note(big))


WORKFLOWS: tuple[Workflow[[], Any], ...] = (sleeps, asks, reads, has_a_child, keeps)


async def begin(place: Store, clock: HandClock) -> None:
    """Runs that wait in every way; then mail that nobody has received yet."""
    async with engine(place, *WORKFLOWS, clock=clock) as e:
        await e.start(sleeps, id="sleeps", key="only once")
        for flow in WORKFLOWS[1:]:
            await e.start(flow, id=flow.name)
        await e.signal("reads", "letter", 1)
        for run_id in ("sleeps", "asks", "reads", "has_a_child", "keeps"):
            await waiting(e, run_id)
        await e.approve("asks", by="ana")
        await waiting(e, "asks")
        await until(lambda: place.work("has_a_child~1") is not None)
        await waiting(e, "has_a_child~1")
    async with engine(place, *WORKFLOWS, clock=clock, execute=False) as outside:
        await outside.signal("reads", "letter", 2)
        await outside.approve("asks", by="bo")


async def finish(place: Store, clock: HandClock) -> dict[str, Any]:
    clock.move(3601)
    async with engine(place, *WORKFLOWS, clock=clock) as e:
        await e.signal("reads", "letter", 3)
        await e.signal("keeps", "go", None)
        again = await e.start(sleeps, key="only once")
        assert again.id == "sleeps"
        results = {work.run_id: await (await e.get(work.run_id)).result() for work, _ in e.store.all_work()}
        assert len(of(await e.get("reads"), t.RunClaimed)) == 2
        assert e.verify().problems == ()
    assert work_agrees(place)
    return results


@pytest.mark.parametrize("way", ["out of memory", "into memory"])
async def test_open_runs_go_on_where_they_were(way: str, tmp_path: Path) -> None:
    done.clear()
    clock = HandClock()
    file = open_store(tmp_path / "runs.db")
    source, target = (MemoryStore(), file) if way == "out of memory" else (file, MemoryStore())
    await begin(source, clock)
    before = list(done)
    async with engine(source, execute=False) as outside:
        lines = list(outside.export())
    found = import_log(target, lines)
    assert (found.runs, found.contents) == (6, 2), "its argument and its result"
    assert target.all_work() == source.all_work()
    assert target.tail("reads" + INBOX).version == 1, "unread"
    assert verify(target).problems == ()
    assert await finish(target, clock) == {
        "sleeps": "after the sleep", "asks": "approved by ana, bo", "reads": [1, 2, 3],
        "has_a_child": "above after the sleep", "has_a_child~1": "after the sleep", "keeps": 800_000,
    }  # fmt: skip
    big = "x" * 400_000
    assert sorted(before) == sorted(["before the sleep", "before the sleep", big])
    assert sorted(done[3:]) == sorted(["after the sleep", "after the sleep", "approved by ana, bo", big])
    async with engine(source, execute=False) as outside:
        assert list(outside.export()) == lines, "the source has not moved"
    file.close()


async def test_a_run_and_its_family_go_on_without_the_others(tmp_path: Path) -> None:
    done.clear()
    clock, source, target = HandClock(), MemoryStore(), MemoryStore()
    await begin(source, clock)
    async with engine(source, execute=False) as outside:
        lines = list(outside.export("has_a_child", family=True))
    assert import_log(target, lines).runs == 2
    clock.move(3601)
    async with engine(target, *WORKFLOWS, clock=clock) as e:
        assert await (await e.get("has_a_child")).result() == "above after the sleep"
