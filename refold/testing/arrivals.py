"""What a store does with a whole log that comes in: the part of the suite about `commit_all`."""

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

from ..events.errors import AppendRefused, StoreError
from ..events.store import Append, Unit
from ..events.stream import INBOX, Tail
from .samples import sample_append, sample_rows, sample_work
from .suite import Suite, close, error

_CONTENT = sha256(b"content").hexdigest(), b"content"


class ArrivalsConformance(Suite):
    """Units that come one by one are stored together."""

    def test_all_units_are_stored_in_their_order(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        one, other = sample_rows("one", 4), sample_rows("other", 2)
        mail = sample_rows("one" + INBOX, 2)
        store.commit_all(iter([
            Unit((Append("one", 0, one[:2]), Append("other", 0, other), Append("one", 2, one[2:3]))),
            Unit(blobs=(_CONTENT,)),
            Unit((Append("one", 3, one[3:]), Append("one" + INBOX, 0, mail))),
            Unit(works=(sample_work("one"),)),
        ]))  # fmt: skip
        found = [(row.stream, row.version, row.hash) for row in store.scan()]
        came = [*one[:2], *other, one[2], one[3], *mail]
        assert found == [(row.stream, row.version, row.hash) for row in came]
        assert store.blob(_CONTENT[0]) == _CONTENT[1]
        assert store.all_work() == [(sample_work("one"), 2)]
        store.close()

    def test_nobody_sees_anything_before_the_last_one(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        other = self.open_again(store)
        store.commit([Unit((sample_append(store, "before"),))])
        rows = sample_rows("run", 2)

        def units() -> Iterator[Unit]:
            yield Unit((Append("run", 0, rows[:1]),), (sample_work("run"),), blobs=(_CONTENT,))
            for handle in (store, other):
                assert handle.tail("run") == Tail()
                assert len(handle.scan()) == 1
                assert handle.work("run") is None
                assert handle.blobs() == []
            yield Unit((Append("run", 1, rows[1:]),))

        store.commit_all(units())
        assert other.tail("run").version == 2
        close([store, other])

    def test_after_an_error_nothing_is_stored(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((sample_append(store, "before", 2),), (sample_work("before"),))])
        before = store.scan(), store.all_work()
        rows = sample_rows("run", 1)

        def broken() -> Iterator[Unit]:
            yield Unit((Append("run", 0, rows),), (sample_work("run"), sample_work("before", "done")))
            yield Unit((Append("run" + INBOX, 0, sample_rows("run" + INBOX, 1)),), blobs=(_CONTENT,))
            raise KeyError("in the middle")

        late = [Unit((Append("run", 0, rows),)), Unit((sample_append(store, "before"),)), Unit((
            Append("run", 2, sample_rows("run", 1, Tail(2))),
        ))]  # fmt: skip
        error(KeyError, lambda: store.commit_all(broken()))
        assert "'run' refused" in error(AppendRefused, partial(store.commit_all, late))
        assert (store.scan(), store.all_work(), store.blobs()) == (*before, [])
        store.commit_all(late[:2])
        assert [row.stream for row in store.scan()] == ["before", "before", "run", "before"]
        store.close()

    def test_a_closed_store_takes_nothing_in(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.close()
        assert "closed" in error(StoreError, lambda: store.commit_all([Unit()]))
