"""`continue_as_new`: a run that goes on as another one loses nothing on the way."""

import asyncio
import signal
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from refold import Context, RunCancelled, RunFailed, record_cost, step, workflow
from refold.engine import onward
from refold.engine.inbox import mail
from refold.events import types as t
from refold.events.clock import new_event_id, to_datetime
from refold.events.codec import encode
from refold.events.store import Store
from tests.engine.children import child, lines_until
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting, work_agrees
from tests.engine.people import WAYS, WORKFLOWS, collects, memory, voter

pytestmark = pytest.mark.anyio

MODULE = "tests.engine.people"


def chain(store: Store) -> list[tuple[str, str]]:
    """All runs with their status."""
    return [(work.run_id, work.status) for work, _ in store.all_work()]


@step
async def spend(n: int) -> int:
    record_cost(usd="0.5", input_tokens=n)
    return n


@workflow
async def counts_down(ctx: Context, n: int, total: int) -> str:
    total += await spend(n)
    ctx.set_attributes(at=n)
    if n:
        ctx.continue_as_new(n - 1, total)
    return f"{ctx.run_id} {total} {ctx.attributes}"


async def test_the_result_is_that_of_the_last_run_and_each_begins_anew(place: Place) -> None:
    async with engine(place, counts_down) as e:
        handle = await e.start(
            counts_down, 3, 0, id="c", attributes={"customer": "acme"}, by="ana", timeout=900
        )
        assert await handle.result() == "c~r4 6 {'customer': 'acme', 'at': 0}"
        runs = ["c", "c~r2", "c~r3", "c~r4"]
        assert chain(e.store) == [*((run, "continued") for run in runs[:3]), ("c~r4", "completed")]
        first = of(handle, t.RunStarted)[0]
        for before, run_id in pairwise(runs):
            after = await e.get(run_id)
            (started,) = of(after, t.RunStarted)
            (ended,) = of(await e.get(before), t.RunContinued)
            assert (started.continued_from, started.cause, ended.next_run) == (before, ended.id, run_id)
            assert (started.by, started.trace, started.timeout_s) == ("ana", first.trace, 900)
            assert started.seed != first.seed
            assert len(after.events()) <= len(handle.events())
        assert float(started.spent_before.usd) == 1.5
        assert started.spent_before.input_tokens == 6
        assert work_agrees(e.store)
        assert e.verify().problems == ()
    async with engine(place, counts_down) as e:
        assert await (await e.get("c")).result() == "c~r4 6 {'customer': 'acme', 'at': 0}"


async def test_an_outsider_waits_for_the_last_result_too(place: Place) -> None:
    async with engine(place, WORKFLOWS[1]) as e:
        await e.start(collects, 2, 1, [], id="c")
        async with engine(place if isinstance(place, str) else e.store, execute=False) as door:
            waiter = asyncio.ensure_future((await door.get("c")).result())
            for letter in "ab":
                await door.signal("c", "letter", letter)
            assert await waiter == ["a", "b"]


@workflow
async def raises_later(ctx: Context, n: int) -> None:
    if n:
        ctx.continue_as_new(n - 1)
    raise ValueError("in the last one")


async def test_the_failure_of_the_last_run_is_that_of_the_first(place: Place) -> None:
    async with engine(place, raises_later) as e:
        handle = await e.start(raises_later, 2, id="c")
        with pytest.raises(RunFailed, match="'c~r3' failed: ValueError: in the last one"):
            await handle.result()


# ---- messages


async def test_signals_in_hand_go_along_in_order(place: Place) -> None:
    @workflow
    async def later(ctx: Context, n: int) -> list[Any]:
        if n:
            await ctx.wait_for_event("go")
            ctx.continue_as_new(n - 1)
        return [await ctx.wait_for_event("letter") for _ in range(4)]

    async with engine(place, later) as e:
        handle = await e.start(later, 2, id="c")
        for letter in "abc":
            await handle.signal("letter", letter, id=f"id-{letter}")
        await handle.signal("go")
        await until(lambda: e.store.work("c~r2") is not None)
        await e.signal("c~r2", "letter", "a", id="id-a")
        await e.signal("c~r2", "go")
        await until(lambda: e.store.work("c~r3") is not None)
        await e.signal("c~r3", "letter", "b", id="id-b")
        await e.signal("c~r3", "letter", "d")
        assert await handle.result() == ["a", "b", "c", "d"]
        assert [c.payload for c in of(await e.get("c~r3"), t.RunStarted)[0].carried] != []


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_said_to_the_first_reaches_the_last(way: str, place: Place) -> None:
    async with engine(place, collects, **memory(way)) as e, voter(way, place, e) as door:
        await e.start(collects, 4, 1, [], id="c")
        for letter in "abc":
            await door.signal("c", "letter", letter)
        await until(lambda: e.store.work("c~r4") is not None)
        await door.set_attributes("c", {"colour": "red"})
        last = await e.get("c~r4")
        await seen(last, t.AttributesChanged)
        await door.pause("c")
        await seen(last, t.RunPaused)
        assert await door.resume("c") == "resumed"
        await seen(last, t.RunResumed)
        await door.cancel("c", "enough")
        with pytest.raises(RunCancelled, match="'c~r4' was cancelled: enough"):
            await (await e.get("c")).result()


@pytest.mark.parametrize("way", WAYS)
async def test_terminating_the_first_terminates_the_last(way: str, place: Place) -> None:
    async with engine(place, collects, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(collects, 4, 1, [], id="c")
        await door.signal("c", "letter", "a")
        await until(lambda: e.store.work("c~r2") is not None)
        await door.terminate("c", "now")
        with pytest.raises(RunCancelled, match="'c~r2' was terminated: now"):
            await handle.result()


def late_mail(store: Store, run_id: str, *messages: t.Event) -> None:
    """What another process stored just after the run had gone on."""
    assert store.commit([mail(run_id, message) for message in messages]) == [None] * len(messages)


def letter(text: str) -> t.SignalSent:
    return t.SignalSent(
        name="letter", payload=encode(text), id=new_event_id(), at=to_datetime(1.8e9), by="late"
    )


@pytest.mark.parametrize("when", ["running", "down", "sender first"])
async def test_messages_that_came_just_after_it_had_gone_on_are_brought_along_once_and_in_order(
    when: str, place: Place
) -> None:
    """A sender looked, the run went on, the sender stored its message: it may have died then."""
    async with engine(place, collects) as e:
        await e.start(collects, 5, 1, [], id="c")
        await e.signal("c", "letter", "a")
        await until(lambda: e.store.work("c~r2") is not None)
        await waiting(e, "c~r2")
        store = e.store
        if when == "running":
            async with engine(place if isinstance(place, str) else store, execute=False) as door:
                late_mail(door.store, "c", letter("b"), letter("c"))
            await until(lambda: e.store.work("c~r4") is not None)
            await e.signal("c", "letter", "d")
            await e.signal("c", "letter", "e")
            assert await (await e.get("c")).result() == list("abcde")
            return
    async with engine(place, execute=False) as door:
        late_mail(door.store, "c", letter("b"), letter("c"))
        if when == "sender first":
            await door.signal("c", "letter", "d")
    async with engine(place, collects) as e:
        await until(lambda: e.store.work("c~r4") is not None)
        if when == "down":
            await e.signal("c", "letter", "d")
        await e.signal("c", "letter", "e")
        assert await (await e.get("c")).result() == list("abcde")
        assert [s.reason for s in of(await e.get("c"), t.InboxSkipped)] == ["went along to c~r2"]
        assert work_agrees(e.store)
        assert e.verify().problems == ()


async def test_were_they_not_brought_along_they_would_be_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    async with engine(place, collects) as e:
        await e.start(collects, 3, 1, [], id="c")
        await e.signal("c", "letter", "a")
        await until(lambda: e.store.work("c~r2") is not None)
    async with engine(place, execute=False) as door:
        late_mail(door.store, "c", letter("b"))
    monkeypatch.setattr(onward, "left_behind", lambda store, clock, work: None)
    async with engine(place, collects) as e:
        for text in "cd":
            await e.signal("c", "letter", text)
        assert await (await e.get("c")).result() == ["a", "c", "d"]


async def test_signals_held_while_it_was_paused_go_along(place: Place) -> None:
    async with engine(place, collects) as e:
        handle = await e.start(collects, 4, 1, [], id="c")
        await waiting(e, "c")
        await handle.pause()
        for text in "abcd":
            await handle.signal("letter", text)
        await handle.resume()
        assert await handle.result() == list("abcd")


async def test_a_vote_for_a_gate_of_the_run_before_is_none_for_the_same_number_of_the_next(
    place: Place,
) -> None:
    @workflow
    async def asks(ctx: Context, n: int) -> Any:
        ask = asyncio.ensure_future(ctx.approval("?"))
        await asyncio.sleep(0)
        if n:
            await ctx.wait_for_event("go")
            ctx.continue_as_new(n - 1)
        return (await ask).by

    async with engine(place, asks) as e:
        handle = await e.start(asks, 1, id="c")
        await waiting(e, "c")
        (gate,) = of(handle, t.GateOpened)
    vote = t.VoteSent(gate=gate.gate, vote="approve", id=new_event_id(), at=to_datetime(1.8e9), by="early")
    async with engine(place, execute=False) as door:
        await door.signal("c", "go")
        late_mail(door.store, "c", vote)
    async with engine(place, asks) as e:
        await until(lambda: e.store.work("c~r2") is not None)
        await waiting(e, "c~r2")
        late_mail(e.store, "c", vote)
        following = await e.get("c~r2")
        assert of(following, t.GateOpened)[0].gate == gate.gate
        await following.approve(by="ana")
        assert await following.result() == "ana"
        assert [v.by for v in of(following, t.GateVoted)] == ["ana"]


# ---- how it leaves


async def test_what_was_open_ends_with_the_run_that_went_on(place: Place) -> None:
    @workflow
    async def sleeper(ctx: Context) -> None:
        await ctx.sleep(1_000)

    @workflow
    async def leaves(ctx: Context, n: int) -> str:
        if not n:
            return "done"
        tasks = [
            asyncio.ensure_future(todo)
            for todo in (ctx.sleep(900), ctx.wait_for_event("never"), ctx.approval("?"), ctx.child(sleeper))
        ]
        await ctx.wait_for_event("go")
        assert not any(task.done() for task in tasks)
        ctx.continue_as_new(n - 1)

    async with engine(place, leaves) as e:
        handle = await e.start(leaves, 1, id="c")
        await waiting(e, "c")
        await handle.signal("go")
        assert await handle.result() == "done"
        opened = {e.timer for e in of(handle, t.TimerStarted)} | {g.gate for g in of(handle, t.GateOpened)}
        opened |= {w.wait for w in of(handle, t.WaitOpened) if w.name == "never"}
        assert set(of(handle, t.RunContinued)[0].open) == opened
        with pytest.raises(RunCancelled, match="its parent c no longer waits for it"):
            await (await e.get("c~1")).result()
        assert work_agrees(e.store)


async def test_it_may_be_said_inside_a_task_group(place: Place) -> None:
    @workflow
    async def grouped(ctx: Context, where: str, n: int) -> str:
        async def inner() -> None:
            await spend(1)
            ctx.continue_as_new(where, n - 1)

        async with asyncio.TaskGroup() as group:
            if n and where == "body":
                ctx.continue_as_new(where, n - 1)
            if n and where == "task":
                group.create_task(inner())
        return f"{where} {ctx.run_id}"

    async with engine(place, grouped) as e:
        for where in ("body", "task"):
            handle = await e.start(grouped, where, 1, id=where)
            assert await handle.result() == f"{where} {where}~r2"


async def test_arguments_that_do_not_fit_are_refused_where_they_are_given(place: Place) -> None:
    @workflow
    async def typed(ctx: Context, n: int, how: str) -> str:
        if how == "value":
            ctx.continue_as_new("many", "")
        if how == "count":
            ctx.continue_as_new(1)
        return "done"

    async with engine(place, typed) as e:
        for how, reason in (("value", "ValueRefused: .*Expected `int`"), ("count", "ConfigurationError")):
            with pytest.raises(RunFailed, match=reason):
                await (await e.start(typed, 1, how)).result()


# ---- processes


async def test_no_signal_is_lost_while_it_goes_on_twenty_times_and_each_senders_order_is_kept(
    tmp_path: Path,
) -> None:
    """Two processes send all the time; each continued run takes 6 letters of 120."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with engine(url, *WORKFLOWS) as e:
        handle = await e.start(collects, 120, 6, [], id="c")
        with ExitStack() as stack:
            senders = [
                stack.enter_context(child("writes", url, "c", name, 50, module=MODULE)) for name in "xy"
            ]
            for number in range(20):
                await handle.signal("letter", f"z{number}")
                await asyncio.sleep(0)
            for sender in senders:
                lines_until(sender, "sent")
        result = await handle.result()
        assert len(chain(e.store)) == 20
        for name, count in (("x", 50), ("y", 50), ("z", 20)):
            own = [letter for letter in result if letter[0] == name]
            assert own == [f"{name}{number}" for number in range(count)]
        assert work_agrees(e.store)
        assert e.verify().problems == ()


async def test_killed_again_and_again_while_it_goes_on_no_letter_is_lost_or_taken_twice(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with engine(url, *WORKFLOWS) as e:
        await e.start(collects, 40, 2, [], id="c")
    sent = 0
    for kill in range(4):
        with child("serves", url, module=MODULE) as process:
            lines_until(process, "serving")
            async with engine(url, execute=False) as door:
                for _ in range(8 + kill):
                    await door.signal("c", "letter", f"n{sent}")
                    sent += 1
            process.kill()
            assert process.wait() == -signal.SIGKILL
    async with engine(url, *WORKFLOWS) as e:
        handle = await e.get("c")
        for number in range(sent, 40):
            await handle.signal("letter", f"n{number}")
        assert await handle.result() == [f"n{number}" for number in range(40)]
        assert len(chain(e.store)) == 20
        assert work_agrees(e.store)
        assert e.verify().problems == ()
        assert tags(handle).count("run.continued") == 1
