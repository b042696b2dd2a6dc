"""The port: what the engine asks of a store, and nothing more.

SQLite and memory implement it; `refold.testing.StoreConformance` is the suite any store must pass.
All methods are synchronous and thread-safe; `commit` is called by one thread at a time.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from .queues import Crowded
from .stream import INBOX, LOCKS, Row, Tail
from .work import ANY_WORKER, Work

SCHEMA_VERSION = 4
"""Of the tables in a SQLite file."""


class Append(Struct, frozen=True):
    """Rows for one stream, and the version it must be at."""

    stream: str
    expected: int
    """Version of the stream's last row; 0: the stream does not exist yet."""
    rows: list[Row]
    """Versions `expected + 1`, `expected + 2` …"""
    after: bytes = b""
    """Hash of the stream's last row, when the writer knows it: the store refuses the append when it
    differs, so the successor of a refused append cannot slip in behind a stranger's rows."""


class Post(Struct, frozen=True):
    """A message for a run's inbox: stored behind whatever is there, at the version it then gets.

    Whoever posts need not know where the inbox stands, so correspondents never conflict. What is said about
    a concurrency key is posted, too, to the stream of the key.
    """

    run_id: str
    """Or the stream of a concurrency key, `lock/KEY`."""
    tag: str
    state: bytes
    """JSON of the event."""
    expected: int = -1
    """Version the inbox must be at, for a message that was checked against it; -1: any."""

    @property
    def stream(self) -> str:
        """Where it is stored."""
        return self.run_id if self.run_id.startswith(LOCKS) else self.run_id + INBOX


class Unit(Struct, frozen=True):
    """What is stored whole or not at all: a run's append, its children's starts, what it tells others."""

    appends: tuple[Append, ...] = ()
    works: tuple[Work, ...] = ()
    """Rows of `work` to write in the same transaction (all columns but `mail`)."""
    posts: tuple[Post, ...] = ()
    """Messages for inboxes. The version of a run's inbox, whoever moved it, is its `mail`."""
    blobs: tuple[tuple[str, bytes], ...] = ()
    """Contents by digest (SHA-256, hex), of values too large for their events."""
    begins: str = ""
    """The run of a queue that begins with this: where many execute the log, its place must still be ours."""

    @property
    def size(self) -> int:
        """Bytes of its events and contents."""
        rows = sum(len(row.state) for append in self.appends for row in append.rows)
        return rows + sum(len(post.state) for post in self.posts) + sum(len(data) for _, data in self.blobs)


def read_rows(store: "Reading", stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
    """As `store.read`, for whoever does not ask for positions.

    A store that gives positions afterwards (PostgreSQL) would write them for that, and wait for its disk.
    """
    read: Callable[[str, int, int | None], list[Row]] = getattr(store, "read_unplaced", store.read)
    return read(stream, after, limit)


class Refusal(Struct, frozen=True):
    """Why a unit was not stored: this stream was not where it was expected to be."""

    stream: str
    expected: int
    found: int


class Reading(Protocol):
    """What can be asked of a log of streams and its dispatch table."""

    url: str

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """Rows of one stream with version > `after`, in order; at most `limit`."""
        ...

    def tail(self, stream: str) -> Tail:
        """Last version and hash of a stream; `Tail()` when it does not exist."""
        ...

    def blob(self, digest: str) -> bytes:
        """A content by its digest. Raises `StoreCorrupt` when it is missing or is not what it was."""
        ...

    def blobs(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests of all contents, greater than `after`, in order."""
        ...

    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Rows of all streams with position > `after`, in the order of commit."""
        ...

    def position(self) -> int:
        """Position of the last row, 0 for an empty log."""
        ...

    def work(self, run_id: str) -> Work | None:
        """The run's row of `work`."""
        ...

    def due(self, now: float, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Ids of runs that want attention: due ones (pending or waiting) first, then those with mail.

        Of those that are done only `continued` ones: their mail is for the run that goes on. Those that wait
        for a place in a queue are not among them (see `queued`), nor those that are for a worker with a tag
        which is not one of `tags`.
        """
        ...

    def mail_elsewhere(self, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Ids of runs with mail that wait for a place in a queue, or for a worker with another tag."""
        ...

    def running(self, after: str = "", limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Ids of runs in state `running` greater than `after`, in order: what a new owner must recover."""
        ...

    def next_due(self, now: float, tags: Sequence[str] = ANY_WORKER) -> float | None:
        """The earliest `due_at` later than `now`."""
        ...

    @property
    def queued(self) -> Crowded:
        """What can be asked about the runs in queues."""
        ...

    def streams(self, prefix: str) -> list[str]:
        """Names of the streams that begin so, in order."""
        ...

    def changed(self) -> bool:
        """Whether anybody else has committed since the last time this was asked; cheap."""
        ...

    def all_work(self) -> list[tuple[Work, int]]:
        """The whole `work` table with `mail`, by run id."""
        ...

    def close(self) -> None:
        """Close everything; who executes it, lets go first. Idempotent."""
        ...


class Store(Reading, Protocol):
    """A log of streams with its dispatch table."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        """Store the units in one durable transaction, in order; a refused one does not hurt the others.

        Returns for each unit None (stored) or why it was refused. Raises a `StoreError` when
        nothing was stored, or when that is not known; the log then asks `read` what happened.
        """
        ...

    def commit_all(self, units: Iterable[Unit]) -> None:
        """Store the units in one durable transaction, in order, as they come: all of them or nothing.

        They are not held in memory together: this is how a whole log comes in. Whoever makes them may read
        the store meanwhile and sees nothing of them yet. What making them raises is raised here, and
        nothing was stored; `AppendRefused` when one of them is refused.
        """
        ...

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        """Replace the whole `work` table by these rows (with their `mail`)."""
        ...

    def hold(self, owner: str) -> None:
        """Become the store's one executor. Raises `StoreBusy` naming the holder."""
        ...

    def holding(self) -> bool:
        """Whether `hold` still stands: nobody has taken the store over by force."""
        ...

    def release(self) -> None:
        """Stop being the executor. Idempotent."""
        ...
