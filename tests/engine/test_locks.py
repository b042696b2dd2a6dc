"""Concurrency keys: of many starts with one key one wins, and its run holds the key to its end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec import structs

from refold import Context, Engine, Handle, RunCancelled, RunFailed, StartConflict, step, workflow
from refold.errors import Locked
from refold.events import locks, types as t
from refold.events.clock import to_datetime
from refold.events.store import Store, Unit
from refold.events.stream import LOCKS
from refold.events.verify import verify
from tests.engine.kit import Place, engine, of, seen, until

pytestmark = pytest.mark.anyio

KEY = "/srv/data"


@step
async def effect(number: int) -> int:
    return number


@step(compensate=effect)
async def undoable(number: int) -> int:
    return number


@workflow
async def waits(ctx: Context, number: int = 1) -> int:
    await effect(number)
    return await ctx.wait_for_event("go")  # type: ignore[no-any-return]


@workflow
async def at_once(ctx: Context) -> int:
    return 42


@workflow
async def fails(ctx: Context) -> None:
    await ctx.wait_for_event("go")
    raise ValueError("no")


@workflow(compensate_on=["failure"])
async def undoes(ctx: Context) -> None:
    await undoable(1)
    await ctx.wait_for_event("go")
    raise ValueError("no")


@workflow
async def goes_on(ctx: Context, round: int = 1) -> int:
    await ctx.wait_for_event("go")
    if round < 2:
        ctx.continue_as_new(round + 1)
    return round


@workflow
async def parent(ctx: Context) -> int:
    return await ctx.child(waits, 7)  # type: ignore[no-any-return]


FLOWS = (waits, at_once, fails, undoes, goes_on, parent)


def story(store: Store, key: str = KEY) -> list[tuple[str, str]]:
    """What the stream of a key says: what happened, and to which run."""
    rows = [row.event() for row in store.read(LOCKS + key)]
    return [(event.TAG.removeprefix("lock."), getattr(event, "run_id", "")) for event in rows]


def holders_of(store: Store, key: str = KEY) -> set[str]:
    """By a fold of the whole stream; fails when two runs held it at once, or one freed what it had not."""
    held: set[str] = set()
    ever: set[str] = set()
    for row in store.read(LOCKS + key):
        event = row.event()
        if isinstance(event, t.LockTaken):
            assert not held, f"{event.run_id} took what {held} holds"
            held.add(event.run_id)
            ever.add(event.run_id)
        elif isinstance(event, t.LockFreed):
            held.remove(event.run_id)
        else:
            assert isinstance(event, t.LockRefused)
            assert event.holder in ever
    return held


async def test_of_fifty_starts_at_once_one_wins_and_the_others_are_told_who_and_recorded(
    place: Place,
) -> None:
    """D05."""
    async with engine(place, *FLOWS) as e:
        outcomes = await asyncio.gather(
            *[e.start(waits, number, lock=KEY, by=f"user:{number}") for number in range(50)],
            return_exceptions=True,
        )
        (winner,) = [o for o in outcomes if isinstance(o, Handle)]
        refused = [o for o in outcomes if isinstance(o, Locked)]
        assert len(refused) == 49
        assert {(o.run_id, o.key) for o in refused} == {(winner.id, KEY)}
        assert f"lock {KEY!r} is held by run {winner.id!r} since" in str(refused[0])
        assert isinstance(refused[0], StartConflict)
        assert holders_of(e.store) == {winner.id} == {e.locks.holder(KEY)}
        notes = [row.event() for row in e.store.read(LOCKS + KEY)]
        assert len({note.by for note in notes if isinstance(note, t.LockRefused)}) == 49
        assert len(e.store.all_work()) == 1, "nothing else was stored"
        await winner.signal("go", 1)
        await winner.result()
        assert e.locks.holder(KEY) is None
        assert not verify(e.store).problems


End = Callable[[Engine, Handle[Any]], Coroutine[Any, Any, Any]]


async def _go(e: Engine, run: Handle[Any]) -> None:
    await run.signal("go", 1)
    await run.result()


async def _go_wrong(e: Engine, run: Handle[Any]) -> None:
    await run.signal("go", 1)
    with pytest.raises(RunFailed):
        await run.result()


async def _cancel(e: Engine, run: Handle[Any]) -> None:
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run.result()


async def _terminate(e: Engine, run: Handle[Any]) -> None:
    await run.terminate()
    with pytest.raises(RunCancelled):
        await run.result()


@pytest.mark.parametrize(
    ("flow", "end"),
    [(waits, _go), (fails, _go_wrong), (undoes, _go_wrong), (waits, _cancel), (waits, _terminate)],
    ids=["completed", "failed", "compensated", "cancelled", "terminated"],
)
async def test_every_end_frees_the_key(place: Place, flow: Any, end: End) -> None:
    """D05."""
    async with engine(place, *FLOWS) as e:
        run = await e.start(flow, id="r", lock=KEY)
        await seen(run, t.WaitOpened)
        with pytest.raises(Locked, match="'r'"):
            await e.start(at_once, lock=KEY)
        await end(e, run)
        assert await e.run(at_once, id="next", lock=KEY) == 42
        ((*_, last),) = [[(what, who) for what, who in story(e.store) if who != ""]]
        assert last == ("freed", "next")
        assert holders_of(e.store) == set()


async def test_the_same_start_again_is_the_same_run_and_no_conflict(place: Place) -> None:
    """D05, D06."""
    async with engine(place, *FLOWS) as e:
        first = await e.start(waits, id="r", key="k", lock=KEY)
        assert (
            (await e.start(waits, id="r", lock=KEY)).id == (await e.start(waits, key="k", lock=KEY)).id == "r"
        )
        assert story(e.store) == [("taken", "r")]
        await first.terminate()


async def test_a_run_that_goes_on_as_a_new_one_hands_the_key_on(place: Place) -> None:
    """D05."""
    async with engine(place, *FLOWS) as e:
        run = await e.start(goes_on, id="r", lock=KEY)
        await run.signal("go")
        await until(lambda: e.locks.holder(KEY) == "r~r2")
        with pytest.raises(Locked, match="'r~r2'"):
            await e.start(at_once, lock=KEY)
        await e.signal("r~r2", "go")
        assert await run.result() == 2
        assert story(e.store)[:3] == [("taken", "r"), ("freed", "r"), ("taken", "r~r2")]
        assert holders_of(e.store) == set()


async def test_a_child_works_under_its_parents_key(place: Place) -> None:
    """D05: members of one family do not block each other."""
    async with engine(place, *FLOWS) as e:
        run = await e.start(parent, id="r", lock=KEY)
        await until(lambda: e.store.work("r~1"))
        assert e.locks.holder(KEY) == "r"
        await e.signal("r~1", "go", 3)
        assert await run.result() == 3
        assert story(e.store) == [("taken", "r"), ("freed", "r")]


async def test_who_is_brought_back_takes_the_key_again_or_is_refused(place: Place) -> None:
    """D05."""
    async with engine(place, *FLOWS) as e:
        run = await e.start(waits, id="r", lock=KEY)
        await seen(run, t.WaitOpened)
        await _cancel(e, run)
        other = await e.start(waits, id="other", lock=KEY)
        with pytest.raises(Locked, match="'other'"):
            await run.retry(by="user:ana")
        last = e.store.read(LOCKS + KEY)[-1].event()
        assert isinstance(last, t.LockRefused)
        assert (last.run_id, last.holder, last.by) == ("r", "other", "user:ana")
        await other.terminate()
        await run.retry()
        assert e.locks.holder(KEY) == "r"
        with pytest.raises(Locked, match="'r'"):
            await e.start(at_once, lock=KEY)
        await _go(e, run)
        assert holders_of(e.store) == set()


async def test_a_fork_has_no_key_unless_it_is_given_one(place: Place) -> None:
    """D05."""
    async with engine(place, *FLOWS) as e:
        run = await e.start(waits, id="r", lock=KEY)
        await seen(run, t.WaitOpened)
        plain = await run.fork(id="plain")
        with pytest.raises(Locked, match="'r'"):
            await run.fork(id="locked", lock=KEY)
        assert e.store.work("locked") is None
        await run.terminate()
        locked = await run.fork(id="locked", lock=KEY)
        assert e.locks.holder(KEY) == "locked"
        for fork in (plain, locked):
            await fork.signal("go", 5)
            assert await fork.result() == 5
        assert holders_of(e.store) == set()
        assert [of(fork, t.RunStarted)[0].lock for fork in (plain, locked)] == ["", KEY]


async def test_a_run_whose_code_is_nowhere_is_terminated_from_elsewhere_and_frees_its_key(
    place: Place,
) -> None:
    """D05: also when every worker has given it up, and leaves it out of what it looks at."""
    async with engine(place, at_once, execute=False) as outside, engine(place, at_once) as e:
        await outside.start(waits, id="r", lock=KEY)
        await until(lambda: "r" in e.worker.blocked)
        await outside.terminate("r")
        await until(lambda: e.locks.holder(KEY) is None)
        assert await e.run(at_once, lock=KEY) == 42


async def test_the_key_is_kept_while_nobody_executes_the_run(place: Place) -> None:
    """D05: the engine goes, and comes back."""
    async with engine(place, *FLOWS) as e:
        run = await e.start(waits, id="r", lock=KEY)
        await seen(run, t.WaitOpened)
    async with engine(place, *FLOWS) as e:
        with pytest.raises(Locked, match="'r'"):
            await e.start(at_once, lock=KEY)
        await e.signal("r", "go", 1)
        await (await e.get("r")).result()
        assert e.locks.holder(KEY) is None


async def test_that_two_hold_a_key_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: keys that are taken whatever has been written since they were looked at."""
    take = locks.taken
    monkeypatch.setattr(locks, "taken", lambda *given: structs.replace(take(*given), expected=-1))
    async with engine("memory://", *FLOWS) as e:
        runs = await asyncio.gather(*[e.start(waits, lock=KEY) for _ in range(3)])
        assert len({run.id for run in runs}) == 3
        with pytest.raises(AssertionError, match="took what"):
            holders_of(e.store)


async def test_refusals_that_come_late_do_not_hide_who_holds_the_key() -> None:
    """Whoever looked before the holder ended may write only after others had the key, or nobody."""
    async with engine("memory://", *FLOWS) as e:
        first = await e.start(waits, id="first", lock=KEY)
        looked = locks.look_at(e.store, KEY)
        late = locks.refused(looked, "", "waits", to_datetime(0), "slow")
        await _go(e, first)
        e.store.commit([Unit(posts=(late, late))])
        assert e.locks.holder(KEY) is None, "the last event names a run that has ended"
        second = await e.start(waits, id="second", lock=KEY)
        e.store.commit([Unit(posts=(late,) * 3)])
        assert e.locks.holder(KEY) == "second"
        with pytest.raises(Locked, match="'second'"):
            await e.start(at_once, lock=KEY)
        await _go(e, second)
        assert holders_of(e.store) == set()
