"""Code changes under runs: versions side by side, missing ones, patches until nobody needs them any more."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from refold import Context, NonDeterminismError, Workflow, step, workflow
from refold.events import types as t
from refold.events.errors import HandlerError, NotRegistered
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting, work_agrees
from tests.engine.people import WAYS, memory, voter

pytestmark = pytest.mark.anyio


@step
async def greet(name: str) -> str:
    return f"hello {name}"


@step
async def thank(name: str) -> str:
    return f"thank you {name}"


@workflow(name="hello", version="1")
async def hello_1(ctx: Context, name: str) -> str:
    greeting = await greet(name)
    return f"{greeting}{await ctx.wait_for_event('end')} (1)"


@workflow(name="hello", version="2")
async def hello_2(ctx: Context, name: str) -> str:
    end = await ctx.wait_for_event("end")
    return f"{await greet(name)}{end} (2)"


async def test_versions_run_side_by_side_each_on_its_own_code(place: Place) -> None:
    """C05."""
    async with engine(place, hello_1) as e:
        await e.start(hello_1, "ana", id="old")
        await waiting(e, "old")
    async with engine(place, hello_2, hello_1) as e:
        await e.start(hello_2, "ben", id="new")
        await e.start(hello_1, "cem", id="old too")
        for run_id in ("old", "new", "old too"):
            await e.signal(run_id, "end", "!")
        assert await (await e.get("old")).result() == "hello ana! (1)"
        assert await (await e.get("new")).result() == "hello ben! (2)"
        assert await (await e.get("old too")).result() == "hello cem! (1)"
        assert [w.version for w, _ in e.store.all_work()] == ["2", "1", "1"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_run_whose_version_is_gone_waits_for_it_with_everything_it_is_sent(
    way: str, place: Place
) -> None:
    """C05."""
    async with engine(place, hello_1) as e:
        await e.start(hello_1, "ana", id="r")
        await waiting(e, "r")
    for _ in range(2):
        async with engine(place, hello_2, **memory(way)) as e, voter(way, place, e) as door:
            handle = await e.get("r")
            with pytest.raises(
                HandlerError, match="version '1' is not registered: this engine has version 2"
            ):
                await handle.result()
            (attention,) = of(handle, t.RunAttention)
            assert attention.kind == "missing_version"
            work = e.store.work("r")
            assert work is not None
            assert (work.state, work.status) == ("waiting", "")
            with pytest.raises(NotRegistered):
                await e.start(hello_1, "eve")
            if _ == 0:
                await door.signal("r", "end", "!")
    async with engine(place, hello_1, hello_2) as e:
        handle = await e.get("r")
        assert await handle.result() == "hello ana! (1)"
        assert [a.kind for a in of(handle, t.RunAttention)] == ["missing_version", "none"]
        assert work_agrees(e.store)


async def test_a_version_that_goes_missing_in_the_middle_of_a_step_is_no_failure_either(place: Place) -> None:
    let_go = asyncio.Event()

    @step
    async def slow() -> str:
        await let_go.wait()
        return "done"

    @workflow(name="hello", version="1")
    async def works(ctx: Context) -> str:
        return await slow()

    async with engine(place, works, grace=0) as e:
        await seen(await e.start(works, id="r"), t.StepStarted)
    async with engine(place, hello_2) as e:
        (attention,) = await seen(await e.get("r"), t.RunAttention)
        assert attention.kind == "missing_version"
    let_go.set()
    async with engine(place, works) as e:
        assert await (await e.get("r")).result() == "done"


async def test_a_child_whose_version_is_gone_holds_its_parent_up_and_no_more(place: Place) -> None:
    def above(child: Workflow[Any, Any]) -> Workflow[Any, Any]:
        @workflow(name="above")
        async def asks_below(ctx: Context) -> Any:
            return await ctx.child(child, "ana")

        return asks_below

    async with engine(place, above(hello_1)) as e:
        await e.start(above(hello_1), id="r")
        await until(lambda: e.store.work("r~1") is not None)
        await waiting(e, "r~1")
        await waiting(e, "r")
    async with engine(place, above(hello_2)) as e:
        await e.signal("r~1", "end", "!")
        (attention,) = await seen(await e.get("r~1"), t.RunAttention)
        assert attention.kind == "missing_version"
    async with engine(place, above(hello_1)) as e:
        assert await (await e.get("r")).result() == "hello ana! (1)"


async def test_a_run_that_goes_on_as_a_new_one_keeps_its_version(place: Place) -> None:
    @workflow(name="loop", version="1")
    async def loop_1(ctx: Context, n: int) -> str:
        await ctx.wait_for_event("go")
        if n:
            ctx.continue_as_new(n - 1)
        return "1"

    @workflow(name="loop", version="2")
    async def loop_2(ctx: Context, n: int) -> str:
        return "2"

    async with engine(place, loop_1) as e:
        await e.start(loop_1, 1, id="c")
    async with engine(place, loop_1, loop_2) as e:
        for _ in range(2):
            await e.signal("c", "go")
        assert await (await e.get("c")).result() == "1"


# ---- patches


Handler = Callable[..., Any]


def version_of(handler: Handler) -> Workflow[Any, Any]:
    """The handler under the one name and version that all of these have."""
    return workflow(name="patched")(handler)


@version_of
async def before(ctx: Context, laps: int) -> list[str]:
    said = []
    for lap in range(laps):
        said.append(await greet(f"{lap}"))
        said.append(await ctx.wait_for_event("lap"))
    return said


@version_of
async def both(ctx: Context, laps: int) -> list[str]:
    said = []
    for lap in range(laps):
        if ctx.patched("thanks"):
            said.append(await thank(f"{lap}"))
        said.append(await greet(f"{lap}"))
        said.append(await ctx.wait_for_event("lap"))
    return said


@version_of
async def deprecated(ctx: Context, laps: int) -> list[str]:
    said = []
    for lap in range(laps):
        ctx.deprecate_patch("thanks")
        said.append(await thank(f"{lap}"))
        said.append(await greet(f"{lap}"))
        said.append(await ctx.wait_for_event("lap"))
    return said


@version_of
async def after(ctx: Context, laps: int) -> list[str]:
    said = []
    for lap in range(laps):
        said.append(await thank(f"{lap}"))
        said.append(await greet(f"{lap}"))
        said.append(await ctx.wait_for_event("lap"))
    return said


OLD = ["hello 0", "x", "hello 1", "x"]
NEW = ["thank you 0", "hello 0", "x", "thank you 1", "hello 1", "x"]


async def begun(place: Place, flow: Workflow[Any, Any], run_id: str, laps: int = 2) -> None:
    """A run of two laps that waits in its first."""
    async with engine(place, flow) as e:
        await e.start(flow, laps, id=run_id)
        await until(lambda: "wait.opened" in [row.tag for row in e.store.read(run_id)])
        await waiting(e, run_id)


async def laps(place: Place, flow: Workflow[Any, Any], run_id: str, count: int = 2, **settings: Any) -> Any:
    """Go on with this code to the end."""
    async with engine(place, flow, **settings) as e:
        for _ in range(count):
            await e.signal(run_id, "lap", "x")
        handle = await e.get(run_id)
        result = await handle.result()
        assert work_agrees(e.store)
        return result


async def test_a_patch_keeps_old_runs_old_for_good_and_makes_new_ones_new(place: Place) -> None:
    """In a loop too: an old run does not change sides in the middle."""
    await begun(place, before, "old")
    await begun(place, both, "new")
    assert await laps(place, both, "old", memory_bytes=0) == OLD
    assert await laps(place, both, "new", memory_bytes=0) == NEW
    async with engine(place, both) as e:
        patches = [of(await e.get(run_id), t.PatchApplied) for run_id in ("old", "new")]
        assert [[(p.name, p.deprecated) for p in found] for found in patches] == [[], [("thanks", False)]]


async def test_an_old_run_is_on_the_new_side_of_a_change_it_had_not_come_to(place: Place) -> None:
    @version_of
    async def short(ctx: Context, laps: int) -> list[str]:
        return [await ctx.wait_for_event("lap"), await greet("end")]

    @version_of
    async def longer(ctx: Context, laps: int) -> list[str]:
        said = [await ctx.wait_for_event("lap")]
        if ctx.patched("thanks"):
            said.append(await thank("end"))
        return [*said, await greet("end")]

    await begun(place, short, "r")
    assert await laps(place, longer, "r", 1) == ["x", "thank you end", "hello end"]
    async with engine(place, longer) as e:
        assert tags(await e.get("r")).count("patch.applied") == 1


async def test_several_patches_in_one_handler_are_decided_each_for_itself(place: Place) -> None:
    @version_of
    async def one(ctx: Context, laps: int) -> list[str]:
        said = ["a"] if ctx.patched("a") else []
        return [*said, await ctx.wait_for_event("lap"), await greet("end")]

    @version_of
    async def two(ctx: Context, laps: int) -> list[str]:
        said = ["b"] if ctx.patched("b") else []
        said += ["a"] if ctx.patched("a") else []
        said.append(await ctx.wait_for_event("lap"))
        said += ["c"] if ctx.patched("c") else []
        said += ["still b"] if ctx.patched("b") else []
        return [*said, await greet("end")]

    await begun(place, one, "r")
    assert await laps(place, two, "r", 1) == ["a", "x", "c", "hello end"]
    await begun(place, two, "s")
    assert await laps(place, two, "s", 1) == ["b", "a", "x", "c", "still b", "hello end"]


async def test_a_patch_taken_out_too_early_is_a_divergence_that_says_what_to_do(place: Place) -> None:
    await begun(place, both, "r")
    async with engine(place, after) as e:
        handle = await e.get("r")
        before_it = [tag for tag in tags(handle) if tag != "run.attention"]
        await handle.signal("lap", "x")
        with pytest.raises(NonDeterminismError) as diverged:
            await handle.result()
        assert "ctx.patched('thanks') was taken out while runs still need it" in str(diverged.value)
        assert "ctx.deprecate_patch('thanks') in its place" in str(diverged.value)
        assert [tag for tag in tags(handle) if tag != "run.attention"] == before_it, "nothing was written"
        assert [a.kind for a in of(handle, t.RunAttention)] == ["diverged"]
        assert e.store.work("r").state == "waiting"  # type: ignore[union-attr]
    assert await laps(place, both, "r", 1) == NEW


async def test_the_old_side_taken_out_too_early_is_a_divergence_too(place: Place) -> None:
    await begun(place, before, "r")
    async with engine(place, deprecated) as e:
        handle = await e.get("r")
        await handle.signal("lap", "x")
        with pytest.raises(NonDeterminismError, match="log has  step 'greet'"):
            await handle.result()
    assert await laps(place, both, "r", 1) == OLD


async def test_a_patch_is_deprecated_and_then_taken_out_while_runs_go_on(place: Place) -> None:
    await begun(place, both, "patched")
    assert await laps(place, deprecated, "patched") == NEW
    await begun(place, deprecated, "deprecated")
    async with engine(place, deprecated) as e:
        (patch,) = of(await e.get("deprecated"), t.PatchApplied)
        assert (patch.name, patch.deprecated) == ("thanks", True)
    assert await laps(place, after, "deprecated") == NEW, "its call is gone from the code"
    await begun(place, after, "plain")
    assert await laps(place, after, "plain") == NEW


@pytest.mark.parametrize("flow", [both, deprecated], ids=["patched", "deprecated"])
async def test_going_back_to_the_code_before_is_safe(flow: Workflow[Any, Any], place: Place) -> None:
    """A deployment is rolled back: each run goes on as it began."""
    await begun(place, deprecated, "r")
    assert await laps(place, both, "r") == NEW
    await begun(place, both, "s")
    assert await laps(place, flow, "s") == NEW


async def test_a_patch_name_must_be_one(place: Place) -> None:
    @version_of
    async def bad(ctx: Context, laps: int) -> Any:
        return ctx.patched("")

    async with engine(place, bad) as e:
        handle = await e.start(bad, 1)
        with pytest.raises(Exception, match="ConfigurationError: patch name ''"):
            await handle.result()
