"""Open runs go on in the store that their log was moved to."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from refold import Context, Workflow, current_step, step, workflow
from refold.events import types as t
from refold.events.dispatch import rebuild_work, work_differences
from refold.events.errors import StartConflict
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.registry import decode_event
from refold.events.store import Append, Store, Unit
from refold.events.stream import INBOX, chain
from refold.events.transfer import export_log, import_log
from refold.events.types import Event
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


async def test_a_step_that_runs_while_its_log_is_exported_runs_again_in_the_new_store() -> None:
    """The old store lives on meanwhile: an export is a snapshot, and the other owner is none of ours."""
    clock, source, target = HandClock(), MemoryStore(), MemoryStore()
    gate = asyncio.Event()
    began: list[int] = []

    @step
    async def slow() -> int:
        began.append(current_step().attempt)
        if len(began) == 1:
            await gate.wait()
        return current_step().attempt

    @workflow
    async def waits_for_it(ctx: Context) -> int:
        return await slow()

    async with engine(source, waits_for_it, clock=clock) as old:
        handle = await old.start(waits_for_it, id="r")
        await until(lambda: began == [1])
        import_log(target, old.export())
        async with engine(target, waits_for_it, clock=clock) as new:
            assert await (await new.get("r")).result() == 2
        gate.set()
        assert await handle.result() == 1
    with pytest.raises(StartConflict, match="run 'r' has another history here"):
        import_log(target, export_log(source))


HISTORIES = sorted((Path(__file__).parent.parent / "histories").glob("*.jsonl"))


@settings(max_examples=6, deadline=None)
@given(st.randoms(use_true_random=False))
def test_histories_of_all_kinds_cut_anywhere_come_out_as_they_went_in(chance: Random) -> None:
    source, target = MemoryStore(), MemoryStore()
    waiting = {path.stem: recorded(path) for path in chance.sample(HISTORIES, 6)}
    while waiting:
        run_id = chance.choice(sorted(waiting))
        events = waiting[run_id]
        some = chance.randint(1, 20)
        tail = source.tail(run_id)
        rows, _ = chain(run_id, tail, events[:some])
        source.commit([Unit((Append(run_id, tail.version, rows),))])
        waiting[run_id] = events[some:]
        if len(events) <= some or chance.random() < 0.2:
            del waiting[run_id]
    rebuild_work(source)
    lines = list(export_log(source))
    import_log(target, lines)
    assert list(export_log(target)) == lines
    assert target.scan(0, 10_000) == source.scan(0, 10_000)
    assert target.all_work() == source.all_work()
    assert work_differences(target) == []


def recorded(path: Path) -> list[Event]:
    """The events of a golden file."""

    class Line(msgspec.Struct):
        tag: str
        event: msgspec.Raw

    lines = path.read_bytes().splitlines()[1:]
    read = [msgspec.json.decode(line, type=Line) for line in lines]
    return [decode_event(line.tag, bytes(line.event)) for line in read]
