"""What can be read of a store on PostgreSQL: streams in their order, and the dispatch table."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from .blobs import checked
from .postgres_batch import name_of, text_of
from .postgres_library import LibraryRecorder
from .queues_postgres import PostgresQueued
from .stream import Row, Tail, next_text
from .work import ANY_WORKER, Work

_EVERYTHING = 2**62


class PostgresReader(LibraryRecorder):
    """The reading half of `PostgresStore`."""

    url: str

    @abstractmethod
    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a named query."""

    @abstractmethod
    def _positioned(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The same, after every commit that is visible by now has its position."""

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """Rows of one stream with version > `after`, in order."""
        rows = self._history("read", stream, after, limit)
        if rows and not rows[-1].position:  # nobody has asked for the order of the whole log since
            self.position()
            rows = self._history("read", stream, after, limit)
        return rows

    def read_unplaced(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """The same, without positions, in half the time."""
        return self._history("read_unplaced", stream, after, limit)

    def _history(self, query: str, stream: str, after: int, limit: int | None) -> list[Row]:
        limit = _EVERYTHING if limit is None else limit
        found = self._rows(query, stream=text_of(stream), after=after, limit=limit)
        if "\\" in stream or "\0" in stream:
            return [Row(stream, *rest) for _, *rest in found]
        return list(map(Row._make, found))

    def tail(self, stream: str) -> Tail:
        """Last version and hash of a stream."""
        found = self._rows("tails", streams=[text_of(stream)])
        return Tail(*found[0][1:]) if found else Tail()

    def blob(self, digest: str) -> bytes:
        """A content by its digest."""
        found = self._rows("blob", digest=digest)
        return checked(digest, found[0][0] if found else None, self.url)

    def blobs(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests of all contents, greater than `after`, in order."""
        return [digest for (digest,) in self._rows("blobs", after=after, limit=limit)]

    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Rows of all streams with position > `after`, in the order of commit."""
        found = self._positioned("scan", after=after, limit=limit)
        return [Row(name_of(stream), *rest) for stream, *rest in found]

    def position(self) -> int:
        """Position of the last row."""
        return int(self._positioned("position")[0][0])

    # ---- the dispatch table

    def work(self, run_id: str) -> Work | None:
        """The run's row of `work`."""
        found = self._rows("work", run=text_of(run_id))
        return Work(run_id, *found[0][1:]) if found else None

    def due(self, now: float, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Runs that want attention: due ones first, then those with mail."""
        asked: dict[str, Any] = {"limit": limit, "tags": list(tags)}
        found = dict.fromkeys(name_of(run) for (run,) in self._rows("due", now=now, **asked))
        if len(found) < limit:
            found.update(dict.fromkeys(name_of(run) for (run,) in self._rows("mail", **asked)))
        return list(found)[:limit]

    def mail_elsewhere(self, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Runs with mail that wait for a place in a queue, or for a worker with another tag."""
        found = self._rows("mail_elsewhere", limit=limit, tags=list(tags))
        return [name_of(run) for (run,) in found]

    def running(self, after: str = "", limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Ids of runs in state `running` greater than `after`."""
        found = self._rows("running", after=text_of(after), limit=limit, tags=list(tags))
        return [name_of(run) for (run,) in found]

    def next_due(self, now: float, tags: Sequence[str] = ANY_WORKER) -> float | None:
        """The earliest `due_at` later than `now`."""
        found: float | None = self._rows("next_due", now=now, tags=list(tags))[0][0]
        return found

    @property
    def queued(self) -> PostgresQueued:
        """What waits in queues."""
        return PostgresQueued(self._rows)

    def streams(self, prefix: str) -> list[str]:
        """Names of the streams that begin so, in order."""
        first = text_of(prefix)
        return [name_of(name) for (name,) in self._rows("streams", first=first, after=next_text(first))]

    def all_work(self) -> list[tuple[Work, int]]:
        """The whole `work` table with `mail`."""
        return [(Work(name_of(run), *rest), mail) for run, *rest, mail in self._rows("all_work")]
