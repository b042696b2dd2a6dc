"""A log goes out as lines and comes into another store unchanged, whole or not at all."""

import json
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec import Raw, structs

from refold.events import types as t
from refold.events.errors import (
    RunNotFound,
    StartConflict,
    StoreBusy,
    StoreCorrupt,
)
from refold.events.lines import Content, End, Header, Writer, read_log
from refold.events.locks import look_at
from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.store import Append, Store, Unit
from refold.events.stream import LOCKS, Row, row_hash
from refold.events.transfer import Imported, export_log, family_of, import_log
from refold.events.types import Event
from refold.events.verify import verify
from tests.events.transfers import AT, contents, exported, mail, put, sample, scheduled, started

# ---- there and back -----------------------------------------------------------------------------------


def test_a_log_comes_in_as_it_went_out(tmp_path: Path) -> None:
    source = sample()
    lines = exported(source)
    target = SQLiteStore(tmp_path / "new.db")
    assert import_log(target, lines) == Imported(runs=2, advanced=0, there=0, events=8, contents=1)
    assert contents(target) == contents(source)
    assert exported(target) == lines
    assert not target.holding()
    target.close()


def test_events_can_be_read_in_their_lines_and_are_there_byte_for_byte() -> None:
    store = MemoryStore()
    states = {
        "json": b'{"a": 1.10, "b":"\xc3\xa4"}', "separator": '"\u2028\x9b"'.encode(), "spaced": b' {"a":1}',
        "two lines": b'{"a":\n1}', "carriage return": b'{"a":\r1}', "torn": b'{"a"', "empty": b"",
        "binary": b"\xff\x00",
    }  # fmt: skip
    for stream, state in states.items():
        row = Row(stream, 1, "odd", state, row_hash(bytes(32), stream, 1, "odd", state))
        store.commit([Unit((Append(stream, 0, [row]),))])
    lines = exported(store)
    spelled = {}
    for line in lines[1:-1]:
        said = json.loads(line)
        spelled[said["stream"]] = {key: said[key] for key in ("event", "text", "base64") if key in said}
    assert spelled == {
        "json": {"event": {"a": 1.1, "b": "ä"}}, "separator": {"event": "\u2028\x9b"},
        "spaced": {"text": ' {"a":1}'}, "two lines": {"text": '{"a":\n1}'},
        "carriage return": {"text": '{"a":\r1}'}, "torn": {"text": '{"a"'}, "empty": {"text": ""},
        "binary": {"base64": b64encode(b"\xff\x00").decode()},
    }  # fmt: skip
    assert {item.stream: item.state for item in read_log(lines) if isinstance(item, Row)} == states


def test_the_reader_gives_header_rows_contents_and_end() -> None:
    header, *rest, end = read_log(exported(sample()))
    assert isinstance(header, Header)
    assert (header.format, header.version, header.scope, header.events) == ("refold.log", 1, "store", 8)
    assert [type(item) for item in rest] == [Row] * 8 + [Content]
    assert isinstance(end, End)
    assert (end.events, end.streams, end.contents) == (8, 4, 1)


names = st.one_of(st.sampled_from(["a", "b", "a/inbox", "key/a"]), st.text(max_size=6)).map(
    lambda name: name.encode("utf-8", "replace").decode()
)
states = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace")),
    st.recursive(st.none() | st.floats(allow_nan=False) | st.text(max_size=5), st.lists, max_leaves=4).map(
        msgspec.json.encode
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, states), max_size=12), st.lists(st.binary(max_size=30), max_size=3))
def test_any_log_goes_out_and_in_and_out_the_same(
    events: list[tuple[str, bytes]], values: list[bytes]
) -> None:
    source = MemoryStore()
    for stream, state in events:
        version, last = source.tail(stream)
        row = Row(stream, version + 1, "odd", state, row_hash(last, stream, version + 1, "odd", state))
        source.commit([Unit((Append(stream, version, [row]),))])
    source.commit([Unit(blobs=tuple((sha256(value).hexdigest(), value) for value in values))])
    target = MemoryStore()
    lines = list(export_log(source))
    import_log(target, lines)
    assert list(export_log(target)) == lines


def test_an_export_is_a_snapshot() -> None:
    store = sample()
    before = exported(store)
    lines = export_log(store)
    early = [next(lines) for _ in range(3)]
    put(store, "c", started())
    put(store, "a", scheduled(3))
    assert [line.encode() for line in (*early, *lines)] == before


def test_a_run_goes_out_with_its_inbox_its_key_and_its_contents_and_with_its_family_when_asked_for() -> None:
    store = sample()
    put(store, "c", started())
    alone, family = exported(store, ["a"]), exported(store, family_of(store, ["a"]))

    def streams(lines: Iterable[bytes]) -> list[str]:
        return [item.stream for item in read_log(lines) if isinstance(item, Row)]

    assert streams(alone) == ["a", "key/k", "a/inbox", "a", "a", "a"]
    assert streams(family) == ["a", "key/k", "a/inbox", "a", "a", "b", "a", "b"]
    assert sum(isinstance(item, Content) for item in read_log(alone)) == 1
    assert not any(isinstance(item, Content) for item in read_log(exported(store, ["b"])))
    for wrong in ("nobody", "a/inbox"):
        with pytest.raises(RunNotFound):
            export_log(store, [wrong])


def test_a_damaged_log_is_not_exported(tmp_path: Path) -> None:
    store = sample()
    target = SQLiteStore(tmp_path / "damaged.db")
    import_log(target, exported(store))
    with target._file.writing() as connection:
        connection.execute("UPDATE stored_events SET state = CAST('{}' AS BLOB) WHERE rowid = 4")
    with pytest.raises(StoreCorrupt, match=r"stream 'a' version 2 .* does not match its hash"):
        list(export_log(target))
    with target._file.writing() as connection:
        connection.execute("DELETE FROM stored_events WHERE rowid >= 4")
    with pytest.raises(StoreCorrupt, match="8 events were to be exported, 3 are there"):
        list(export_log(target))
    target.close()


# ---- into a store that is not empty ---------------------------------------------------------------------


def test_importing_twice_is_harmless(tmp_path: Path) -> None:
    lines = exported(sample())
    store = SQLiteStore(tmp_path / "new.db")
    import_log(store, lines)
    before = contents(store)
    assert import_log(store, lines) == Imported(runs=0, advanced=0, there=2, events=0, contents=1)
    put(store, "b", scheduled(2))  # and it goes on here
    put(store, "d", started())
    ahead = contents(store)
    assert import_log(store, lines) == Imported(runs=0, advanced=0, there=2, events=0, contents=1)
    assert contents(store) == ahead
    assert len(ahead[0]) == len(before[0]) + 2
    store.close()


def test_a_run_that_is_here_up_to_an_earlier_event_gets_the_rest(tmp_path: Path) -> None:
    source, store = sample(), SQLiteStore(tmp_path / "new.db")
    import_log(store, exported(source))
    put(source, "a", scheduled(3), t.StepCompleted(id="e", at=AT, step=1, result=Raw(b"1")))
    put(source, "b/inbox", mail(1))
    put(source, "c", started())
    assert import_log(store, exported(source)) == Imported(runs=1, advanced=1, there=1, events=4, contents=1)
    assert contents(store)[1:] == contents(source)[1:]
    assert exported(store) == exported(source)
    store.close()


def test_another_history_of_the_same_id_is_refused_by_name_and_nothing_is_stored() -> None:
    lines = exported(sample())
    for stream, event, words in (
        ("a", started("other"), "run 'a' has another history here;"),
        ("a/inbox", mail(7), "run 'a' has another history here in its inbox"),
        (
            "key/k",
            t.KeyTaken(id="x", at=AT, run_id="z", digest="d"),
            "start key 'k' has another history here",
        ),
    ):
        store = MemoryStore()
        put(store, stream, event)
        before = contents(store)
        with pytest.raises(StartConflict, match=words):
            import_log(store, lines)
        assert contents(store) == before


def test_a_longer_run_here_is_compared_where_that_in_the_file_ends() -> None:
    store = MemoryStore()
    put(store, "b", started("other"), scheduled(1), scheduled(2))
    with pytest.raises(StartConflict, match="run 'b' has another history here;"):
        import_log(store, exported(sample(), ["b"]))


def test_a_log_without_a_content_that_it_refers_to_is_refused_before_anything_is_stored() -> None:
    writer, rows = Writer(), [item for item in read_log(exported(sample())) if isinstance(item, Row)]
    lines = [writer.header("0", 3, None, len(rows)), *map(writer.event, rows), writer.end(4)]
    store = MemoryStore()
    with pytest.raises(StoreCorrupt, match=r"ends without the content .* version 4 of stream 'a' refers to"):
        import_log(store, lines)
    assert contents(store) == ([], [], {})


def test_a_store_that_is_damaged_says_so_after_an_import(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "damaged.db")
    put(store, "c", started())
    with store._file.writing() as connection:
        connection.execute("UPDATE stored_events SET state = CAST('{}' AS BLOB)")
    with pytest.raises(StoreCorrupt, match=r"damaged, found after the import was stored: .*'c' version 1"):
        import_log(store, exported(sample()))
    assert store.work("a") is not None
    store.close()


def test_a_run_that_went_on_here_and_elsewhere_is_refused() -> None:
    source = sample()
    store = MemoryStore()
    import_log(store, exported(source))
    put(source, "a/inbox", mail(2))
    put(store, "a", scheduled(3))
    with pytest.raises(StartConflict, match="run 'a' has gone on here, and elsewhere, too"):
        import_log(store, exported(source))
    put(source, "a", scheduled(4))
    with pytest.raises(StartConflict, match="run 'a' has another history here") as refusal:
        import_log(store, exported(source))
    assert refusal.value.run_id == "a"


def test_nothing_is_imported_while_the_store_is_executed() -> None:
    store = MemoryStore()
    store.hold("worker-1")
    with pytest.raises(StoreBusy, match="worker-1"):
        import_log(store, exported(sample()))
    assert contents(store) == ([], [], {})


def test_progress_is_told() -> None:
    store = MemoryStore()
    put(store, "a", started(), *(scheduled(n) for n in range(1, 2_500)))
    out: list[tuple[int, int]] = []
    into: list[tuple[int, int]] = []
    lines = list(export_log(store, progress=lambda *told: out.append(told)))
    import_log(MemoryStore(), lines, progress=lambda *told: into.append(told))
    assert out == into == [(1_000, 2_500), (2_000, 2_500)]


def test_an_export_does_not_hold_the_log_in_memory() -> None:
    """Pages are asked for as the lines are taken."""
    asked: list[int] = []

    class Counting(MemoryStore):
        def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
            asked.append(after)
            return super().scan(after, limit)

    store = Counting()
    put(store, "a", started(), *(scheduled(n) for n in range(1, 3_000)))
    lines = export_log(store)
    for _ in range(1_500):
        next(lines)
    assert asked == [0, 1_000]


# ---- concurrency keys -----------------------------------------------------------------------------------


def locked(id: str) -> Event:
    return structs.replace(started(id), lock="k")


def holders(store: Store) -> list[tuple[str, str]]:
    rows = [row.event() for row in store.read(LOCKS + "k")]
    return [(event.TAG, getattr(event, "run_id", "")) for event in rows]


def test_a_whole_log_brings_its_locks_and_a_single_run_takes_and_frees_its_own() -> None:
    """D05."""
    source = MemoryStore()
    put(source, "a", locked("1"))
    put(source, LOCKS + "k", t.LockTaken(id="l", at=AT, run_id="a", workflow="shop"))
    whole, alone = MemoryStore(), MemoryStore()
    import_log(whole, exported(source))
    assert contents(whole) == contents(source)
    import_log(alone, exported(source, ["a"]))
    assert holders(alone) == [("lock.taken", "a")]
    import_log(alone, exported(source, ["a"]))
    assert holders(alone) == [("lock.taken", "a")], "importing twice is harmless"
    put(source, "a", t.RunCompleted(id="e", at=AT, result=Raw(b"1")))
    import_log(alone, exported(source, ["a"]))
    assert holders(alone) == [("lock.taken", "a"), ("lock.freed", "a")]
    put(source, "b", locked("2"))
    import_log(alone, exported(source, ["b"]))
    assert look_at(alone, "k").holder == "b"
    assert not verify(alone).problems


def test_a_run_whose_lock_another_one_holds_is_refused_and_nothing_is_stored() -> None:
    """D05."""
    source, store = MemoryStore(), MemoryStore()
    put(source, "a", locked("1"))
    put(store, "b", locked("2"))
    put(store, LOCKS + "k", t.LockTaken(id="l", at=AT, run_id="b"))
    before = contents(store)
    with pytest.raises(StartConflict, match="run 'a' holds the lock 'k', which run 'b' holds here"):
        import_log(store, exported(source))
    assert contents(store) == before
    put(source, LOCKS + "k", t.LockTaken(id="m", at=AT, run_id="a"))
    with pytest.raises(StartConflict, match="lock 'k' has another history here"):
        import_log(store, exported(source))
