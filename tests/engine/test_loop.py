"""The handler loop: time, tasks, what it refuses, when it gives up."""

import asyncio
import math
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from refold.engine.loop import Task
from refold.events.errors import HandlerStuck
from tests.engine.fake import Context, FakeRun


def commands(run: FakeRun) -> list[tuple[str, Any]]:
    return [(kind, what) for _, kind, what, _ in run.commands]


# ---- time and timers


def test_time_is_that_of_the_log_and_a_year_passes_in_one_event() -> None:
    async def handler(ctx: Context) -> Any:
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(365 * 86_400)
        return before, anyio.current_time()

    run = FakeRun(handler).start(1000.0)
    assert commands(run) == [("timer", 31_537_000.0)]
    assert run.feed(("fire", 1, 31_537_000.5)).result == (1000.0, 31_537_000.5)


def test_a_deadline_set_and_cancelled_in_one_activation_is_no_command() -> None:
    async def handler(ctx: Context) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        with anyio.move_on_after(0):
            await ctx.step("never")
        ctx.start("given up").cancel()
        await ctx.step("kept")

    assert commands(FakeRun(handler).start()) == [("step", "kept[]")]


@pytest.mark.parametrize("forever", [math.inf, 1e12], ids=["infinity", "beyond year 9999"])
def test_a_deadline_that_nobody_can_write_down_is_no_timer(forever: float) -> None:
    async def handler(ctx: Context) -> str:
        with anyio.move_on_after(5):
            await asyncio.sleep(forever)
        return "over"

    run = FakeRun(handler).start()
    assert commands(run) == [("timer", 5.0)]
    assert run.feed(("fire", 1, 5.0)).result == "over"


def test_a_deadline_in_the_past_is_ready_at_once() -> None:
    async def handler(ctx: Context) -> list[str]:
        out: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_at(-math.inf, out.append, "first")
        loop.call_later(-5, out.append, "second")
        await asyncio.sleep(0)
        return out

    run = FakeRun(handler).start(50.0)
    assert run.result == ["first", "second"]


def test_a_deadline_that_is_no_number_is_an_error() -> None:
    async def handler(ctx: Context) -> None:
        asyncio.get_running_loop().call_later(math.nan, print)

    main = FakeRun(handler).start().main
    assert main is not None
    assert isinstance(main.exception(), ValueError)


NOW = 1_763_700_000.123457


@pytest.mark.parametrize("delay", [0.1, 1e-7, 1e-300, 0.3, 86_400, 1 / 3])
def test_timers_are_whole_microseconds_and_always_later(delay: float) -> None:
    async def handler(ctx: Context) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(asyncio.sleep(delay), asyncio.sleep(9))
        loop.call_at(loop.time() + delay, print)

    run = FakeRun(handler).start(NOW)
    timer = run.pending[1].target
    assert run.commands[0][2] == timer.when() == round(timer.when() * 1e6) / 1e6 > NOW
    assert timer.when() - NOW == pytest.approx(max(delay, 1e-6), abs=6e-7)


def test_an_anyio_deadline_fires_once_though_it_falls_between_two_microseconds() -> None:
    """anyio looks at the clock again when its timer fires, and would set the same timer for ever."""

    async def handler(ctx: Context) -> bool:
        with anyio.CancelScope(deadline=NOW + 0.1000003) as scope:
            await ctx.step("s")
        return scope.cancelled_caught

    run = FakeRun(handler).start(NOW)
    due = run.commands[0][2]
    assert due >= NOW + 0.1000003
    assert run.feed(("fire", 1, due)).result is True
    assert [kind for kind, _ in commands(run)] == ["timer", "step", "cancel", "end"]


def test_a_loop_that_sleeps_until_a_moment_ends() -> None:
    async def handler(ctx: Context) -> str:
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.1000004
        while (left := until - loop.time()) > 0:  # noqa: ASYNC110 - the point
            await asyncio.sleep(left)
        return "over"

    run = FakeRun(handler).start(NOW)
    for number in range(1, 4):
        if not run.closed:
            run.feed(("fire", number, run.pending[number].what))
    assert run.result == "over"


def test_a_timer_that_was_made_ready_and_then_cancelled_neither_runs_nor_is_a_command() -> None:
    async def handler(ctx: Context) -> str:
        loop = asyncio.get_running_loop()
        second = loop.call_at(5.0, print)
        loop.call_at(5.0, second.cancel)
        await ctx.step("s")
        return "over"

    run = FakeRun(handler).start()
    with run.loop.entered():
        timers = [run.pending.pop(2).target, run.pending.pop(1).target]
        for timer in timers:
            run.loop.make_ready(timer)
        run.loop.drain()
    assert timers[1].cancelled()
    assert [kind for kind, _ in commands(run)] == ["timer", "timer", "step"]


# ---- tasks


async def leaf(ctx: Context, *args: Any) -> Any:
    return await ctx.step("leaf", *args)


def test_paths_tell_the_tree_of_tasks_whatever_their_names() -> None:
    async def child(ctx: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(leaf, ctx)

    async def handler(ctx: Context) -> None:
        task = asyncio.create_task(child(ctx), name="mine")
        task.set_name("renamed")
        await asyncio.gather(task, leaf(ctx))

    run = FakeRun(handler).start()
    assert [(task.path, task.get_name()) for task in run.loop.tasks][:2] == [("m", "m"), ("m.1", "renamed")]
    assert [path for _, _, _, path in run.commands] == ["m.2", "m.1.1"]


def test_hashes_stay_below_2_to_the_30_and_differ_from_run_to_run() -> None:
    async def handler(ctx: Context) -> list[int]:
        tasks = [asyncio.create_task(leaf(ctx)) for _ in range(100)]
        futures = [asyncio.get_running_loop().create_future() for _ in range(100)]
        return [hash(x) for x in [*tasks, *futures, asyncio.gather(*tasks)]]

    one, same, other = (FakeRun(handler, seed=seed).start().result for seed in (2**64 - 1, 2**64 - 1, 99))
    assert one == same
    assert len(set(one) | set(other)) == 402
    assert all(0 <= value < 2**30 for value in one + other)


def test_what_a_task_learned_goes_to_its_parent() -> None:
    async def learn(*numbers: int) -> None:
        task = asyncio.current_task()
        assert isinstance(task, Task)
        task.known = numbers or task.known

    async def handler(ctx: Context) -> Any:
        task = asyncio.current_task()
        assert isinstance(task, Task)
        task.known = (1,)
        await asyncio.create_task(learn())
        unchanged = task.known
        await asyncio.gather(learn(2), learn(3), learn(1, 4))
        merged = task.known
        await asyncio.gather(*[learn(number) for number in range(100, 200)])
        return unchanged, merged, task.known

    unchanged, merged, many = FakeRun(handler).start().result
    assert unchanged == (1,)
    assert merged == (2, 3, 1, 4)
    assert many == tuple(range(136, 200))


def test_a_task_does_not_keep_its_parent_alive_nor_needs_it() -> None:
    async def orphan(ctx: Context) -> None:
        await leaf(ctx)

    async def parent(ctx: Context) -> Any:
        return asyncio.create_task(orphan(ctx))

    async def handler(ctx: Context) -> str:
        await (await asyncio.create_task(parent(ctx)))
        return "over"

    run = FakeRun(handler).start()
    assert [task.path for task in run.loop.tasks] == ["m", "m.1.1"]
    assert run.feed(("done", 1, None, 1.0)).result == "over"


def test_the_error_of_a_task_that_nobody_awaits_is_kept() -> None:
    async def fail() -> None:
        raise LookupError("lost")

    async def handler(ctx: Context) -> None:
        asyncio.create_task(fail())  # noqa: RUF006 - the point
        await ctx.step("s")

    run = FakeRun(handler).start()
    (error,) = run.loop.errors
    assert isinstance(error["exception"], LookupError)
    assert error["task"] == "m.1"


def test_wait_for_starts_no_task_of_its_own_on_any_python() -> None:
    async def count() -> int:
        return len(asyncio.all_tasks())

    async def handler(ctx: Context) -> Any:
        return await asyncio.wait_for(count(), 9), await asyncio.wait_for(count(), None)

    assert FakeRun(handler).start().result == (1, 1)


def test_wait_for_without_time_cancels_what_has_not_ended() -> None:
    async def handler(ctx: Context) -> str:
        started = ctx.start("s")
        try:
            await asyncio.wait_for(started, 0)
        except TimeoutError:
            return f"late, cancelled: {started.cancelled()}"
        return ""

    run = FakeRun(handler).start()
    assert run.result == "late, cancelled: True"
    assert [kind for kind, _ in commands(run)] == ["end"]


def test_all_tasks_are_those_of_this_run() -> None:
    async def handler(ctx: Context) -> int:
        asyncio.create_task(leaf(ctx))  # noqa: RUF006
        return len(asyncio.all_tasks())

    async def waiting(ctx: Context) -> None:
        await ctx.step("s")

    other = FakeRun(waiting).start()
    assert FakeRun(handler).start().result == 2
    assert asyncio.all_tasks(other.loop) == set(other.loop.tasks)


def test_a_queue_made_at_module_level_is_bound_to_one_run() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def handler(ctx: Context) -> int:
        return await queue.get()

    FakeRun(handler).start()
    two = FakeRun(handler).start()
    assert two.main is not None
    assert "different event loop" in str(two.main.exception())


# ---- cancellation


def test_a_cancelled_handler_compensates_behind_a_shield() -> None:
    async def handler(ctx: Context) -> None:
        try:
            await ctx.step("charge")
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await ctx.step("refund")
            raise

    run = FakeRun(handler).start().feed(("cancel", "user", 1.0))
    assert commands(run) == [("step", "charge[]"), ("cancel", 1), ("step", "refund[]")]
    run.feed(("done", 1, "late", 2.0)).feed(("done", 3, None, 3.0))
    assert commands(run)[-1] == ("end", "cancelled")


async def survivor(ctx: Context, name: str) -> None:
    try:
        await ctx.step(name)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.step("shielded " + name)


def test_tasks_that_survive_a_cancelled_anyio_scope_do_not_keep_the_loop_busy() -> None:
    """anyio would try again in every pass until they end: a busy loop on stock asyncio, too."""

    async def handler(ctx: Context) -> str:
        async def group() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(survivor, ctx, "a")

        with anyio.move_on_after(1):
            await asyncio.gather(group(), survivor(ctx, "b"), return_exceptions=True)
        return "over"

    run = FakeRun(handler).start().feed(("fire", 1, 1.0))
    assert not run.closed
    for number in run.numbers("step"):
        run.feed(("done", number, None, 2.0))
    assert run.result == "over"


def test_a_task_that_polls_until_it_is_cancelled_gets_its_cancellation() -> None:
    """checkpoint_if_cancelled() polls, so that the loop is never idle: retries must not wait for that."""

    async def handler(ctx: Context) -> str:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.lowlevel.checkpoint_if_cancelled()
            await ctx.step("never")
        return "over"

    assert FakeRun(handler).start().result == "over"


def test_a_cancelled_scope_reaches_a_task_between_two_polls() -> None:
    async def handler(ctx: Context) -> str:
        async with anyio.create_task_group() as group:

            async def poll() -> None:
                while True:  # noqa: ASYNC110 - the point
                    await asyncio.sleep(0)

            group.start_soon(poll)
            group.cancel_scope.cancel()
        return "over"

    assert FakeRun(handler).start().result == "over"


def test_a_handler_that_never_waits_is_stuck_and_says_where() -> None:
    async def handler(ctx: Context) -> None:
        while True:  # noqa: ASYNC110 - the point
            await asyncio.sleep(0)

    run = FakeRun(handler)
    run.loop.MAX_CALLBACKS = 5_000
    with pytest.raises(
        HandlerStuck, match=r"run r1: .* without waiting(?s:.)*test_loop.py:\d+.* in .*handler"
    ):
        run.start()
