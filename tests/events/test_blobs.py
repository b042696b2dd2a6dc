"""Values too large for their events are put away and come back the same; nothing passes for one of them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import Raw

from refold.events import types as t
from refold.events.blobs import BLOB_BYTES, Contents, bring_back, put_away, reference, references
from refold.events.codec import encode
from refold.events.errors import StoreCorrupt, ValueRefused
from refold.events.registry import TYPES, decode_event, encode_event
from refold.events.run_events import Carried
from refold.events.sqlite import SQLiteStore
from refold.events.store import Append, Unit
from refold.events.stream import Tail, chain
from refold.events.types import Event
from refold.events.verify import verify

HEAD: dict[str, Any] = {"id": "0123456789abcdef-1f4", "at": datetime(2026, 1, 1, tzinfo=UTC)}
LARGE = Raw(b'"%b"' % (b"x" * BLOB_BYTES))
NOTHING: dict[str, bytes] = {}
SMALL = Raw(b'{"a": 1}')
EDGE = Raw(b'"%b"' % (b"x" * (BLOB_BYTES - 2)))


def filled(kind: type[Any], value: Raw) -> Any:
    """An event, or a part of one, with this value wherever one fits."""
    known: dict[Any, Any] = {Raw: value, datetime: HEAD["at"], str: "text", int: 7, bool: True}
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        text = str(field.type)
        if "Failure" in text:
            fields[field.name] = filled(t.Failure, value)
        elif "Carried" in text:
            fields[field.name] = (filled(Carried, SMALL), filled(Carried, value))
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) and field.required:
            fields[field.name] = filled(field.type, value)
        elif text.startswith("dict"):
            fields[field.name] = {}
        elif field.required or field.type is Raw:
            fields[field.name] = known.get(field.type, ())
    return kind(**fields)


def count_of(value: Raw, event: Event) -> int:
    return encode_event(event).count(bytes(value))


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_every_large_value_of_every_event_is_put_away_and_comes_back(kind: type[Event]) -> None:
    event = filled(kind, LARGE)
    small, contents = put_away(event, BLOB_BYTES)
    assert len(contents) == count_of(LARGE, event)
    assert len(encode_event(small)) < 2_000
    assert type(small) is kind
    stored = decode_event(kind.TAG, encode_event(small))
    named = {small.digest} if isinstance(small, t.ArtifactRecorded) else set()  # its content is one by itself
    assert references(kind.TAG, encode_event(small)) == {digest for digest, _ in contents} | named
    assert encode_event(bring_back(stored, dict(contents).__getitem__)) == encode_event(event)


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_an_event_without_large_values_is_left_alone(kind: type[Event]) -> None:
    for value in (SMALL, EDGE):
        event = filled(kind, value)
        assert put_away(event, BLOB_BYTES) == (event, ())
        assert put_away(event, BLOB_BYTES)[0] is event
        assert bring_back(event, NOTHING.__getitem__) is event


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["$blob", "size", "a", 'b"', "日"]) | st.text(max_size=3), inner, max_size=3
        )
    ),
)


@given(JSON, JSON, st.integers(0, 40))
def test_any_values_come_back_whatever_the_limit(args: Any, kwargs: Any, limit: int) -> None:
    event = t.StepScheduled(step=1, name="a", key="a", args=encode([args]), kwargs=encode([kwargs]), **HEAD)
    small, contents = put_away(event, limit)
    assert all(len(content) > limit for _, content in contents)
    assert put_away(small, limit) == (small, ()), "what is put away is not put away again"
    back = bring_back(decode_event(small.TAG, encode_event(small)), dict(contents).__getitem__)
    assert encode_event(back) == encode_event(event)


# ---- what is a reference and what is not ---------------------------------------------------------------

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("size", [0, 7, 262_145, 10**12])
def test_a_reference_names_its_content(size: int) -> None:
    assert reference(Raw(b'{"$blob":"%b","size":%d}' % (DIGEST.encode(), size))) == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        '{"$blob":"D","size":7,"more":1}',
        '{"$blob": "D","size":7}',
        '{"size":7,"$blob":"D"}',
        '{"$blob":"D","size":-7}',
        '{"$blob":"D","size":07}',
        '{"$blob":"D","size":"7"}',
        '{"$blob":"D0","size":7}',
        '[{"$blob":"D","size":7}]',
        '"{\\"$blob\\":\\"D\\",\\"size\\":7}"',
        '{"$blob":"D","size":7}}',
        'x{"$blob":"D","size":7}',
        "null",
    ],
)
def test_nothing_else_does(text: str) -> None:
    assert reference(Raw(text.replace("D", DIGEST).encode())) is None


@pytest.mark.parametrize("value", [{"$blob": DIGEST, "size": 7}, {"$blob": "", "size": None}])
def test_a_users_value_that_would_pass_for_a_reference_is_refused(value: object) -> None:
    with pytest.raises(ValueRefused, match=r'result is an object with the keys "\$blob" and "size" only'):
        encode(value, "result")


@pytest.mark.parametrize(
    "value",
    [
        {"$blob": DIGEST},
        {"$blob": DIGEST, "size": 7, "more": 1},
        {"$blobs": DIGEST, "size": 7},
        [{"$blob": DIGEST, "size": 7}],
        {"in": {"$blob": DIGEST, "size": 7}},
        '{"$blob":"',
    ],
)
def test_a_users_value_that_would_not_is_kept(value: object) -> None:
    data = encode(value)
    assert msgspec.json.decode(data) == value
    assert reference(data) is None
    event = t.StepCompleted(step=1, result=data, **HEAD)
    assert references(event.TAG, encode_event(event)) == set()


def test_a_reference_in_an_event_that_is_held_back_counts() -> None:
    inner, contents = put_away(t.StepCompleted(step=1, result=LARGE, **HEAD))
    held = t.CauseHeld(tag=inner.TAG, body=Raw(encode_event(inner)), **HEAD)
    assert references(held.TAG, encode_event(held)) == {contents[0][0]}


def test_events_of_a_newer_refold_refer_to_nothing_known() -> None:
    assert references("step.future", b'{"result":{"$blob":"%b","size":7}}' % DIGEST.encode()) == set()


# ---- what verify finds ---------------------------------------------------------------------------------


def with_blobs(path: Path) -> tuple[SQLiteStore, Contents]:
    """A store with two large values, one of them in two events."""
    store = SQLiteStore(path)
    events: list[Event] = []
    contents: list[tuple[str, bytes]] = []
    for step, value in enumerate((LARGE, Raw(b"[%b]" % bytes(LARGE)), LARGE, SMALL)):
        event, more = put_away(t.StepCompleted(step=step, result=value, **HEAD | {"id": f"{step}"}))
        events.append(event)
        contents += more
    rows, _ = chain("run", Tail(), events)
    assert store.commit([Unit((Append("run", 0, rows),), blobs=tuple(contents))]) == [None]
    return store, tuple(contents)


def test_a_healthy_store_with_contents_verifies(tmp_path: Path) -> None:
    store, contents = with_blobs(tmp_path / "log.db")
    assert len(contents) == 3
    found = verify(store)
    assert (found.events, found.blobs, found.problems) == (4, 2, ())
    store.close()


DAMAGES = {
    "UPDATE blobs SET data = CAST('x' || data AS BLOB) WHERE digest = ?": ["version 1.* changed"],
    "UPDATE blobs SET data = CAST(data AS TEXT) WHERE digest = ?": ["version 1.* is no bytes"],
    "DELETE FROM blobs WHERE digest = ?": ["version 1, position 1: .* is missing"],
    "UPDATE blobs SET digest = 'f' || substr(digest, 2) WHERE digest = ?": [
        "changed",
        "version 1.* is missing",
    ],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_content_that_was_changed_or_removed_is_found(damage: str, tmp_path: Path) -> None:
    store, contents = with_blobs(tmp_path / "log.db")
    digest = contents[0][0]
    with store._file.writing() as connection:
        connection.execute(damage, (digest,))
    problems = verify(store).problems
    for problem, words in zip(problems, DAMAGES[damage], strict=True):
        assert re.search(words, problem), problem
    with pytest.raises(StoreCorrupt, match=digest):
        store.blob(digest)
    assert store._file.writer().execute("PRAGMA integrity_check").fetchall() == [("ok",)], "a control"
    store.close()
