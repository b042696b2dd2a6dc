"""Children come to an end with those above them, whatever ends those; detached ones do not."""

import asyncio
from typing import Any

import anyio
import pytest

from refold import Context, RunCancelled, RunFailed, step, workflow
from refold.engine import family
from refold.events import types as t
from refold.events.errors import ChildFailed
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting, work_agrees
from tests.engine.people import WAYS, memory, voter

pytestmark = pytest.mark.anyio


@step
async def tidy(what: str) -> str:
    return f"tidied {what}"


@workflow
async def low(ctx: Context) -> Any:
    try:
        return await ctx.wait_for_event("say")
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await tidy("low")
        raise


@workflow
async def mid(ctx: Context) -> Any:
    return await ctx.child(low)


@workflow
async def top(ctx: Context) -> Any:
    return await ctx.child(mid)


FAMILY = ("r", "r~1", "r~1~1")


async def stand(e: Any, *run_ids: str) -> None:
    """Wait until all of these runs wait."""
    for run_id in run_ids:
        await until(lambda run_id=run_id: e.store.work(run_id) is not None)  # type: ignore[misc]
        await waiting(e, run_id)


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_run_takes_its_children_and_theirs_along(way: str, place: Place) -> None:
    """D08."""
    async with engine(place, top, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(top, id="r")
        await stand(e, *FAMILY)
        await door.cancel("r", "enough", by="ana")
        with pytest.raises(RunCancelled, match="'r' was cancelled: enough"):
            await handle.result()
        for run_id, parent in (("r~1", "r"), ("r~1~1", "r~1")):
            below = await e.get(run_id)
            with pytest.raises(RunCancelled, match=f"its parent {parent} no longer waits for it"):
                await below.result()
            assert [c.kind for c in of(below, t.RunCancelRequested)] == ["ParentCancelled"]
            assert of(below, t.RunCancelled)[0].kind == "ParentCancelled"
        assert "step.completed" in tags(await e.get("r~1~1")), "it could still tidy up"
        assert [c.run_id for c in of(handle, t.ChildCancelled)] == ["r~1"]
        assert work_agrees(e.store)
        assert e.verify().problems == ()


async def test_children_are_cancelled_although_the_engine_goes_down_right_after_their_parent(
    place: Place,
) -> None:
    """The request is in the child's inbox with the parent's own append."""
    async with engine(place, top) as e:
        await e.start(top, id="r")
        await stand(e, *FAMILY)
        e.worker.closing = True
        await e.cancel("r")
    async with engine(place, top) as e:
        with pytest.raises(RunCancelled):
            await (await e.get("r~1~1")).result()
        assert work_agrees(e.store)


async def test_were_the_request_not_stored_with_the_parents_end_a_child_would_wait_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    monkeypatch.setattr(family, "cancel_message", lambda run_id, cause: family.post("nobody", cause))
    async with engine(place, top) as e:
        await e.start(top, id="r")
        await stand(e, *FAMILY)
        await e.cancel("r")
    async with engine(place, top) as e:
        await waiting(e, "r~1")
        assert e.store.work("r").status == "cancelled"  # type: ignore[union-attr]


async def test_a_timeout_around_a_child_cancels_it(place: Place) -> None:
    clock = HandClock()

    @workflow
    async def hurries(ctx: Context) -> str:
        try:
            async with asyncio.timeout(60):
                await ctx.child(mid)
        except TimeoutError:
            return f"late, then {await ctx.wait_for_event('go')}"
        return "in time"

    async with engine(place, hurries, clock=clock) as e:
        handle = await e.start(hurries, id="r")
        await stand(e, *FAMILY)
    clock.move(61)
    async with engine(place, hurries, clock=clock) as e:
        handle = await e.get("r")
        for run_id in FAMILY[1:]:
            with pytest.raises(RunCancelled):
                await (await e.get(run_id)).result()
        await handle.signal("go", "on")
        assert await handle.result() == "late, then on"
        ended = of(handle, t.ChildEnded)
        assert [(c.child, c.status) for c in ended] == [(of(handle, t.ChildStarted)[0].child, "cancelled")]


async def test_the_failure_of_one_cancels_its_siblings(place: Place) -> None:
    @workflow
    async def fails(ctx: Context) -> None:
        await ctx.wait_for_event("fail")
        raise ValueError("no")

    @workflow
    async def group(ctx: Context) -> str:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ctx.child(mid))
                tasks.create_task(ctx.child(fails))
        except* ChildFailed as errors:
            (error,) = errors.exceptions
            assert isinstance(error, ChildFailed)
            failed = error.run_id
        return failed

    async with engine(place, group) as e:
        handle = await e.start(group, id="r")
        await stand(e, "r", "r~1", "r~1~1", "r~2")
        await e.signal("r~2", "fail")
        assert await handle.result() == "r~2"
        for run_id in ("r~1", "r~1~1"):
            with pytest.raises(RunCancelled):
                await (await e.get(run_id)).result()


async def test_a_parent_that_fails_or_ends_takes_the_children_nobody_waited_for_along(place: Place) -> None:
    @workflow
    async def leaves(ctx: Context, fails: bool) -> str:
        task = asyncio.ensure_future(ctx.child(low))
        await ctx.wait_for_event("go")
        assert not task.done()
        if fails:
            raise ValueError("no")
        return "left"

    async with engine(place, leaves) as e:
        for fails in (True, False):
            handle = await e.start(leaves, fails, id=f"r{fails}")
            await stand(e, f"r{fails}", f"r{fails}~1")
            await handle.signal("go")
            with pytest.raises(RunCancelled):
                await (await e.get(f"r{fails}~1")).result()
            assert tags(handle)[-1] == ("run.failed" if fails else "run.completed")


async def test_a_child_cancelled_by_itself_is_a_failure_to_its_parent(place: Place) -> None:
    @workflow
    async def sees(ctx: Context) -> list[str]:
        try:
            await ctx.child(low)
        except ChildFailed as error:
            return [error.status, error.type, error.message]
        return []

    async with engine(place, sees) as e:
        for verb, expected in (
            ("cancel", ["cancelled", "RunCancelled", "by hand"]),
            ("terminate", ["terminated", "RunTerminated", "by hand"]),
        ):
            handle = await e.start(sees, id=verb)
            await stand(e, verb, f"{verb}~1")
            await getattr(e, verb)(f"{verb}~1", "by hand")
            assert await handle.result() == expected


@pytest.mark.parametrize("way", WAYS)
async def test_a_terminated_run_takes_its_children_and_theirs_along(way: str, place: Place) -> None:
    async with engine(place, top, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(top, id="r")
        await stand(e, *FAMILY)
        await door.terminate("r", "now", by="ana")
        for run_id in FAMILY:
            with pytest.raises(RunCancelled, match=f"{run_id!r} was terminated: now"):
                await (await e.get(run_id)).result()
        assert of(handle, t.RunTerminated)[0].open == (of(handle, t.ChildStarted)[0].child,)
        assert "step.scheduled" not in tags(await e.get("r~1~1")), "nobody was asked"
        assert work_agrees(e.store)


# ---- detached


@pytest.mark.parametrize("end", ["completes", "fails", "cancel", "terminate"])
async def test_a_detached_child_outlives_its_parent(end: str, place: Place) -> None:
    @workflow
    async def sends(ctx: Context) -> str:
        run_id: str = await ctx.child(low, wait=False)
        if await ctx.wait_for_event("go") == "fails":
            raise ValueError(run_id)
        return run_id

    async with engine(place, sends) as e:
        handle = await e.start(sends, id="r")
        await stand(e, "r", "r~1")
        (started,) = of(handle, t.ChildStarted)
        assert started.detached
        if end in ("cancel", "terminate"):
            await getattr(handle, end)()
        else:
            await handle.signal("go", end)
        if end == "completes":
            assert await handle.result() == "r~1"
        else:
            with pytest.raises((RunFailed, RunCancelled)):
                await handle.result()
    async with engine(place, sends) as e:
        await e.signal("r~1", "say", "still here")
        below = await e.get("r~1")
        assert await below.result() == "still here"
        assert of(below, t.RunStarted)[0].detached
        assert "child.ended" not in tags(await e.get("r"))
        assert e.store.tail("r/inbox").version == 0
        assert work_agrees(e.store)


async def test_a_detached_child_is_started_although_its_parent_ends_at_once(place: Place) -> None:
    @workflow
    async def sends(ctx: Context, how: str) -> str:
        run_id: str = await ctx.child(low, wait=False)
        if how == "continues":
            ctx.continue_as_new("ends")
        if how == "fails":
            raise ValueError(run_id)
        return run_id

    async with engine(place, sends) as e:
        for how in ("ends", "continues", "fails"):
            await e.start(sends, how, id=how)
            await e.signal(f"{how}~1", "say", how)
            assert await (await e.get(f"{how}~1")).result() == how
        assert e.store.work("continues~r2~1") is not None
        assert work_agrees(e.store)


# ---- children that go on as new runs


@workflow
async def goes_on(ctx: Context, n: int) -> str:
    said = await ctx.wait_for_event("say")
    if n:
        ctx.continue_as_new(n - 1)
    return f"{said} from {ctx.run_id}"


@workflow
async def over_it(ctx: Context) -> str:
    first = await ctx.child(goes_on, 2)
    return f"{first}, then {await ctx.child(goes_on, 0)}"


@pytest.mark.parametrize("way", WAYS)
async def test_a_child_that_goes_on_as_a_new_run_reports_to_its_parent(way: str, place: Place) -> None:
    async with engine(place, over_it, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(over_it, id="r")
        await stand(e, "r", "r~1")
        for run_id, text in (("r~1", "a"), ("r~1", "b"), ("r~1", "c"), ("r~2", "d")):
            await until(lambda run_id=run_id: e.store.work(run_id) is not None)  # type: ignore[misc]
            await door.signal(run_id, "say", text)
        assert await handle.result() == "c from r~1~r3, then d from r~2"
        assert [c.run_id for c in of(handle, t.ChildEnded)] == ["r~1~r3", "r~2"]
        last = of(await e.get("r~1~r3"), t.RunStarted)[0]
        assert [a.run_id for a in last.ancestors] == ["r"]
        assert last.child == of(handle, t.ChildStarted)[0].child
        assert work_agrees(e.store)


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_child_that_went_on_is_ended_through_its_parent(way: str, verb: str, place: Place) -> None:
    async with engine(place, over_it, **memory(way)) as e, voter(way, place, e) as door:
        await e.start(over_it, id="r")
        await stand(e, "r", "r~1")
        await door.signal("r~1", "say", "a")
        await until(lambda: e.store.work("r~1~r2") is not None)
        await door.signal("r~1", "say", "b")
        await stand(e, "r~1~r3")
        await getattr(door, verb)("r", "enough")
        with pytest.raises(RunCancelled, match="r~1~r3"):
            await (await e.get("r~1")).result()
        assert e.store.work("r~1~r3").status == f"{verb}{'led' if verb == 'cancel' else 'd'}"  # type: ignore[union-attr]
        assert work_agrees(e.store)


async def test_the_request_to_a_child_that_went_on_survives_a_restart(place: Place) -> None:
    """The engine went down between the parent's end and passing the request on."""
    async with engine(place, over_it) as e:
        await e.start(over_it, id="r")
        await stand(e, "r", "r~1")
        await e.signal("r~1", "say", "a")
        await stand(e, "r~1~r2")
        e.worker.mail_for = lambda run_id: None  # type: ignore[method-assign]
        await e.cancel("r", "enough")
        assert e.store.work("r~1~r2").state == "waiting"  # type: ignore[union-attr]
    async with engine(place, over_it) as e:
        with pytest.raises(RunCancelled, match=r"r~1~r2"):
            await (await e.get("r~1")).result()
        assert work_agrees(e.store)
        assert e.verify().problems == ()


async def test_children_of_a_run_before_do_not_answer_for_those_of_the_next(place: Place) -> None:
    @workflow
    async def again(ctx: Context, n: int) -> Any:
        task = asyncio.ensure_future(ctx.child(low))
        await asyncio.sleep(0)
        if n:
            await ctx.wait_for_event("go")
            ctx.continue_as_new(n - 1)
        return await task

    async with engine(place, again) as e:
        handle = await e.start(again, 1, id="c")
        await stand(e, "c", "c~1")
        await handle.signal("go")
        await stand(e, "c~r2", "c~r2~1")
        with pytest.raises(RunCancelled):
            await (await e.get("c~1")).result()
        await waiting(e, "c~r2")
        await e.signal("c~r2~1", "say", "mine")
        assert await handle.result() == "mine"
        assert work_agrees(e.store)


async def test_a_fork_shares_the_children_there_were_and_starts_its_own(place: Place) -> None:
    @workflow
    async def says(ctx: Context, what: str) -> str:
        return what

    @workflow
    async def twice(ctx: Context) -> list[Any]:
        first = await ctx.child(says, "a")
        detached = await ctx.child(says, f"after {first}", wait=False)
        heard = await ctx.wait_for_event("go")
        return [
            first,
            detached,
            heard,
            await ctx.child(says, detached),
            await ctx.child(says, "c", wait=False),
        ]

    async with engine(place, twice) as e:
        handle = await e.start(twice, id="r")
        await seen(handle, t.WaitOpened)
        await handle.signal("go", 1)
        assert await handle.result() == ["a", "r~2", 1, "r~2", "r~4"]
        at = tags(handle).index("wait.opened") + 1
        await e.fork("r", at=at, id="f")
    async with engine(place, twice, memory_bytes=0) as e:
        await e.signal("f", "go", 2)
        fork = await e.get("f")
        assert await fork.result() == ["a", "r~2", 2, "r~2", "f~4"]
        assert [c.run_id for c in of(fork, t.ChildStarted)] == ["r~1", "r~2", "f~3", "f~4"]
        await e.fork("f", at=tags(fork).index("signal.received"), id="g")
        await e.signal("g", "go", 3)
        assert await (await e.get("g")).result() == ["a", "r~2", 3, "r~2", "g~4"]
        assert work_agrees(e.store)
