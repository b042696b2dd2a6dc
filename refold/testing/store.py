"""What every store must do: a suite to run against your own.

    from refold.testing import StoreConformance

    class TestMyStore(StoreConformance):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "log")

Run it with pytest (it needs only the `tmp_path` fixture). SQLite and memory pass it.
"""

import threading
from functools import partial
from pathlib import Path

from ..events.errors import StoreBusy, StoreError
from ..events.store import Append, Refusal, Store, Unit
from ..events.stream import INBOX, Row, Tail, check_chain
from ..events.work import Work
from .arrivals import ArrivalsConformance
from .contents import ContentsConformance
from .mail import MailConformance
from .samples import sample_append, sample_post, sample_rows, sample_work
from .suite import close, error, in_threads, put


class StoreConformance(MailConformance, ContentsConformance, ArrivalsConformance):
    """Subclass it under a name that begins with `Test` and say how a store is made."""

    # ---- streams

    def test_what_was_stored_is_read_back(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        rows = sample_rows("run", 3)
        assert store.commit([Unit((Append("run", 0, rows),))]) == [None]
        found = store.read("run")
        assert [row[:5] for row in found] == [row[:5] for row in rows]
        assert store.tail("run") == check_chain(found) == Tail(3, rows[-1].hash)
        store.close()

    def test_another_handle_reads_it_too(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "run", 2),))])
        other = self.open_again(store)
        assert other.read("run") == store.read("run")
        other.close()
        store.close()

    def test_a_stream_that_does_not_exist_is_empty(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        assert store.read("nobody") == []
        assert store.tail("nobody") == Tail()
        assert store.scan() == []
        assert store.position() == 0
        store.close()

    def test_read_goes_on_after_a_version_and_stops_at_a_limit(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "run", 10), sample_append(store, "other", 2)))])
        assert [row.version for row in store.read("run", 4)] == [5, 6, 7, 8, 9, 10]
        assert [row.version for row in store.read("run", 4, 2)] == [5, 6]
        assert store.read("run", 10) == []
        assert store.read("run", 4, 0) == []
        store.close()

    def test_any_text_and_any_bytes_come_back_as_they_were(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        names = ["it's", 'a "b"', "%_*", "Zoë/日本/🦊", "a\0\nb", " ", "x" * 500]
        states = [b"", b"\x00\xff", b'{"a":1}', bytes(range(256)), b"x" * 1_000_000, b"\\", b"'"]
        for name, state in zip(names, states, strict=True):
            row = Row(name, 1, "tag.of it's", state, bytes(32))
            assert store.commit([Unit((Append(name, 0, [row]),))]) == [None]
            assert [found[:5] for found in store.read(name)] == [row[:5]]
        again = [Unit((sample_append(store, name),)) for name in names]
        assert store.commit(again) == [None] * len(names)
        store.close()

    def test_a_unit_may_have_any_number_of_rows(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        for count in (0, 1, 31, 32, 33, 64, 65, 1_000):
            assert store.commit([Unit((sample_append(store, f"run-{count}", count),))]) == [None]
            assert check_chain(store.read(f"run-{count}")).version == count
        store.close()

    # ---- expected versions

    def test_an_append_at_the_wrong_version_is_refused_and_leaves_nothing(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "run", 3),))])
        before = store.scan()
        for expected in (0, 2, 4, 9):
            late = Append("run", expected, sample_rows("run", 2, Tail(expected)))
            assert store.commit([Unit((late,))]) == [Refusal("run", expected, 3)]
        assert store.commit([Unit((Append("new", 1, sample_rows("new", 1, Tail(1))),))]) == [
            Refusal("new", 1, 0)
        ]
        assert store.scan() == before
        store.close()

    def test_a_unit_over_several_streams_is_stored_whole_or_not_at_all(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "taken", 1),))])
        good, bad = sample_append(store, "good", 2), Append("taken", 0, sample_rows("taken", 1))
        for appends in ((good, bad), (bad, good)):
            unit = Unit(appends, (sample_work("good"),), (sample_post("good"),))
            assert store.commit([unit]) == [Refusal("taken", 0, 1)]
        assert store.read("good") == store.read("good" + INBOX) == []
        assert store.work("good") is None
        assert store.commit([Unit((good, sample_append(store, "taken", 1)))]) == [None]
        assert (store.tail("good").version, store.tail("taken").version) == (2, 2)
        store.close()

    def test_a_refused_unit_does_not_hurt_the_others(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "b", 1),))])
        late = Append("b", 0, sample_rows("b", 1))
        units = [
            Unit((sample_append(store, "a", 1),), (sample_work("a"),)),
            Unit((late,), (sample_work("b"),)),
            Unit((sample_append(store, "c", 1),), (sample_work("c"),)),
        ]
        assert store.commit(units) == [None, Refusal("b", 0, 1), None]
        assert [store.tail(stream).version for stream in "abc"] == [1, 1, 1]
        assert store.running() == ["a", "c"]
        store.close()

    def test_units_of_one_commit_follow_each_other(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        rows = sample_rows("run", 6)
        units = [Unit((Append("run", start, rows[start : start + 2]),)) for start in (0, 2, 4)]
        assert store.commit(units) == [None, None, None]
        assert check_chain(store.read("run")).version == 6
        store.close()

    def test_what_follows_a_refused_unit_is_refused_too_and_no_gap_is_left(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "run", 1), sample_append(store, "taken", 1)))])
        rows = sample_rows("run", 4, store.tail("run"))
        taken = Append("taken", 0, sample_rows("taken", 1))
        units = [
            Unit((Append("run", 1, rows[:2]), taken)),
            Unit((Append("run", 3, rows[2:]),)),
        ]
        assert store.commit(units) == [Refusal("taken", 0, 1), Refusal("run", 3, 1)]
        assert store.tail("run").version == 1
        assert store.commit([Unit((Append("run", 1, rows),))]) == [None]
        store.close()

    def test_a_successor_cannot_slip_in_behind_a_strangers_rows(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        mine = sample_rows("run", 2)
        stranger = [row._replace(hash=bytes(32)) for row in sample_rows("run", 1)]
        store.commit([Unit((Append("run", 0, stranger),))])
        first = Append("run", 0, mine[:1], after=Tail().hash)
        second = Append("run", 1, mine[1:], after=mine[0].hash)
        for units, refusals in (
            ([first, second], [Refusal("run", 0, 1), Refusal("run", 1, 1)]),
            ([second], [Refusal("run", 1, 1)]),
        ):
            assert store.commit([Unit((append,)) for append in units]) == refusals
        fitting = Append("run", 1, mine[1:], after=stranger[0].hash)
        assert store.commit([Unit((fitting,))]) == [None]
        store.close()

    def test_of_two_that_race_for_a_version_one_wins(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        handles = [store, self.open_again(store)]
        outcomes: list[list[Refusal | None]] = [[], []]
        start = threading.Barrier(2)

        def race(who: int) -> None:
            for version in range(20):
                append = Append("run", version, sample_rows("run", 1, Tail(version)))
                start.wait(30)
                outcomes[who] += handles[who].commit([Unit((append,))])

        in_threads(lambda: race(0), lambda: race(1))
        pairs = list(zip(*outcomes, strict=True))
        assert all((one is None) != (two is None) for one, two in pairs), pairs
        assert [row.version for row in store.read("run")] == list(range(1, 21))
        close(handles)

    # ---- the whole log

    def test_scan_gives_everything_in_the_order_of_commit(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        for stream in ("b", "a", "b", "c"):
            store.commit([Unit((sample_append(store, stream, 2),))])
        rows = store.scan()
        assert [row.stream for row in rows] == ["b", "b", "a", "a", "b", "b", "c", "c"]
        positions = [row.position for row in rows]
        assert positions == sorted(set(positions))
        assert store.position() == positions[-1]
        assert store.scan(positions[2]) == rows[3:]
        assert store.scan(positions[2], 2) == rows[3:5]
        assert store.scan(positions[-1]) == []
        assert [row.position for row in store.read("a")] == positions[2:4]
        store.close()

    def test_a_tailing_reader_misses_nothing_and_sees_units_whole(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        handles = [store, self.open_again(store), self.open_again(store)]
        ended = threading.Event()
        seen: list[Row] = []

        def write(handle: Store, who: str) -> None:
            for _ in range(60):
                pair = (sample_append(handle, f"{who}/left"), sample_append(handle, f"{who}/right"))
                assert handle.commit([Unit(pair)]) == [None]

        def follow() -> None:
            while True:
                last_look = ended.is_set()
                batch = handles[2].scan(seen[-1].position if seen else 0)
                seen.extend(batch)
                sides = [row.stream.rpartition("/")[2] for row in batch]
                assert sides.count("left") == sides.count("right"), "half of a unit was seen"
                if last_look:
                    return

        reader = threading.Thread(target=follow)
        reader.start()
        try:
            in_threads(lambda: write(handles[0], "one"), lambda: write(handles[1], "two"))
        finally:
            ended.set()
            reader.join(60)
        assert seen == store.scan(0, 1_000)
        assert len(seen) == 240
        close(handles)

    # ---- the dispatch table

    def test_work_is_kept_as_written(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        assert store.work("run") is None
        for row in (
            sample_work("run", "pending", 12.5),
            sample_work("run", "running"),
            sample_work("run", "waiting", 1_800_000_000.123456, seen=3),
            sample_work("run", "done"),
            Work("run", "other", "3", "running", None, 0, 9, ""),
        ):
            assert store.commit([Unit(works=(row,))]) == [None]
            assert store.work("run") == row
            assert store.all_work() == [(row, 0)]
        store.close()

    def test_due_lists_what_wants_attention_earliest_first(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(
            store,
            sample_work("late", "waiting", 30.0),
            sample_work("early", "pending", 10.0),
            sample_work("exactly", "waiting", 50.0),
            sample_work("future", "waiting", 50.1),
            sample_work("for a message", "waiting"),
            sample_work("busy", "running", 5.0),
            sample_work("over", "done", 5.0),
        )
        assert store.due(50.0) == ["early", "late", "exactly"]
        assert store.due(50.0, 2) == ["early", "late"]
        assert store.due(9.9) == []
        assert store.next_due(0.0) == 10.0
        assert store.next_due(10.0) == 30.0
        assert store.next_due(50.1) is None
        store.close()

    def test_running_lists_what_an_owner_must_recover(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, *(sample_work(f"run-{n}") for n in (3, 1, 2)), sample_work("run-0", "waiting", 1.0))
        assert store.running() == ["run-1", "run-2", "run-3"]
        assert store.running("run-1") == ["run-2", "run-3"]
        assert store.running("run-1", 1) == ["run-2"]
        store.close()

    def test_work_can_be_replaced_as_a_whole(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, sample_work("old"), sample_work("kept", "waiting", 1.0))
        rows = [(sample_work("kept", "waiting", 2.0, seen=1), 1), (sample_work("new"), 4)]
        store.rebuild_work(rows)
        assert store.all_work() == rows
        assert store.work("old") is None
        assert store.due(3.0) == ["kept", "new"]
        store.close()

    # ---- others

    def test_changed_tells_of_commits_by_others_once(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        other = self.open_again(store)
        store.changed()
        assert not store.changed()
        other.commit([Unit((sample_append(other, "run"),))])
        assert store.changed()
        assert not store.changed()
        close([store, other])

    def test_one_executor_at_a_time_and_the_second_learns_the_name(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        other = self.open_again(store)
        assert not store.holding()
        store.hold("first@here")
        assert store.holding()
        for handle in (store, other):
            assert "first@here" in error(StoreBusy, partial(handle.hold, "second"))
        store.release()
        store.release()
        assert not store.holding()
        other.hold("second")
        assert "second" in error(StoreBusy, lambda: store.hold("first@here"))
        other.close()
        if other is not store:
            store.hold("first@here")
        store.close()

    def test_a_closed_store_refuses_and_closing_twice_is_harmless(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        append = sample_append(store, "run")
        store.close()
        store.close()
        assert "closed" in error(StoreError, lambda: store.commit([Unit((append,))]))
