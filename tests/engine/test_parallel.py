"""`ctx.parallel`: branches run side by side, results keep their order, nothing is left running."""

import asyncio
import gc
import random
import warnings
from typing import Any

import anyio
import pytest

from refold import ConfigurationError, Context, RunFailed, StepFailed, step, workflow
from refold.engine.parallel import Branch, Results
from refold.events import types as t
from tests.engine.fans import Desk, ends
from tests.engine.kit import Place, engine, of, seen, until
from tests.replay.play import check, play

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_branches_run_side_by_side_and_results_come_in_their_order(place: Place, desk: Desk) -> None:
    """A10."""

    @workflow
    async def three(ctx: Context) -> list[Any]:
        return await ctx.parallel([desk.work("a"), lambda: desk.work("b"), Branch(desk.work("c"))])

    async with engine(place, three) as e:
        handle = await e.start(three)
        await until(lambda: len(desk.begun) == 3)
        for name in "cab":
            await desk.end(name)
        assert await handle.result() == ["A", "B", "C"]


async def test_the_first_failure_cancels_the_others_and_is_raised(place: Place, desk: Desk) -> None:
    """A11."""

    @workflow
    async def three(ctx: Context) -> Any:
        try:
            await ctx.parallel(desk.work(name) for name in "abc")
        except StepFailed as error:
            await desk.undo("all")
            return error.message, error.__notes__

    async with engine(place, three) as e:
        handle = await e.start(three)
        await until(lambda: len(desk.begun) == 3)
        await desk.end("b", fails=True)
        message, notes = await handle.result()
        assert message == "b"
        assert notes == ["branch 1 of ctx.parallel"]
        assert ends(handle) == {"a": "cancelled", "b": "failed", "c": "cancelled", "all": "completed"}


async def test_what_a_cancelled_branch_does_in_finally_is_done_before_the_error_is_raised(
    place: Place, desk: Desk
) -> None:
    async def careful(name: str) -> None:
        try:
            await desk.work(name)
        finally:
            await desk.undo(name)

    @workflow
    async def two(ctx: Context) -> Any:
        with pytest.raises(StepFailed):
            await ctx.parallel([careful("a"), desk.work("b")])
        return desk.undone

    async with engine(place, two) as e:
        handle = await e.start(two)
        await until(lambda: len(desk.begun) == 2)
        await desk.end("b", fails=True)
        assert await handle.result() == ["a"]


async def test_without_fail_fast_all_end_and_the_first_error_in_order_has_the_others(
    place: Place, desk: Desk
) -> None:
    """A11."""

    @workflow
    async def four(ctx: Context) -> Any:
        try:
            await ctx.parallel([desk.work(name) for name in "abcd"], fail_fast=False)
        except StepFailed as error:
            others: tuple[StepFailed, ...] = error.others  # type: ignore[attr-defined]
            return error.message, [other.message for other in others], error.__notes__

    async with engine(place, four) as e:
        handle = await e.start(four)
        await until(lambda: len(desk.begun) == 4)
        for name in "dcba":
            await desk.end(name, fails=name != "c")
        message, others, notes = await handle.result()
        assert (message, others) == ("a", ["b", "d"])
        assert "2 more failed" in notes[1]
        assert ends(handle) == {"a": "failed", "b": "failed", "c": "completed", "d": "failed"}


async def test_enough_successes_are_enough(place: Place, desk: Desk) -> None:
    """A13."""

    @workflow
    async def two_of_three(ctx: Context) -> Any:
        got = await ctx.parallel([desk.work(name) for name in "abc"], min_success=2)
        return got, {place: str(error) for place, error in got.failures.items()}, got.skipped

    async with engine(place, two_of_three) as e:
        handle = await e.start(two_of_three)
        await until(lambda: len(desk.begun) == 3)
        for name in "abc":
            await desk.end(name, fails=name == "b")
        assert await handle.result() == [["A", None, "C"], {"1": "step work#2 failed: ValueError: b"}, []]


async def test_too_few_successes_fail_as_soon_as_that_is_certain(place: Place, desk: Desk) -> None:
    """A13."""

    @workflow
    async def two_of_three(ctx: Context) -> Any:
        await ctx.parallel([desk.work(name) for name in "abc"], min_success=2)

    async with engine(place, two_of_three) as e:
        handle = await e.start(two_of_three)
        await until(lambda: len(desk.begun) == 3)
        await desk.end("c", fails=True)
        await desk.end("b", fails=True)
        with pytest.raises(RunFailed, match="StepFailed: step work#3 failed"):
            await handle.result()
        assert ends(handle) == {"a": "cancelled", "b": "failed", "c": "failed"}


async def test_without_fail_fast_too_few_successes_are_told_of_at_the_end(place: Place, desk: Desk) -> None:
    @workflow
    async def all_three(ctx: Context) -> Any:
        try:
            await ctx.parallel([desk.work(name) for name in "abc"], min_success=3, fail_fast=False)
        except StepFailed as error:
            return error.message, error.__notes__

    async with engine(place, all_three) as e:
        handle = await e.start(all_three)
        for name in "cba":
            await desk.end(name, fails=name == "c")
        message, notes = await handle.result()
        assert message == "c"
        assert "at most 2 of 3 could succeed, min_success=3" in notes[0]


async def test_a_branch_with_a_false_condition_is_skipped_and_has_a_row(place: Place, desk: Desk) -> None:
    """A13: skipped is not success."""

    @workflow
    async def some(ctx: Context) -> Any:
        def branches() -> list[Any]:
            return [Branch(desk.work("a")), Branch(desk.work("b"), when=False), Branch(ctx.now, False, "n")]

        try:
            await ctx.parallel(branches(), min_success=2)
        except ConfigurationError as error:
            refused = str(error)
        got = await ctx.parallel(branches())
        return got, got.skipped, refused

    async with engine(place, some) as e:
        handle = await e.start(some)
        await desk.end("a")
        got, skipped, refused = await handle.result()
        assert got == ["A", None, None]
        assert skipped == [1, 2]
        assert "at most 1 of 3 could succeed, min_success=2: 2 are skipped by their conditions" in refused
        assert desk.begun == ["a"]
        rows = of(handle, t.BranchSkipped)
        assert [row.key for row in rows] == ["work#1", "n#1", "work#2", "n#2"]
        assert {row.reason for row in rows} == {"its condition is false"}
        (scheduled,) = of(handle, t.StepScheduled)
        assert len({row.step for row in rows} | {scheduled.step}) == 5


async def test_a_restart_executes_only_the_branch_that_is_missing(place: Place, desk: Desk) -> None:
    """A12."""

    @workflow
    async def three(ctx: Context) -> Any:
        return await ctx.parallel([desk.work(name) for name in "abc"])

    async with engine(place, three, grace=0) as e:
        handle = await e.start(three, id="r")
        await desk.end("a")
        await desk.end("c")
        await seen(handle, t.StepCompleted, 2)
    desk.answers.clear()
    async with engine(place, three) as e:
        handle = await e.get("r")
        await until(lambda: desk.begun == ["a", "b", "c", "b"])
        desk.answers["b"].set_result("again")
        assert await handle.result() == ["A", "again", "C"]


async def test_eviction_in_the_middle_changes_nothing(place: Place) -> None:
    @workflow
    async def waits(ctx: Context) -> Any:
        async def one(name: str) -> Any:
            got = await ctx.wait_for_event(name)
            ctx.set(name, got)
            return got

        return await ctx.parallel([one("a"), one("b"), one("c")])

    async with engine(place, waits, memory_bytes=0) as e:
        handle = await e.start(waits, id="r")
        for name in "cab":
            await until(lambda: "r" not in e.worker.live)
            await handle.signal(name, name.upper())
        assert await handle.result() == ["A", "B", "C"]
        assert e.verify("r").problems == ()


async def test_cancelling_the_call_cancels_its_branches(place: Place, desk: Desk) -> None:
    @workflow
    async def late(ctx: Context) -> Any:
        seen: list[Any] = []
        try:
            async with asyncio.timeout(0.05):
                await ctx.parallel([desk.work("a"), desk.work("b")])
        except TimeoutError:
            seen.append("asyncio")
        with anyio.move_on_after(0.05):
            await ctx.parallel([desk.work("c"), desk.work("d")])
        task = asyncio.create_task(ctx.parallel([desk.work("e"), desk.work("f")]))
        await asyncio.sleep(0)
        task.cancel()
        return seen, len(await asyncio.wait_for(asyncio.wait([task]), 1))

    async with engine(place, late) as e:
        handle = await e.start(late)
        assert await handle.result() == [["asyncio"], 2]
        assert {ends(handle)[name] for name in "abcd"} == {"cancelled"}


async def test_what_never_began_is_closed_without_a_warning(place: Place, desk: Desk) -> None:
    def breaks() -> Any:
        yield desk.work("x")
        raise KeyError("no more")

    async def refused(ctx: Context, branches: Any, **options: Any) -> str:
        try:
            return str(await ctx.parallel(branches, **options))
        except (ConfigurationError, KeyError) as error:
            return str(error)

    @workflow
    async def never(ctx: Context) -> Any:
        told = [
            await refused(ctx, [desk.work("x"), 7]),
            await refused(ctx, [desk.work("x")], min_success=2),
            await refused(ctx, breaks()),
            await refused(ctx, [desk.work("x"), Branch(desk.work("y"), when=False)], min_success=2),
        ]
        outer = asyncio.create_task(ctx.parallel([ctx.parallel([desk.work("x")]), desk.work("y")]))
        outer.cancel()
        await asyncio.wait([outer])
        ctx.parallel([desk.work("x")]).close()
        return told

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with engine(place, never) as e:
            handle = await e.start(never)
            told = await handle.result()
            assert not of(handle, t.StepScheduled)
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []
    assert "branch 1 is 7, expected a coroutine" in told[0]
    assert "min_success=2): expected 0 to 1" in told[1]
    assert "no more" in told[2]
    assert desk.begun == []


async def test_control_a_plain_list_of_coroutines_would_warn() -> None:
    async def body() -> None: ...

    def drop() -> None:
        [body()]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drop()
    assert "never awaited" in str(caught[0].message)


async def test_what_ends_a_handler_ends_it_from_a_branch_too(place: Place, desk: Desk) -> None:
    @workflow
    async def goes_on(ctx: Context, turn: int) -> str:
        async def over() -> None:
            ctx.continue_as_new(turn + 1)

        if turn == 1:
            await ctx.parallel([desk.work("a"), over()])
        return "done"

    async with engine(place, goes_on) as e:
        handle = await e.start(goes_on, 1, id="r")
        await seen(handle, t.RunContinued)
        assert await (await e.get("r~r2")).result() == "done"


async def test_a_branch_that_is_cancelled_by_the_handler_itself_has_failed(place: Place, desk: Desk) -> None:
    @workflow
    async def two(ctx: Context) -> Any:
        task = asyncio.create_task(desk.work("a"))

        async def cancels() -> str:
            task.cancel()
            return "cancelled it"

        got = await ctx.parallel([task, cancels()], min_success=1)
        return got, str(got.failures[0])

    async with engine(place, two) as e:
        got, failure = await e.run(two)
        assert got == [None, "cancelled it"]
        assert "branch 0 of ctx.parallel was cancelled, and not by it" in failure


async def test_no_branches_have_no_results(place: Place) -> None:
    @workflow
    async def none(ctx: Context) -> Any:
        return await ctx.parallel([])

    async with engine(place, none) as e:
        assert await e.run(none) == []


@step
async def flips(number: int) -> int:
    if number % 5 == 3:
        raise ValueError(number)
    return number


@workflow
async def nested(ctx: Context, shape: list[list[Any]]) -> Any:
    """Rows of [fail_fast, min_success or None, width]."""

    async def row(fail_fast: bool, wanted: int | None, width: int) -> Any:
        try:
            got = await ctx.parallel(
                [flips(number) for number in range(width)], fail_fast=fail_fast, min_success=wanted
            )
            return list(got), sorted(got.failures)
        except StepFailed as error:
            return str(error), len(error.others)  # type: ignore[attr-defined]

    rows: Results[Any] = await ctx.parallel(
        [lambda line=line: row(*line) for line in shape], fail_fast=False, min_success=0
    )
    return list(rows)


@pytest.mark.parametrize("seed", range(25))
def test_a_crash_anywhere_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    shape = [
        [rng.random() < 0.5, rng.choice([None, None, 0, 2]), rng.randint(2, 8)]
        for _ in range(rng.randint(1, 4))
    ]
    history = play(nested, [shape], rng, rng.choice([0, 0.05]))
    assert check(nested, history) >= 2
