"""Values: what the log can carry arrives by annotation, isolated from its maker; what it cannot is named."""

import asyncio
import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest

from refold import Context, Retry, RunFailed, StepFailed, ValueRefused, step, workflow
from refold.events import types as t
from tests.engine.kit import Place, engine, of, seen, tags

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = "red"


class Item(msgspec.Struct, frozen=True):
    name: str
    price: Decimal


@dataclasses.dataclass
class Order:
    items: list[Item]
    at: dt.datetime
    colour: Colour = Colour.RED
    note: str | None = None
    tags: set[str] = dataclasses.field(default_factory=set)


ORDER = Order([Item("tea", Decimal("3.50"))], dt.datetime(2026, 1, 2, 3, 4, 5, 678, dt.UTC), tags={"a", "b"})


async def test_structs_dataclasses_and_friends_arrive_as_annotated_live_and_after_a_restart(
    place: Place,
) -> None:
    kinds: list[list[str]] = []

    @step
    async def passes(order: Order, blob: bytes, key: uuid.UUID) -> tuple[Order, bytes, uuid.UUID]:
        assert order == ORDER
        return order, blob, key

    @workflow
    async def travels(ctx: Context, order: Order) -> Order:
        got, blob, key = await passes(order, b"\x00\xff", uuid.UUID(int=7))
        kinds.append(
            [type(x).__name__ for x in (order, got, got.items[0], got.colour, got.at, got.tags, blob, key)]
        )
        await ctx.wait_for_event("go")
        return got

    async with engine(place, travels) as e:
        await seen(await e.start(travels, ORDER, id="r"), t.WaitOpened)
    async with engine(place, travels) as e:
        handle = await e.start(travels, ORDER, id="r")
        await handle.signal("go")
        assert await handle.result() == ORDER
    assert kinds == [["Order", "Order", "Item", "Colour", "datetime", "set", "bytes", "UUID"]] * 2


async def test_a_handler_gets_decoded_values_live_too_not_what_a_body_returned(place: Place) -> None:
    """Otherwise a tuple that becomes a list after a crash would be a divergence."""

    @step
    async def loose() -> Any:
        return {
            "tuple": (1, 2),
            "set": {3},
            5: "int key",
            "decimal": Decimal("1.5"),
            "when": dt.date(2026, 1, 2),
        }

    @workflow
    async def looks(ctx: Context) -> list[Any]:
        value = await loose()
        shape = {key: type(item).__name__ for key, item in value.items()}
        await ctx.wait_for_event("go")
        return [value, shape]

    results = []
    for name, restart in (("live", False), ("restarted", True)):
        async with engine(place, looks) as e:
            handle = await e.start(looks, id=name)
            await seen(handle, t.WaitOpened)
            if not restart:
                await handle.signal("go")
                results.append(await handle.result())
    async with engine(place, looks) as e:
        await e.signal("restarted", "go")
        results.append(await (await e.get("restarted")).result())
    assert results[0] == results[1]
    assert results[0] == [
        {"tuple": [1, 2], "set": [3], "5": "int key", "decimal": "1.5", "when": "2026-01-02"},
        {"tuple": "list", "set": "list", "5": "str", "decimal": "str", "when": "str"},
    ]


async def test_what_one_side_changes_the_other_does_not_see(place: Place) -> None:
    kept: list[Any] = []
    release = asyncio.Event()

    @step
    async def returns_its_own() -> list[int]:
        mine = [1, 2, 3]
        kept.append(mine)
        return mine

    @step
    async def changes(numbers: list[int]) -> int:
        await release.wait()
        numbers.append(99)
        return len(numbers)

    @workflow
    async def shares(ctx: Context, numbers: list[int], box: dict[str, list[int]]) -> Any:
        got = await returns_its_own()
        kept[0].append(4)
        call = asyncio.ensure_future(changes(numbers))
        await asyncio.sleep(0)
        numbers.append(4)
        box["b"] = [1]
        size = await call
        payload = await ctx.wait_for_event("go")
        payload.append("handler")
        ctx.attributes["new"] = 1
        return [got, numbers, size, box, payload, ctx.attributes]

    numbers, box, payload, attributes = [1, 2], {"a": [0]}, ["x"], {"old": [1]}
    async with engine(place, shares) as e:
        handle = await e.start(shares, numbers, box, attributes=attributes)
        numbers.append(7)
        box["a"].append(7)
        attributes["old"].append(2)
        await handle.signal("go", payload)
        payload.append("sender")
        release.set()
        assert await handle.result() == [
            [1, 2, 3], [1, 2, 4], 3, {"a": [0], "b": [1]}, ["x", "handler"], {"old": [1]},
        ]  # fmt: skip
        result = await handle.result()
        result.append("reader")
        assert len(await handle.result()) == 6
    assert (numbers, payload) == ([1, 2, 7], ["x", "sender"])


def _deep(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def _selfish() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


class Opaque:
    pass


@dataclasses.dataclass
class Measure:
    metres: float


BAD: dict[str, tuple[Callable[[], Any], str, str]] = {
    "an object": (lambda: {"items": [1, {"price": Opaque()}]}, "$.items[1].price", "Opaque has no JSON form"),
    "a function": (lambda: [len], "$[0]", "has no JSON form"),
    "NaN": (lambda: {"x": [0.0, float("nan")]}, "$.x[1]", "is NaN or infinite"),
    "infinity": (lambda: float("-inf"), "$", "is NaN or infinite"),
    "NaN deep down": (lambda: Measure(float("nan")), "$.metres", "is NaN or infinite"),
    "half a character": (lambda: ["ok", "\ud800"], "$[1]", "lone surrogate"),
    "a tuple as a key": (lambda: {"x": {(1, 2): 3}}, "$.x", "key of type tuple"),
    "depth": (lambda: _deep(100_000), "$", "nested too deeply"),
    "depth with a null": (lambda: _deep(2_500), "$", ""),
    "itself": (_selfish, "$", "contains itself"),
    "100 MB": (lambda: "x" * 100_000_000, "$", "the limit is 67,108,864: store it elsewhere"),
    "another type": (lambda: "not a list", "$", "Expected `array"),
    "a wrong item": (lambda: [1, "two"], "$[1]", "Expected"),
}

ANNOTATIONS: dict[str, Any] = {"another type": list[Any], "a wrong item": list[int]}


@pytest.mark.parametrize("what", BAD)
async def test_a_result_that_cannot_be_stored_fails_the_step_with_path_and_remedy_and_the_run_goes_on(
    what: str, place: Place
) -> None:
    make, path, says = BAD[what]
    count: list[int] = []

    async def body() -> Any:
        count.append(1)
        return make()

    body.__annotations__["return"] = ANNOTATIONS.get(what, Any)
    unlucky = step(name="unlucky", retry=Retry(max_attempts=3, initial_interval=0))(body)

    @workflow
    async def goes_on(ctx: Context) -> list[str]:
        try:
            await unlucky()
        except StepFailed as error:
            return [error.type, error.message]
        return ["?", ""]

    async with engine(place, goes_on) as e:
        handle = await e.start(goes_on)
        kind, message = await handle.result()
        if what == "depth with a null" and kind == "?":
            return  # this Python can carry it
        assert kind == "ValueRefused", message
        assert says in message
        assert path in message or path == "$"
        assert "result of step unlucky#1" in message
        assert len(count) == 1, "trying again would not help"
        assert of(handle, t.StepFailed)[0].error.error_class == "value_refused"


@pytest.mark.parametrize("what", [name for name in BAD if name not in ANNOTATIONS])
async def test_bad_arguments_payloads_and_results_of_runs_are_refused_where_they_are_given(
    what: str, place: Place
) -> None:
    make, _, says = BAD[what]

    @step
    async def takes(value: Any) -> None:
        raise AssertionError("never called with that")

    @workflow
    async def tries(ctx: Context, value: Any) -> list[str]:
        try:
            await takes(make())
        except ValueRefused as error:
            return [error.path, str(error)]
        return ["?", ""]

    @workflow
    async def returns(ctx: Context) -> Any:
        return make()

    @workflow
    async def listens(ctx: Context) -> Any:
        return await ctx.wait_for_event("x")

    if what == "depth with a null":
        return
    async with engine(place, tries, returns, listens) as e:
        with pytest.raises(ValueRefused) as refused:
            await e.start(tries, make())
        assert says in str(refused.value)
        handle = await e.start(listens)
        with pytest.raises(ValueRefused, match="payload of event 'x'"):
            await handle.signal("x", make())
        await handle.signal("x", "fine")
        assert await handle.result() == "fine"
        _, message = await e.run(tries, None)
        assert says in message
        assert "arguments of step takes" in message
        with pytest.raises(RunFailed, match="ValueRefused: result of returns"):
            await e.run(returns)


async def test_deep_values_with_nulls_break_nothing_on_any_python(place: Place) -> None:
    """From 3.12 on C recurses deeper than Python: what can be encoded may be too deep to look through."""

    @workflow
    async def returns(ctx: Context, depth: int) -> Any:
        return _deep(depth)

    outcomes: set[str] = set()
    async with engine(place, returns) as e:
        for depth in (10, 150, 900, 1_500, 5_000, 20_000):
            handle = await e.start(returns, depth)
            try:
                assert str(await handle.result()).count("[") == depth
            except (RunFailed, ValueRefused) as error:
                outcomes.add("too deep" if "deep" in str(error) else str(error))
    assert outcomes == {"too deep"}


async def test_a_large_value_below_the_limit_travels(place: Place) -> None:
    @step
    async def big() -> str:
        return "x" * 20_000_000

    @workflow
    async def carries(ctx: Context) -> int:
        return len(await big())

    async with engine(place, carries) as e:
        assert await e.run(carries) == 20_000_000


async def test_a_body_gets_what_was_recorded_even_if_its_annotation_is_a_constraint(place: Place) -> None:
    @step
    async def positive(n: Annotated[int, msgspec.Meta(gt=0)]) -> int:
        return n

    @workflow
    async def tries(ctx: Context) -> list[Any]:
        out: list[Any] = [await positive(1)]
        try:
            await positive(-1)
        except StepFailed as error:
            out.append(error.message)
        return out

    async with engine(place, tries) as e:
        fine, refused = await e.run(tries)
    assert fine == 1
    assert "Expected `int` > 0" in refused or "Expected `int` >= 1" in refused


async def test_the_order_of_a_set_does_not_matter_to_a_replay(place: Place) -> None:
    """Sets of strings iterate differently in every process; as arguments they are still equal."""

    @step
    async def takes(names: set[str], more: dict[str, int]) -> int:
        return len(names)

    turn = 0

    @workflow
    async def sets(ctx: Context) -> int:
        names = ["a", "b", "c"] if turn == 0 else ["c", "b", "a"]
        pairs = {name: 1 for name in names}
        count = await takes(names, pairs)  # type: ignore[arg-type]
        await ctx.wait_for_event("go")
        return count

    async with engine(place, sets) as e:
        await seen(await e.start(sets, id="r"), t.WaitOpened)
    turn = 1
    async with engine(place, sets) as e:
        await e.signal("r", "go")
        handle = await e.get("r")
        assert await handle.result() == 3
        assert "run.attention" not in tags(handle)
