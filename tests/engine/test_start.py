"""Starting: durable when it returns, once per id and key, refused before anything is written."""

import asyncio
from typing import Any

import pytest

from refold import (
    ConfigurationError,
    Context,
    Engine,
    Handle,
    StartConflict,
    ValueRefused,
    step,
    workflow,
)
from refold.events import types as t
from refold.events.errors import StoreBusy
from refold.events.open import open_store
from tests.engine.kit import Place, engine, of, seen, tags, until

pytestmark = pytest.mark.anyio


@workflow
async def adds(ctx: Context, a: int, b: int = 1) -> int:
    return a + b


@workflow
async def greets(ctx: Context, name: str) -> str:
    return await ctx.wait_for_event(name)  # type: ignore[no-any-return]


async def test_the_same_id_and_input_is_the_same_run(place: Place) -> None:
    """D06."""
    async with engine(place, adds) as e:
        first = await e.start(adds, 1, 2, id="order-1")
        assert await first.result() == 3
        before = e.store.position()
        again = await e.start(adds, 1, 2, id="order-1")
        assert (again.id, await again.result()) == ("order-1", 3)
        assert e.store.position() == before


async def test_the_same_key_and_input_is_the_same_run_also_from_elsewhere(place: Place) -> None:
    """D06."""
    async with engine(place, adds) as e:
        first = await e.start(adds, 1, key="order-1")
        assert await first.result() == 2
    async with engine(place, adds, execute=False) as outside:
        assert (await outside.start(adds, 1, key="order-1")).id == first.id
        assert (await outside.start(adds, 1, key="order-2")).id != first.id


async def test_the_same_id_or_key_with_other_input_is_a_conflict_that_names_the_run(place: Place) -> None:
    """D06."""
    async with engine(place, adds, greets) as e:
        first = await e.start(adds, 1, id="order-1", key="k")
        await first.result()
        before = e.store.position()
        with pytest.raises(StartConflict, match="run 'order-1' exists: adds with") as by_id:
            await e.start(adds, 2, id="order-1")
        with pytest.raises(StartConflict, match="start key 'k' belongs to run 'order-1'") as by_key:
            await e.start(adds, 2, key="k")
        with pytest.raises(StartConflict):
            await e.start(greets, "1", id="order-1")
        assert by_id.value.run_id == by_key.value.run_id == "order-1"
        assert e.store.position() == before


@pytest.mark.parametrize("by", ["id", "key"])
async def test_of_many_starts_at_once_one_makes_the_run(by: str, place: Place) -> None:
    """D06: fifty callers who do not know of each other, and each body runs once."""
    calls: list[int] = []

    @step
    async def effect() -> int:
        calls.append(1)
        return len(calls)

    @workflow
    async def once(ctx: Context) -> int:
        first = await effect()
        await ctx.wait_for_event("go")
        return first + await effect()

    async with engine(place, once) as e:
        handles: list[Handle[int]] = await asyncio.gather(*[e.start(once, **{by: "x"}) for _ in range(50)])  # type: ignore[arg-type]
        (run_id,) = {handle.id for handle in handles}
        await seen(handles[0], t.WaitOpened)
        async with engine(place if isinstance(place, str) else e.store, once, execute=False) as outside:
            await outside.signal(run_id, "go")
        assert await asyncio.gather(*[handle.result() for handle in handles]) == [3] * 50
        assert len(calls) == 2
        assert len(of(handles[0], t.RunClaimed)) == 1


@pytest.mark.parametrize("by", ["id", "key"])
async def test_of_many_different_starts_at_once_one_wins_and_the_others_are_refused(
    by: str, place: Place
) -> None:
    """D06."""
    async with engine(place, adds) as e:
        outcomes = await asyncio.gather(
            *[e.start(adds, number, **{by: "x"}) for number in range(20)],  # type: ignore[arg-type]
            return_exceptions=True,
        )
        (winner,) = {o.id for o in outcomes if isinstance(o, Handle)}
        refused = [o for o in outcomes if not isinstance(o, Handle)]
        assert len(refused) == 19
        assert {type(o) for o in refused} == {StartConflict}
        assert {o.run_id for o in refused if isinstance(o, StartConflict)} == {winner}
        assert sum(e.store.work(run.run_id) is not None for run, _ in e.store.all_work()) == 1


async def test_a_start_is_durable_when_it_returns_and_executed_by_whoever_comes(place: Place) -> None:
    """F13."""
    async with engine(place, adds, execute=False) as outside:
        handle = await outside.start(adds, 20, 22, id="r", trigger="api", by="user:ana")
        (started,) = of(handle, t.RunStarted)
        assert (started.trigger, started.by) == ("api", "user:ana")
        assert tags(handle) == ["run.started"]
    async with engine(place, adds) as e:
        assert await (await e.get("r")).result() == 42


async def test_an_executing_engine_notices_runs_that_others_start(place: Place) -> None:
    """F13."""
    async with engine(place, adds), engine(place, adds, execute=False) as outside:
        handle = await outside.start(adds, 1, id="r")
        assert await handle.result() == 2, "and whoever started it hears of the end"


async def test_when_many_runs_are_busy_further_ones_are_stored_and_wait_their_turn(place: Place) -> None:
    running: set[int] = set()
    most: list[int] = []
    gate = asyncio.Event()

    @step
    async def busy(number: int) -> int:
        running.add(number)
        most.append(len(running))
        await gate.wait()
        running.discard(number)
        return number

    @workflow
    async def works(ctx: Context, number: int) -> int:
        return await busy(number)

    async with engine(place, works, max_active=3) as e:
        handles = [await e.start(works, n, id=f"r{n}") for n in range(10)]
        await until(lambda: len(running) == 3)
        gate.set()
        assert await asyncio.gather(*[handle.result() for handle in handles]) == list(range(10))
    assert max(most) <= 3


async def test_a_second_engine_on_the_same_store_is_refused_by_name(lone_place: Place) -> None:
    """D04: and the refused one leaves the first one's claim alone."""
    async with engine(lone_place, adds) as e:
        shared = lone_place if isinstance(lone_place, str) else e.store
        for _ in range(2):
            with pytest.raises(StoreBusy, match="only one") as refused:
                async with engine(shared, adds):
                    raise AssertionError("two engines execute one store")
            assert (
                refused.value.holder.partition(":")[0] in e.worker.owner
                or e.worker.owner in refused.value.holder
            )
        async with engine(shared, adds, execute=False) as outside:
            assert await (await outside.start(adds, 1)).result() == 2
        with pytest.raises(StoreBusy):
            async with engine(shared, adds):
                raise AssertionError("two engines execute one store")
        assert await e.run(adds, 2) == 3
    async with engine(lone_place, adds) as later:
        assert await later.run(adds, 3) == 4


async def test_a_shared_store_object_is_not_taken_from_its_executor_by_a_refused_engine(
    lone_place: Place,
) -> None:
    """D04, for engines that were given the same `Store` object."""
    store = open_store(lone_place) if isinstance(lone_place, str) else lone_place
    async with engine(store, adds):
        for _ in range(2):
            with pytest.raises(StoreBusy):
                async with engine(store, adds):
                    raise AssertionError("two engines execute one store")
        async with engine(store, adds, execute=False):
            pass
        assert store.holding()
    assert not store.holding()
    store.close()


# ---- wrong arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((), ConfigurationError, "missing a required argument: 'a'"),
        ((1, 2, 3), ConfigurationError, "too many positional arguments"),
        (
            ("one",),
            ValueRefused,
            r"argument 1 of adds does not fit its annotation: Expected `int`, got `str`",
        ),
        ((1, object()), ValueRefused, r"arguments of adds at \$\[1\]: builtins.object has no JSON form"),
        ((float("nan"),), ValueRefused, r"arguments of adds at \$\[0\] is NaN"),
    ],
)
async def test_wrong_arguments_are_refused_and_nothing_is_written(
    arguments: tuple[Any, ...], error: type[Exception], says: str, place: Place
) -> None:
    async with engine(place, adds) as e:
        with pytest.raises(error, match=says):
            await e.start(adds, *arguments)
        assert e.store.position() == 0


BAD_IDS: list[Any] = [
    "",
    " x",
    "x ",
    "a/b",
    "a/inbox",
    "x" * 201,
    "a\nb",
    "a\0b",
    "\ud800",
    "key",
    7,
    b"x",
    ("x",),
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
async def test_ids_that_cannot_be_are_refused_and_nothing_is_written(bad: Any, place: Place) -> None:
    async with engine(place, adds) as e:
        with pytest.raises(ConfigurationError, match="run id"):
            await e.start(adds, 1, id=bad)
        assert e.store.position() == 0


@pytest.mark.parametrize("bad", ["", "x" * 201, "a\nb", "\ud800", 7, b"x"], ids=repr)
async def test_keys_that_cannot_be_are_refused_and_nothing_is_written(bad: Any, place: Place) -> None:
    async with engine(place, adds) as e:
        with pytest.raises(ConfigurationError, match="start key"):
            await e.start(adds, 1, key=bad)
        assert e.store.position() == 0


@pytest.mark.parametrize("good", ["order-42", "Bestellung 42 für Zoë", "日本", "a:b.c|d", "..", "x" * 200])
async def test_ids_that_people_use_are_taken(good: str, place: Place) -> None:
    async with engine(place, adds) as e:
        handle = await e.start(adds, 1, id=good, key=good)
        assert await handle.result() == 2
        assert (await e.start(adds, 1, key=good)).id == good


@pytest.mark.parametrize(
    "options",
    [
        {"by": 7},
        {"trigger": None},
        {"trace_id": 5},
        {"attributes": 5},
        {"attributes": {"x": print}},
        {"by": "\ud800"},
    ],
    ids=str,
)
async def test_options_of_the_wrong_type_are_refused_and_nothing_is_written(
    options: Any, place: Place
) -> None:
    async with engine(place, adds) as e:
        with pytest.raises((ConfigurationError, ValueRefused)):
            await e.start(adds, 1, **options)
        assert e.store.position() == 0


async def test_what_is_no_workflow_or_not_registered_is_refused(place: Place) -> None:
    async with engine(place, adds) as e:
        with pytest.raises(ConfigurationError, match=r"expects a @workflow, got <function"):
            await e.start(adds.fn, 1)  # type: ignore[arg-type]
        with pytest.raises(
            ConfigurationError, match=r"'greets' version '1' is not registered: Engine\(…, workflows="
        ):
            await e.start(greets, "x")
        assert e.store.position() == 0


async def test_an_engine_that_is_not_open_says_so(place: Place) -> None:
    closed = engine(place, adds)
    for call in (
        closed.start(adds, 1),
        closed.start(adds, 1, id="x"),
        closed.get("x"),
        closed.signal("x", "y"),
    ):
        with pytest.raises(ConfigurationError, match="async with Engine"):
            await call


async def test_an_engine_cannot_be_entered_twice(place: Place) -> None:
    async with engine(place, adds) as e:
        with pytest.raises(ConfigurationError, match="already open"):
            await e.__aenter__()
        assert await e.run(adds, 1) == 2


def test_two_workflows_of_one_name_and_version_are_refused() -> None:
    @workflow(name="adds")
    async def other(ctx: Context) -> None: ...

    with pytest.raises(ConfigurationError, match="two workflows are called 'adds' version '1'"):
        Engine("memory://", workflows=[adds, other])
    with pytest.raises(ConfigurationError, match="expects @workflow functions"):
        Engine("memory://", workflows=[adds.fn])  # type: ignore[list-item]
