"""The port: what the engine asks of a store, and nothing more.

SQLite and memory implement it; `refold.testing.StoreConformance` is the suite any store must pass.
All methods are synchronous and thread-safe; `commit` is called by one thread at a time.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from .stream import Row, Tail
from .work import Work


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


class Unit(Struct, frozen=True):
    """What is stored whole or not at all."""

    appends: tuple[Append, ...]
    work: Work | None = None
    """Row of `work` to write in the same transaction (all columns but `mail`)."""
    mail: tuple[str, int] | None = None
    """`(run_id, version)`: the run's inbox has grown to this version."""


class Refusal(Struct, frozen=True):
    """Why a unit was not stored: this stream was not where it was expected to be."""

    stream: str
    expected: int
    found: int


class Store(Protocol):
    """A log of streams with its dispatch table."""

    url: str

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        """Store the units in one durable transaction, in order; a refused one does not hurt the others.

        Returns for each unit None (stored) or why it was refused. Raises a `StoreError` when
        nothing was stored, or when that is not known; the log then asks `read` what happened.
        """
        ...

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """Rows of one stream with version > `after`, in order; at most `limit`."""
        ...

    def tail(self, stream: str) -> Tail:
        """Last version and hash of a stream; `Tail()` when it does not exist."""
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

    def due(self, now: float, limit: int = 1000) -> list[str]:
        """Ids of runs that want attention: due ones (pending or waiting) first, then those with mail."""
        ...

    def running(self, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of runs in state `running` greater than `after`, in order: what a new owner must recover."""
        ...

    def next_due(self, now: float) -> float | None:
        """The earliest `due_at` later than `now`."""
        ...

    def changed(self) -> bool:
        """Whether anybody else has committed since the last time this was asked; cheap."""
        ...

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        """Replace the whole `work` table by these rows (with their `mail`)."""
        ...

    def all_work(self) -> list[tuple[Work, int]]:
        """The whole `work` table with `mail`, by run id."""
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

    def close(self) -> None:
        """Release and close everything. Idempotent."""
        ...
