"""What a store does with the contents of large values: the part of the suite about blobs."""

from hashlib import sha256
from pathlib import Path

from ..events.errors import StoreCorrupt
from ..events.store import Append, Refusal, Unit
from .samples import sample_append, sample_rows
from .suite import Suite, close, error


def _blob(content: bytes) -> tuple[str, bytes]:
    return sha256(content).hexdigest(), content


class ContentsConformance(Suite):
    """Contents come and go with their unit, and are kept once."""

    def test_contents_come_back_as_they_were(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        other = self.open_again(store)
        blobs = tuple(map(_blob, (b"", b"\x00\xff", b'{"a":1}', b"x" * 3_000_000)))
        assert store.blobs() == []
        assert store.commit([Unit((sample_append(store, "run"),), blobs=blobs)]) == [None]
        for digest, content in blobs:
            assert other.blob(digest) == content
        digests = sorted(digest for digest, _ in blobs)
        assert other.blobs() == digests
        assert other.blobs(digests[0], 2) == digests[1:3]
        assert other.blobs(digests[-1]) == []
        close([store, other])

    def test_a_content_may_come_again(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        one, two = _blob(b"one" * 1000), _blob(b"two" * 1000)
        units = [Unit(blobs=(one, one)), Unit((sample_append(store, "run"),), blobs=(two, one))]
        assert store.commit(units) == [None, None]
        assert store.commit([Unit(blobs=(two,))]) == [None]
        assert store.blobs() == sorted((one[0], two[0]))
        assert [store.blob(one[0]), store.blob(two[0])] == [one[1], two[1]]
        store.close()

    def test_a_refused_unit_leaves_no_content(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        kept, refused = _blob(b"kept"), _blob(b"refused")
        late = Append("run", 1, sample_rows("run", 1))
        assert store.commit([Unit((late,), blobs=(refused,)), Unit(blobs=(kept,))]) == [
            Refusal("run", 1, 0),
            None,
        ]
        assert store.blobs() == [kept[0]]
        store.close()

    def test_a_content_that_is_missing_is_an_error(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        digest, _ = _blob(b"nowhere")
        assert digest in error(StoreCorrupt, lambda: store.blob(digest))
        store.close()

    def test_a_content_that_is_not_what_its_digest_says_is_an_error(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        digest, _ = _blob(b"right")
        store.commit([Unit(blobs=((digest, b"wrong"),))])
        assert digest in error(StoreCorrupt, lambda: store.blob(digest))
        store.close()
