"""The chain of hashes finds every change; SQLite's own check does not."""

import random
import sqlite3
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from refold.events.errors import StoreCorrupt, StoreError
from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.store import Unit
from refold.events.stream import GENESIS, Row, Tail, check_chain, row_hash
from refold.events.verify import verify
from refold.testing.samples import sample_append, sample_rows

# ---- one stream ---------------------------------------------------------------------------------


def test_a_chain_checks_whole_or_piece_by_piece() -> None:
    rows = sample_rows("run", 5)
    tail = check_chain(rows)
    assert tail == Tail(5, rows[-1].hash)
    piecewise = Tail()
    for row in rows:
        piecewise = check_chain([row], piecewise)
    assert piecewise == tail
    assert check_chain([]) == Tail(0, GENESIS)


Edit = Callable[[Row], Row]
EDITS: dict[str, Edit] = {
    "stream": lambda row: row._replace(stream=row.stream + "x"),
    "tag": lambda row: row._replace(tag="step.completed"),
    "state": lambda row: row._replace(state=row.state.replace(b"2026", b"2025")),
    "state, one bit": lambda row: row._replace(state=bytes([row.state[0] ^ 1]) + row.state[1:]),
    "state, one byte more": lambda row: row._replace(state=row.state + b" "),
    "hash": lambda row: row._replace(hash=bytes([row.hash[0] ^ 128]) + row.hash[1:]),
    "hash, zeros": lambda row: row._replace(hash=bytes(32)),
    "hash, cut": lambda row: row._replace(hash=row.hash[:31]),
    "version": lambda row: row._replace(version=row.version + 1),
}


@pytest.mark.parametrize("place", [0, 2, 4], ids=["first", "middle", "last"])
@pytest.mark.parametrize("edit", EDITS)
def test_any_change_of_any_row_is_found_the_last_included(edit: str, place: int) -> None:
    rows = sample_rows("run", 5)
    rows[place] = EDITS[edit](rows[place])
    with pytest.raises(StoreCorrupt, match=f"version {place + 1}"):
        check_chain(rows)


def test_rows_that_were_removed_moved_or_swapped_are_found() -> None:
    rows = sample_rows("run", 5)
    for wrong in (
        rows[1:],
        rows[:2] + rows[3:],
        [*rows[:2], rows[3], rows[2], *rows[4:]],
        rows[:3] + rows[2:],
    ):
        with pytest.raises(StoreCorrupt):
            check_chain(wrong)
    elsewhere = [row._replace(stream="other") for row in rows]
    with pytest.raises(StoreCorrupt):
        check_chain(elsewhere)


def test_a_forged_row_needs_every_later_hash_forged_too() -> None:
    rows = sample_rows("run", 5)
    state = b'{"amount": 1000000}'
    before = rows[1].hash
    rows[2] = rows[2]._replace(state=state, hash=row_hash(before, "run", 3, rows[2].tag, state))
    with pytest.raises(StoreCorrupt, match="version 4"):
        check_chain(rows)


names = st.text("a1./é", min_size=1, max_size=4)


@given(st.lists(st.tuples(names, st.integers(1, 99), names, st.text("a1", max_size=3)), unique=True))
def test_different_rows_have_different_hashes(rows: list[tuple[str, int, str, str]]) -> None:
    hashes = {row_hash(GENESIS, name, version, tag, state.encode()) for name, version, tag, state in rows}
    assert len(hashes) == len(rows)


# ---- the whole log ------------------------------------------------------------------------------


def test_verify_says_what_a_healthy_log_holds(tmp_path: Path) -> None:
    for store in (SQLiteStore(tmp_path / "log.db"), MemoryStore()):
        assert verify(store).problems == ()
        store.commit([Unit((sample_append(store, "a", 3), sample_append(store, "b", 2)))])
        found = verify(store)
        assert (found.events, found.streams, found.problems) == (5, 2, ())
        store.close()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE stored_events SET state = '{}' WHERE rowid = 4", "stream 'a' version 4"),
        ("UPDATE stored_events SET hash = zeroblob(32) WHERE rowid = 10", "stream 'b' version 5"),
        ("DELETE FROM stored_events WHERE rowid = 3", "positions 3 to 3 are missing"),
        ("DELETE FROM stored_events WHERE rowid = 10", "positions 10 to 10 are missing"),
        ("DELETE FROM stored_events WHERE rowid > 5", "positions 6 to 10 are missing"),
        ("UPDATE stored_events SET originator_id = 'c' WHERE rowid = 10", "stream 'c'"),
    ],
)
def test_what_sql_changed_is_named(sql: str, words: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    store.commit([Unit((sample_append(store, "a", 5), sample_append(store, "b", 5)))])
    with store._file.writing() as connection:
        connection.execute(sql)
    assert words in " ".join(map(str, verify(store).problems))
    store.close()


def test_events_that_arrive_while_verify_reads_are_no_problem(tmp_path: Path) -> None:
    class Growing(MemoryStore):
        def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
            rows = super().scan(after, limit)
            if after < 6:
                self.commit([Unit((sample_append(self, "a"),))])
            return rows

    store = Growing()
    store.commit([Unit((sample_append(store, "a", 5),))])
    assert verify(store).problems == ()


# ---- flipped bits -------------------------------------------------------------------------------


def healthy(path: Path) -> tuple[bytes, list[Row]]:
    """A small closed file, and what it holds. Rows are of the size that real events have."""
    store = SQLiteStore(path)
    for count in (60, 40, 1):
        rows = [sample_append(store, f"run-{n}", count) for n in range(3)]
        store.commit([Unit((append,)) for append in rows])
    held = store.scan(0, 10_000)
    store.close()
    return path.read_bytes(), held


def look(path: Path) -> tuple[str, list[Row]]:
    """What `verify` says of a file, and what it holds."""
    try:
        store = SQLiteStore(path)
    except StoreError as error:
        return f"cannot be opened: {error}", []
    try:
        found = verify(store)
        return "; ".join(found.problems), store.scan(0, 10_000)
    except StoreError as error:
        return f"cannot be read: {error}", []
    finally:
        store.close()


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)
    finally:
        connection.close()


def flip(image: bytes, place: int, bit: int) -> bytes:
    data = bytearray(image)
    data[place] ^= 1 << bit
    return bytes(data)


def remove_sidecars(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def test_every_flipped_bit_that_changes_an_event_is_found(tmp_path: Path) -> None:
    """Any bit of the file. The control: SQLite's own check calls most of these files sound."""
    path = tmp_path / "log.db"
    image, held = healthy(path)
    chance = random.Random(2)
    found = unseen_by_sqlite = 0
    for _ in range(400):
        path.write_bytes(flip(image, chance.randrange(len(image)), chance.randrange(8)))
        remove_sidecars(path)
        sound = integrity(path) == "ok"
        problems, rows = look(path)
        if rows != held:
            assert problems, "wrong data, and verify saw nothing"
            found += 1
            unseen_by_sqlite += sound
    assert found > 120  # the rest of the file is indexes, room and the tables' own text
    assert unseen_by_sqlite > found // 2


@pytest.mark.parametrize("column", ["originator_id", "originator_version", "topic", "state", "hash"])
def test_a_flipped_bit_in_any_column_is_found_in_the_last_event_of_a_stream_too(
    column: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    healthy(path)
    store = SQLiteStore(path)
    rows = store.scan(0, 10_000)
    last = [
        max(group, key=lambda row: row.version) for _, group in groupby(sorted(rows), lambda row: row.stream)
    ]
    chance = random.Random(column)
    for row in [*last, *chance.sample(rows, 10)]:
        with store._file.writing() as connection:
            where = f"WHERE rowid = {row.position}"
            (value,) = connection.execute(f"SELECT {column} FROM stored_events {where}").fetchone()
            connection.execute(f"UPDATE stored_events SET {column} = ? {where}", (flipped(value, chance),))
        assert verify(store).problems, f"{column} of {row.stream}@{row.version}"
        with store._file.writing() as connection:
            connection.execute(f"UPDATE stored_events SET {column} = ? {where}", (value,))
        assert not verify(store).problems
    store.close()


def flipped(value: object, chance: random.Random) -> object:
    """The value with one bit changed, in the type it had."""
    if isinstance(value, int):
        return value ^ 1 << 20 + chance.randrange(20)
    if isinstance(value, str):
        place = chance.randrange(len(value))
        return value[:place] + chr(ord(value[place]) ^ 32) + value[place + 1 :]
    assert isinstance(value, bytes)
    place = chance.randrange(len(value))
    return flip(value, place, chance.randrange(8))
