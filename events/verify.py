"""The proof that nothing was changed: every row against its hash, every stream and the log without a gap."""

from collections.abc import Callable

from msgspec import Struct

from .blobs import references
from .errors import StoreCorrupt
from .store import Reading
from .stream import Row, Tail, check_chain

_BATCH = 5_000


class Verified(Struct, frozen=True):
    """What `verify` found."""

    events: int
    streams: int
    problems: tuple[str, ...]
    """Sentences that name stream, version and position; empty when all is well. One per stream at most."""
    blobs: int = 0
    """Contents of large values."""


def verify(store: Reading, progress: Callable[[int, int], None] | None = None) -> Verified:
    """Read the whole log once and check it. Raises `StoreCorrupt` when it cannot even be read.

    `progress` is told from time to time how many events were checked, and how many there are.

    The chain of hashes shows what was changed, moved or removed inside a stream; dense positions
    show what was removed at its end; the tails show an index that no longer agrees with the rows.
    Contents of large values are checked by their digests, and must be there for every reference.
    """
    check = _Check()
    end = store.position()
    while rows := store.scan(check.position, _BATCH):
        for row in rows:
            check.row(row)
        if progress is not None:
            progress(check.events, max(end, check.events))
    if check.position < end:
        check.gap(end + 1)
    for stream, tail in check.tails.items():
        if stream in check.broken:
            continue
        found = store.tail(stream)
        if found != tail and found.version <= tail.version:  # later: somebody appended meanwhile
            check.problem(stream, f"stream {stream!r}: its index does not agree with its rows")
    blobs = check.blobs(store)
    return Verified(check.events, len(check.tails), tuple(check.problems), blobs)


class _Check:
    def __init__(self) -> None:
        self.events = 0
        self.position = 0
        self.tails: dict[str, Tail] = {}
        self.broken: set[str] = set()
        self.problems: list[str] = []
        self.referred: dict[str, str] = {}
        """Where each content is referred to first."""

    def row(self, row: Row) -> None:
        self.gap(row.position)
        self.position = row.position
        self.events += 1
        tail = self.tails.get(row.stream, Tail())
        try:
            self.tails[row.stream] = check_chain((row,), tail)
            for digest in references(row.tag, row.state):
                self.referred.setdefault(
                    digest, f"stream {row.stream!r} version {row.version}, position {row.position}"
                )
        except StoreCorrupt as error:
            self.tails[row.stream] = Tail(row.version, row.hash)
            self.problem(row.stream, str(error))
        except TypeError:  # SQLite keeps any type in any column
            self.tails[row.stream] = Tail(row.version, row.hash)
            where = f"stream {row.stream!r} version {row.version}, position {row.position}"
            self.problem(row.stream, f"{where}: a column is not of the type it had")

    def gap(self, position: int) -> None:
        if position != self.position + 1:
            self.problems.append(f"positions {self.position + 1} to {position - 1} are missing from the log")

    def blobs(self, store: Reading) -> int:
        """After all rows, so that what they refer to is there: it came in the same commits."""
        count, last = 0, ""
        while digests := store.blobs(last):
            for digest in digests:
                count += 1
                self.blob(store, digest)
                self.referred.pop(digest, None)
            last = digests[-1]
        self.problems += [
            f"{place}: the content {digest} of a large value is missing"
            for digest, place in self.referred.items()
        ]
        return count

    def blob(self, store: Reading, digest: str) -> None:
        try:
            store.blob(digest)
        except StoreCorrupt as error:
            place = self.referred.get(digest)
            self.problems.append(f"{place}: {error}" if place else str(error))

    def problem(self, stream: str, text: str) -> None:
        if stream not in self.broken:
            self.broken.add(stream)
            self.problems.append(text)
