"""Values go into the log and come out the same, or are refused with the place and the remedy."""

import dataclasses
import enum
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, strategies as st

from refold.events.codec import MAX_BYTES, REMEDY, decoder, encode, hints, same_value
from refold.events.errors import StoreCorrupt, UnknownEvent, ValueRefused
from refold.events.registry import TYPES, Unknown, decode_event, encode_event, look_at_event
from refold.events.types import CAUSES, COMMANDS, ENDS, FACTS, RunTerminated, StepStarted
from refold.testing.samples import sample_rows


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Order(msgspec.Struct):
    items: list[str]
    price: Decimal
    at: datetime
    where: Point | None = None


# ---- what comes back ------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=20,
)


@given(plain)
def test_plain_data_comes_back_equal(value: Any) -> None:
    raw = encode(value)
    assert decoder(Any)(raw, "value") == value
    assert bytes(encode(decoder(Any)(raw, "value"))) == bytes(raw), (
        "what is decoded encodes to the same bytes"
    )


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Order(["a"], Decimal("1.10"), datetime(2026, 1, 2, 3, 4, 5, 6, UTC), Point(1, 2.5)), Order),
        (Point(1), Point),
        (Colour.RED, Colour),
        (UUID(int=7), UUID),
        (b"\x00\xff", bytes),
        (date(2026, 2, 28), date),
        (timedelta(seconds=1.5), timedelta),
        ({1: "one"}, dict[int, str]),
        ((1, "a"), tuple[int, str]),
        ({3, 1}, set[int]),
        (None, None),
        (Decimal("0.1"), Decimal),
        ([Point(1)], list[Point] | None),
    ],
)
def test_annotated_values_come_back_as_their_types(value: Any, annotation: Any) -> None:
    found = decoder(annotation)(encode(value), "value")
    assert found == value
    assert type(found) is type(value)


def test_without_an_annotation_a_value_comes_back_as_plain_data() -> None:
    assert decoder(Any)(encode((Point(1), Colour.RED)), "value") == [{"x": 1, "y": 0.0}, "red"]


def test_an_annotation_that_msgspec_does_not_know_decodes_as_plain_data() -> None:
    class Odd:
        pass

    for annotation in (Odd | set[Odd], Iterable[str], object):
        assert decoder(annotation)(b'{"a": 1}', "value") == {"a": 1}
    with pytest.raises(ValueRefused, match="Expected `Odd`, got `dict`"):
        decoder(Odd)(b'{"a": 1}', "value")


def test_numbers_beyond_64_bits_keep_all_their_digits() -> None:
    value = 2**200
    assert decoder(Any)(encode({"n": value}), "value") == {"n": value}


# ---- what is refused ---------------------------------------------------------------------------------


class Opaque:
    pass


REFUSED: dict[str, tuple[Any, str, str]] = {
    "object": (Opaque(), "$", "Opaque has no JSON form"),
    "object in a dict in a list": ({"a": [1, {"b": Opaque()}]}, "$.a[1].b", "Opaque has no JSON form"),
    "object in a dataclass": ([Point(Opaque())], "$[0].x", "Opaque has no JSON form"),  # type: ignore[arg-type]
    "object in a struct": (Order([Opaque()], Decimal(1), datetime.now(UTC)), "$.items[0]", "Opaque"),  # type: ignore[list-item]
    "function": ({"f": print}, "$.f", "has no JSON form"),
    "type": ({"t": int}, "$.t", "has no JSON form"),
    "file": ([open], "$[0]", "has no JSON form"),
    "complex": ({"z": 1j}, "$.z", "complex has no JSON form"),
    "key": ({"a": {(1, 2): 3}}, "$.a", "dict key of type tuple"),
    "nan": ({"a": [0.0, float("nan")]}, "$.a[1]", "NaN or infinite"),
    "infinity": (Point(1, float("-inf")), "$.y", "NaN or infinite"),
    "nan beside null": ([None, "null", float("nan")], "$[2]", "NaN or infinite"),
    "lone surrogate": ({"name": ["ok", "\ud800"]}, "$.name[1]", "lone surrogate"),
    "lone surrogate in a key": ({"a": {"\udfff": 1}}, "$.a", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_json_cannot_carry_is_refused_with_its_path_and_the_remedy(case: str) -> None:
    value, path, words = REFUSED[case]
    with pytest.raises(ValueRefused) as refusal:
        encode(value, "result of step charge#2")
    assert refusal.value.path == path
    message = str(refusal.value)
    assert message.startswith(f"result of step charge#2 at {path}")
    assert words in message
    assert REMEDY in message or "use None or a string" in message
    message.encode()


def test_msgspec_alone_would_write_null_for_nan() -> None:
    """The control: why `encode` looks for itself."""
    assert msgspec.json.encode([float("nan")]) == b"[null]"


def test_null_and_the_word_null_are_not_mistaken_for_nan() -> None:
    for value in (None, "null", [None, 1.5], {"null": None}):
        assert decoder(Any)(encode(value), "value") == value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_deep_values_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (nested(200_000), endless):
        with pytest.raises(ValueRefused, match="nested too deeply, or contains itself"):
            encode(value, "value")


def test_deep_json_is_refused() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    with pytest.raises(ValueRefused, match="does not fit"):
        decoder(Any)(deep, "value")
    with pytest.raises(StoreCorrupt, match=r"'step\.started' at run@3"):
        decode_event("step.started", b'{"id":"a","at":"2026-01-01T00:00:00Z","step":' + deep + b"}", "run@3")


def test_a_result_of_100_mb_is_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueRefused, match=r"100,000,002 bytes, the limit is 67,108,864.*reference"):
        encode("x" * 100_000_000, "result")
    assert len(bytes(encode("x" * (MAX_BYTES - 2), "result"))) == MAX_BYTES
    with pytest.raises(ValueRefused, match="limit is 10:"):
        encode("x" * 10, "result", max_bytes=10)


@pytest.mark.parametrize(
    ("data", "annotation", "path", "words"),
    [
        (b'{"items":["a",1],"price":"1","at":"2026-01-01T00:00:00Z"}', Order, "$.items[1]", "Expected `str`"),
        (b'{"items":[]}', Order, "$", "missing required field `price`"),
        (b'"green"', Colour, "$", "Invalid enum value"),
        (b"[1,", list[int], "$", "truncated"),
        (b"NaN", float, "$", "malformed"),
        (b'"\\ud800"', str, "$", "does not fit"),
        (b"\xff", Any, "$", "does not fit"),
    ],
)
def test_what_does_not_fit_its_annotation_says_expected_found_and_place(
    data: bytes, annotation: Any, path: str, words: str
) -> None:
    with pytest.raises(ValueRefused) as refusal:
        decoder(annotation)(data, "argument 1")
    assert refusal.value.path == path
    assert "argument 1 does not fit its annotation" in str(refusal.value)
    assert words in str(refusal.value)


# ---- comparing -----------------------------------------------------------------------------------------


def test_the_same_value_in_another_order_is_the_same_value() -> None:
    assert same_value(b'{"a":1,"b":2}', b'{"b":2,"a":1}')
    assert same_value(b"[3,1]", b"[1,3]", set[int])
    assert not same_value(b"[3,1]", b"[1,3]")
    assert not same_value(b'{"a":1}', b'{"a":2}')
    assert not same_value(b'{"a":', b'{"a":')


def test_annotations_that_cannot_be_resolved_count_as_none() -> None:
    def fine(x: int) -> str: ...  # type: ignore[empty-body]
    def broken(x: "Nowhere") -> str: ...  # type: ignore[empty-body,name-defined]  # noqa: F821

    assert hints(fine) == {"x": int, "return": str}
    assert hints(broken) == {}


# ---- the registry ----------------------------------------------------------------------------------------


def test_every_type_has_one_tag_and_the_table_is_closed() -> None:
    kinds = (*CAUSES, *COMMANDS, *FACTS)
    assert set(TYPES.values()) == set(kinds)
    assert len(TYPES) == len(kinds)
    assert set(ENDS) - set(COMMANDS) == {RunTerminated}
    assert all(tag.count(".") == 1 and tag.islower() for tag in TYPES)


def test_an_event_comes_back_equal() -> None:
    event = sample_rows("run", 1)[0].event()
    assert decode_event(event.TAG, encode_event(event)) == event
    assert isinstance(event, StepStarted)


def test_an_unknown_event_is_kept_and_only_blocks_who_needs_it() -> None:
    with pytest.raises(UnknownEvent, match=r"'step\.teleported' at run@7.*upgrade this process") as error:
        decode_event("step.teleported", b'{"to":"Mars"}', "run@7")
    assert error.value.tag == "step.teleported"
    assert look_at_event("step.teleported", b'{"to":"Mars"}') == Unknown("step.teleported", {"to": "Mars"})
    for damaged in (b"\xff", b"", b"[1]", b"{"):
        with pytest.raises(StoreCorrupt, match=r"'step.teleported' at r@3 does not fit its type"):
            look_at_event("step.teleported", damaged, "r@3")


def test_a_body_that_does_not_fit_its_type_is_damage() -> None:
    for body in (b"{}", b"", b"\xff", b'{"id":1}', b"null"):
        with pytest.raises(StoreCorrupt, match=r"'step\.started' at run@2 does not fit its type"):
            decode_event("step.started", body, "run@2")


def test_nothing_from_a_row_is_ever_imported() -> None:
    for tag in ("os:system", "refold.events.types:StepStarted", "builtins.eval", ""):
        with pytest.raises(UnknownEvent):
            decode_event(tag, b"{}")
