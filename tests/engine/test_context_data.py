"""The shared context of a run, its attributes and checkpoints, and what its steps have returned."""

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from refold import ConfigurationError, Context, RunFailed, ValueRefused, step, workflow
from refold.engine import data
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen, tags, until

pytestmark = pytest.mark.anyio


class Money(msgspec.Struct):
    usd: int


@step
async def double(number: int) -> int:
    return number * 2


async def test_what_one_task_sets_another_one_gets(place: Place) -> None:
    """E03: the context is a fold of what was set; a value is never the object that somebody set."""

    @workflow
    async def shares(ctx: Context) -> Any:
        basket = [1]
        ctx.set("basket", basket)
        basket.append(2)

        async def other() -> Any:
            ctx.set("price", Money(5))
            return ctx.get("basket")

        first = await asyncio.create_task(other())
        first.append(3)
        price = ctx.get("price", type=Money)
        return [first, ctx.get("basket"), ctx.get("price"), price.usd, ctx.get("none"), ctx.get("none", 7)]

    async with engine(place, shares) as e:
        assert await e.run(shares) == [[1, 3], [1], {"usd": 5}, 5, None, 7]


async def test_the_context_is_the_same_after_eviction_and_restart(place: Place) -> None:
    @workflow
    async def counts(ctx: Context) -> Any:
        for number in range(3):
            ctx.set("sum", ctx.get("sum", 0) + int(await ctx.wait_for_event("add")))
            ctx.set(f"key {number}", number)
        return [ctx.get("sum"), ctx.get("key 2")]

    for turn in range(3):
        async with engine(place, counts, memory_bytes=0) as e:
            handle = await e.start(counts, id="r")
            await seen(handle, t.WaitOpened, turn + 1)
            await until(lambda: "r" not in e.worker.live)
            await handle.signal("add", 10**turn)
            if turn < 2:
                await seen(handle, t.ContextSet, 2 * turn + 2)
    async with engine(place, counts) as e:
        assert await (await e.get("r")).result() == [111, 2]
        assert e.verify("r").problems == ()


async def test_two_branches_that_set_different_keys_both_count(place: Place) -> None:
    """E03."""

    @workflow
    async def two(ctx: Context) -> Any:
        async def branch(key: str, number: int) -> None:
            ctx.set(key, await double(number))

        await ctx.parallel([branch("a", 1), branch("b", 2)])
        return ctx.get("a"), ctx.get("b")

    async with engine(place, two) as e:
        handle = await e.start(two)
        assert await handle.result() == [2, 4]
        assert [s.conflict for s in of(handle, t.ContextSet)] == ["", ""]


async def test_two_branches_that_set_one_key_are_a_recorded_conflict(place: Place) -> None:
    """E03."""

    @workflow
    async def two(ctx: Context) -> Any:
        async def branch(number: int) -> None:
            ctx.set("key", await double(number))
            ctx.set("key", await double(number))

        await ctx.parallel([branch(1), branch(2)])
        return ctx.get("key")

    async with engine(place, two) as e:
        handle = await e.start(two, id="r")
        won = await handle.result()
        sets = of(handle, t.ContextSet)
        assert won == msgspec.json.decode(sets[-1].value)
        for before, after in pairwise(sets):
            assert after.conflict == (before.task if before.task != after.task else "")
        assert any(each.conflict for each in sets)


async def test_branches_one_after_the_other_do_not_conflict(place: Place) -> None:
    @workflow
    async def in_turn(ctx: Context) -> Any:
        async def adds(number: int) -> None:
            ctx.set("sum", ctx.get("sum", 0) + await double(number))

        async def nests(number: int) -> None:
            await asyncio.create_task(adds(number))

        for number in range(3):
            await asyncio.create_task(adds(number))
            await ctx.parallel([nests(number)])
        ctx.set("sum", ctx.get("sum") + 1)
        return ctx.get("sum")

    async with engine(place, in_turn) as e:
        handle = await e.start(in_turn)
        assert await handle.result() == 13
        assert {s.conflict for s in of(handle, t.ContextSet)} == {""}


async def test_a_branch_started_later_than_one_that_goes_on_conflicts(place: Place) -> None:
    @workflow
    async def overlaps(ctx: Context) -> None:
        async def sets(forever: bool) -> None:
            ctx.set("key", forever)
            await (asyncio.Event().wait() if forever else asyncio.sleep(0))

        first = asyncio.create_task(sets(True))
        await asyncio.sleep(0)
        await asyncio.create_task(sets(False))
        first.cancel()

    async with engine(place, overlaps) as e:
        handle = await e.start(overlaps)
        await handle.result()
        assert [(s.task, s.conflict) for s in of(handle, t.ContextSet)] == [("m.1", ""), ("m.2", "m.1")]


@pytest.mark.parametrize("key", sorted(data.RESERVED))
async def test_reserved_names_are_not_set_and_the_attempt_is_recorded(key: str, place: Place) -> None:
    """E08."""

    @workflow
    async def sets(ctx: Context) -> Any:
        ctx.set(key, "mine")
        return ctx.get(key)

    async with engine(place, sets) as e:
        handle = await e.start(sets)
        assert await handle.result() is None
        (attempt,) = of(handle, t.ContextSet)
        assert attempt.refused == f"{key!r} is a reserved name"
        assert bytes(attempt.value) == b"null"


async def test_what_cannot_be_set_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_KEYS", 2)

    @workflow
    async def sets(ctx: Context) -> Any:
        told = []
        for key, value in (
            ("", 1),
            ("a\n", 1),
            ("a", object()),
            ("a", float("nan")),
            ("a", 1),
            ("b", 2),
            ("c", 3),
        ):
            try:
                ctx.set(key, value)
            except (ConfigurationError, ValueRefused) as error:
                told.append(str(error))
        ctx.set("a", 4)
        return told

    async with engine(place, sets) as e:
        handle = await e.start(sets)
        told = await handle.result()
        assert [bytes(s.value) for s in of(handle, t.ContextSet)] == [b"1", b"2", b"4"]
        assert len(told) == 5
        assert "context key ''" in told[0]
        assert "no JSON form" in told[2]
        assert "2 keys, which is the limit" in told[4]


async def test_large_values_lie_beside_the_log(place: Place) -> None:
    @workflow
    async def sets(ctx: Context) -> Any:
        ctx.set("long", "x" * 300_000)
        await ctx.wait_for_event("go")
        return len(ctx.get("long"))

    async with engine(place, sets) as e:
        await seen(await e.start(sets, id="r"), t.WaitOpened)
        assert all(len(row.state) < 2_000 for row in e.store.read("r"))
    async with engine(place, sets) as e:
        await e.signal("r", "go")
        assert await (await e.get("r")).result() == 300_000


async def test_a_checkpoint_is_a_named_event_and_nothing_else(place: Place) -> None:
    """A25."""

    @workflow
    async def pauses(ctx: Context) -> Any:
        ctx.checkpoint("before", {"sum": 1})
        got = await ctx.wait_for_event("go")
        ctx.checkpoint("after")
        return got

    async with engine(place, pauses) as e:
        await seen(await e.start(pauses, id="r"), t.WaitOpened)
    async with engine(place, pauses) as e:
        await e.signal("r", "go", 1)
        handle = await e.get("r")
        assert await handle.result() == 1
        assert [(c.name, bytes(c.data)) for c in of(handle, t.CheckpointRecorded)] == [
            ("before", b'{"sum":1}'), ("after", b"null"),
        ]  # fmt: skip


# ---- what the steps have returned


@workflow(keep_outputs=True)
async def remembers(ctx: Context) -> Any:
    empty = [ctx.prior_output, ctx.prior_context, ctx.prior_outputs]
    for turn in range(2):
        await ctx.parallel([double(turn), ctx.call(abs, -turn)])
    last = ctx.prior_context
    assert last is not None
    await ctx.wait_for_event("go")
    entries = [tuple(entry) for entry in ctx.prior_outputs]
    return [empty, entries, ctx.prior_output, last == ctx.prior_outputs[-1]]


@pytest.mark.parametrize("how", ["in memory", "evicted", "restarted"])
async def test_outputs_are_kept_in_the_order_of_completion(how: str, place: Place) -> None:
    """B09."""
    async with engine(place, remembers, memory_bytes=0 if how == "evicted" else 1_000_000) as e:
        handle = await e.start(remembers, id="r")
        await seen(handle, t.WaitOpened)
        if how != "restarted":
            await until(lambda: ("r" in e.worker.live) is (how == "in memory"))
            await handle.signal("go")
            got = await handle.result()
    async with engine(place, remembers) as e:
        handle = await e.get("r")
        if how == "restarted":
            await handle.signal("go")
            got = await handle.result()
        keys = {s.step: s.key for s in of(handle, t.StepScheduled)}
        order = [keys[c.step] for c in of(handle, t.StepCompleted)]
    empty, entries, last, same = got
    assert empty == [None, None, []]
    assert [entry[0] for entry in entries] == order
    assert sorted(entries) == [["abs#1", "abs", 0, 0], ["abs#2", "abs", 0, 1], ["double#1", "double", 0, 0],
                               ["double#2", "double", 0, 2]]  # fmt: skip
    assert last == entries[-1][3]
    assert same is True


async def test_a_kept_output_is_nobody_elses_object(place: Place) -> None:
    @step
    async def lists() -> list[int]:
        return [1]

    @workflow(keep_outputs=True)
    async def changes(ctx: Context) -> Any:
        (await lists()).append(2)
        return ctx.prior_output

    async with engine(place, changes) as e:
        assert await e.run(changes) == [1]


@pytest.mark.parametrize("name", ["prior_outputs", "prior_output", "prior_context"])
async def test_outputs_that_are_not_kept_cannot_be_asked_for(name: str, place: Place) -> None:
    @workflow
    async def forgets(ctx: Context) -> Any:
        return getattr(ctx, name)

    async with engine(place, forgets) as e:
        with pytest.raises(
            RunFailed, match=rf"ctx.{name} .* declare forgets with @workflow\(keep_outputs=True\)"
        ):
            await e.run(forgets)


async def test_a_run_that_uses_none_of_it_has_no_memory_for_it(place: Place) -> None:
    @workflow
    async def plain(ctx: Context) -> Any:
        await double(1)
        return await ctx.wait_for_event("go")

    async with engine(place, plain) as e:
        handle = await e.start(plain, id="r")
        await seen(handle, t.WaitOpened)
        assert e.worker.live["r"].run.memory is None
        assert tags(handle)[-1] == "wait.opened"
