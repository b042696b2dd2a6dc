"""`wait_for_input`: a fitting answer goes through, any other is refused and the wait stays open."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest

from refold import Context, RunFailed, ValueRefused, workflow
from refold.events import types as t
from refold.events.errors import GateTimedOut, VoteRefused
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, waiting, work_agrees
from tests.engine.people import WAYS, memory, voter

pytestmark = pytest.mark.anyio


class Address(msgspec.Struct):
    street: str
    number: int
    floor: int | None = None


@workflow
async def address(ctx: Context) -> dict[str, Any]:
    given = await ctx.wait_for_input(Address, prompt="where to?", shown={"order": 5})
    assert isinstance(given, Address)
    return {"street": given.street, "next door": given.number + 1}


@pytest.mark.parametrize("way", WAYS)
async def test_a_valid_answer_becomes_a_value_of_the_type_an_invalid_one_is_refused(
    way: str, place: Place
) -> None:
    """A21."""
    async with engine(place, address, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(address, id="r")
        await waiting(e, "r")
        before = e.store.position()
        for answer, reason in (
            ({"street": "x", "number": "five"}, r"does not fit at \$\.number: "),
            ({"street": "x"}, r'does not fit at \$: "number" is a required property'),
            ([], r"does not fit at \$: "),
            (None, r"does not fit at \$: "),
        ):
            with pytest.raises(VoteRefused, match=reason):
                await door.answer("r", answer, by="ana")
        with pytest.raises(VoteRefused, match="it asks for an answer, not approve"):
            await door.approve("r", by="ana")
        with pytest.raises(ValueRefused):
            await door.answer("r", {"street": object()}, by="ana")
        assert e.store.position() == before, "what is refused leaves no trace"
        await door.answer("r", {"street": "Hauptgasse", "number": 4}, by="ana", feedback="by phone")
        assert await handle.result() == {"street": "Hauptgasse", "next door": 5}
        (vote,) = of(handle, t.GateVoted)
        assert (vote.by, vote.vote, vote.decides, vote.feedback) == ("ana", "answer", "answered", "by phone")
        assert msgspec.json.decode(vote.answer) == {"street": "Hauptgasse", "number": 4}
        assert work_agrees(e.store)


async def test_the_wait_has_a_token_and_a_schema_and_survives_restarts(place: Place) -> None:
    """A21."""
    tokens = set()
    for _ in range(3):
        async with engine(place, address) as e:
            handle = await e.start(address, id="r")
            await waiting(e, "r")
            (opened,) = of(handle, t.GateOpened)
            tokens.add(opened.token)
    (token,) = tokens
    assert len(token) == 32
    assert (opened.kind, opened.name, opened.prompt) == ("input", "input#1", "where to?")
    assert "$defs" in msgspec.json.decode(opened.schema)
    async with engine(place, execute=False) as door:
        with pytest.raises(VoteRefused, match="required property"):
            await door.answer("r", {}, token)
        await door.answer("r", {"street": "x", "number": 1}, token)
        with pytest.raises(VoteRefused, match="closed: answered"):
            await door.answer("r", {"street": "y", "number": 2}, token)
    async with engine(place, address) as e:
        assert await (await e.get("r")).result() == {"street": "x", "next door": 2}


async def test_a_json_schema_may_be_given_instead_of_a_type(place: Place) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/small"}, "day": {"type": "string", "format": "date"}},
        "required": ["n"],
        "$defs": {"small": {"type": "integer", "maximum": 10}},
    }

    @workflow
    async def asks(ctx: Context) -> Any:
        return await ctx.wait_for_input(schema)

    async with engine(place, asks) as e:
        handle = await e.start(asks)
        with pytest.raises(VoteRefused, match=r"at \$\.n: 11 is greater than the maximum of 10"):
            await handle.answer({"n": 11})
        with pytest.raises(VoteRefused, match=r"at \$\.day: "):
            await handle.answer({"n": 1, "day": "tomorrow"})
        await handle.answer({"n": 1, "day": "2026-11-22", "more": True})
        assert await handle.result() == {"n": 1, "day": "2026-11-22", "more": True}


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "int": (int, 3.0, 3),
    "decimal": (Decimal, "a lot", "1.50"),
    "date": (dt.date, "tomorrow", "2026-11-21"),
    "time": (dt.time, "noon", "10:00:00"),
    "moment": (dt.datetime, "now", "2026-11-21T10:00:00"),
    "duration": (dt.timedelta, "long", "PT5M"),
    "uuid": (uuid.UUID, "1", "12345678123456781234567812345678"),
    "literal": (Literal["a", "b"], "c", "b"),
    "bytes": (bytes, "äöü", "aGVsbG8="),
    "union": (int | str, 1.5, "x"),
}


@workflow
async def any_kind(ctx: Context, kind: str) -> str:
    return repr(await ctx.wait_for_input(KINDS[kind][0]))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_type_refuses_never_reaches_the_handler_whatever_its_schema_allows(
    kind: str, place: Place
) -> None:
    """JSON Schema says less than a type; the run must not fail of an answer that was accepted."""
    wanted, bad, good = KINDS[kind]
    async with engine(place, any_kind) as e:
        handle = await e.start(any_kind, kind, id="r")
        await waiting(e, "r")
        with pytest.raises(VoteRefused):
            await handle.answer(bad, by="ana")
        await handle.answer(good, by="ana")
        expected = repr(msgspec.convert(good, wanted))
        assert await handle.result() == expected


async def test_an_answer_from_outside_that_only_the_type_refuses_leaves_the_wait_open(place: Place) -> None:
    async with engine(place, any_kind) as e:
        await e.start(any_kind, "int", id="r")
        await waiting(e, "r")
    async with engine(place, execute=False) as door:
        await door.answer("r", 3.0, by="ana")
    async with engine(place, any_kind) as e:
        handle = await e.get("r")
        (skipped,) = await seen(handle, t.InboxSkipped)
        assert "Expected `int`, got `float`" in skipped.reason
        await handle.answer(3, by="ana")
        assert await handle.result() == "3"


async def test_a_large_question_and_a_large_answer_lie_beside_the_log(place: Place) -> None:
    much = "x" * 400_000
    schema = {"type": "string", "minLength": 399_999, "description": much}

    @workflow
    async def asks(ctx: Context) -> int:
        return len(await ctx.wait_for_input(schema, shown=much, name="first")) + len(
            await ctx.wait_for_input(str, name="second")
        )

    async with engine(place, asks) as e:
        await e.start(asks, id="r")
        await waiting(e, "r")
    async with engine(place, execute=False) as door:
        with pytest.raises(VoteRefused, match="shorter than 399999"):
            await door.answer("r", "short")
        await door.answer("r", much, "first", by="ana")
        with pytest.raises(VoteRefused, match="closed: answered"):
            await door.answer("r", much, "first#1", by="ben")
    async with engine(place, asks) as e:
        handle = await e.get("r")
        await seen(handle, t.GateOpened, 2)
    async with engine(place, asks) as e:
        handle = await e.get("r")
        await handle.answer(much)
        assert await handle.result() == 800_000
        assert e.verify().problems == ()


async def test_what_is_neither_type_nor_schema_is_refused_where_it_is_asked_for(place: Place) -> None:
    wanted: dict[str, Any] = {
        "no type": 5,
        "no schema": {"type": "intt"},
        "elsewhere": {"$ref": "https://example.com/schema.json"},
        "another file": {"properties": {"a": {"$ref": "other.json"}}},
        "nowhere": {"$ref": "#/$defs/missing"},
        "a class": TestClass,
    }

    @workflow
    async def asks(ctx: Context, what: str) -> Any:
        return await ctx.wait_for_input(wanted[what])

    async with engine(place, asks) as e:
        for what in wanted:
            handle = await e.start(asks, what)
            with pytest.raises(RunFailed, match=r"ConfigurationError: wait_for_input\("):
                await handle.result()
            assert "gate.opened" not in tags(handle)


class TestClass:
    """Nothing that JSON could become."""

    __test__ = False

    def __init__(self, a: int) -> None:
        self.a = a


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_answers_in_time_and_who_may_not_answer_cannot(way: str, place: Place) -> None:
    @workflow
    async def asks(ctx: Context) -> str:
        try:
            return str(await ctx.wait_for_input(int, voters=["ana"], timeout=60, name="n"))
        except GateTimedOut as late:
            return f"{late}"

    clock = HandClock()
    async with engine(place, asks, clock=clock, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(asks, id="r")
        await waiting(e, "r")
        with pytest.raises(VoteRefused, match="'eve' may not vote; these may: ana"):
            await door.answer("r", 1, by="eve")
        clock.move(60)
        with pytest.raises(VoteRefused, match=r"deadline has passed|no gate is open"):
            await door.answer("r", 1, by="ana")
        assert await handle.result() == "gate n#1: nobody decided in time"
        assert tags(handle).count("gate.closed") == 1
