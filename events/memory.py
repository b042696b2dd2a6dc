"""The store in memory: the same promises as a file except that it ends with the process."""

from collections.abc import Iterable, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from eventsourcing.popo import POPOApplicationRecorder

from .admission import admit
from .blobs import checked
from .errors import AppendRefused, StoreBusy, StoreError
from .queues_memory import MemoryQueued
from .store import Refusal, Unit
from .stream import INBOX, Row, Tail, row_hash
from .work import ANY_WORKER, Work


class MemoryStore(POPOApplicationRecorder):
    """A `Store` without a file, for tests and for runs that need not survive.

    Everybody who shares it shares this object, so `changed` cannot tell others from oneself and
    counts every commit.
    """

    url = "memory://"

    def __init__(self) -> None:
        super().__init__()
        self._hashes: list[bytes] = []
        self._work: dict[str, Work] = {}
        self._mail: dict[str, int] = {}
        self._blobs: dict[str, bytes] = {}
        self._asked_at = 0
        self._owner: str | None = None
        self._closed = False

    # ---- writing

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        """Store the units in order; see `Store.commit`."""
        with self._database_lock:
            self._check_open()
            refusals = [self._commit_one(unit) for unit in units]
        self._notify_listeners()
        return refusals

    def commit_all(self, units: Iterable[Unit]) -> None:
        """Store all units or nothing; see `Store.commit_all`."""
        made = list(units)
        with self._database_lock:
            self._check_open()
            end, work, mail, blobs = len(self._hashes), dict(self._work), dict(self._mail), dict(self._blobs)
            for unit in made:
                if (refusal := self._commit_one(unit)) is not None:
                    self._cut(end)
                    self._work, self._mail, self._blobs = work, mail, blobs
                    raise AppendRefused(refusal.stream, refusal.expected, refusal.found)
        self._notify_listeners()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("this memory store is closed; what it held is gone")

    def _cut(self, end: int) -> None:
        """Forget all rows behind this one."""
        for event in self._stored_events[end:]:
            del self._stored_events_index[str(event.originator_id)][event.originator_version]
        del self._stored_events[end:], self._hashes[end:]

    def _commit_one(self, unit: Unit) -> Refusal | None:
        posted: list[Row] = []
        refusal = admit(unit, {}, self.tail, posted)
        if refusal is not None:
            return refusal
        rows = [row for append in unit.appends for row in append.rows] + posted
        self._store(rows)
        self._blobs.update(unit.blobs)
        self._dispatch(unit)
        return None

    def _store(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._stored_events_index[row.stream][row.version] = len(self._stored_events)
            self._stored_events.append(StoredEvent(row.stream, row.version, row.tag, row.state))
            self._hashes.append(row.hash)

    def _dispatch(self, unit: Unit) -> None:
        for work in unit.works:
            self._work[work.run_id] = work
            if work.run_id not in self._mail:
                self._mail[work.run_id] = self.tail(work.run_id + INBOX).version
        inboxes = {append.stream for append in unit.appends if append.stream.endswith(INBOX)}
        for stream in inboxes.union(post.stream for post in unit.posts):
            run_id = stream.removesuffix(INBOX)
            if run_id in self._mail:
                self._mail[run_id] = self.tail(stream).version

    def _update_table(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The library's way to append: the unique key is its only check, the hashes are made here."""
        for event in stored_events:
            stream, version = str(event.originator_id), event.originator_version
            previous = self.tail(stream).hash
            # One by one, so that the next event of the same stream finds this one before it.
            super()._update_table([event], **kwargs)
            self._hashes.append(row_hash(previous, stream, version, event.topic, event.state))
        end = len(self._stored_events)
        return list(range(end - len(stored_events) + 1, end + 1))

    # ---- reading

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """Rows of one stream with version > `after`, in order."""
        with self._database_lock:
            index = self._stored_events_index.get(stream)
            if not index:
                return []
            versions = range(max(after + 1, next(iter(index))), next(reversed(index)) + 1)
            return [self._row(index[version]) for version in versions[:limit] if version in index]

    def _row(self, place: int) -> Row:
        event = self._stored_events[place]
        return Row(
            str(event.originator_id),
            event.originator_version,
            event.topic,
            event.state,
            self._hashes[place],
            place + 1,
        )

    def tail(self, stream: str) -> Tail:
        """Last version and hash of a stream."""
        with self._database_lock:
            index = self._stored_events_index.get(stream)
            if not index:
                return Tail()
            version = next(reversed(index))
            return Tail(version, self._hashes[index[version]])

    def blob(self, digest: str) -> bytes:
        """A content by its digest."""
        return checked(digest, self._blobs.get(digest), self.url)

    def blobs(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests of all contents, greater than `after`, in order."""
        with self._database_lock:
            return sorted(digest for digest in self._blobs if digest > after)[:limit]

    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """Rows of all streams with position > `after`, in the order of commit."""
        with self._database_lock:
            end = min(after + limit, len(self._stored_events))
            return [self._row(place) for place in range(after, end)]

    def position(self) -> int:
        """Position of the last row."""
        return len(self._stored_events)

    # ---- the dispatch table

    def work(self, run_id: str) -> Work | None:
        """The run's row of `work`."""
        return self._work.get(run_id)

    def due(self, now: float, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Runs that want attention: due ones first, then those with mail."""
        with self._database_lock:
            ready = [(work.due_at, work.run_id) for work in self._deadlines(tags) if not _queues(work)]
            due = [run_id for at, run_id in sorted(ready) if at is not None and at <= now]
            mail = sorted(w.run_id for w in self._with_mail() if w.run_on in tags and not _queues(w))
        return list(dict.fromkeys(due + mail))[:limit]

    def mail_elsewhere(self, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Runs with mail that wait for a place in a queue, or for a worker with another tag."""
        with self._database_lock:
            found = [w for w in self._with_mail() if w.run_on not in tags or _queues(w)]
        return sorted(work.run_id for work in found if work.state != "done")[:limit]

    def _deadlines(self, tags: Sequence[str]) -> list[Work]:
        return [
            work
            for work in self._work.values()
            if work.due_at is not None and work.state in ("pending", "waiting")
            if work.run_on in tags or _queues(work)
        ]

    def _with_mail(self) -> list[Work]:
        return [work for work in self._work.values() if self._has_mail(work)]

    def _has_mail(self, work: Work) -> bool:
        over = work.state == "done" and work.status != "continued"
        return not over and self._mail[work.run_id] > work.seen

    def running(self, after: str = "", limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        """Ids of runs in state `running` greater than `after`."""
        with self._database_lock:
            found = [w for w in self._work.values() if w.state == "running" and w.run_id > after]
        return sorted(work.run_id for work in found if work.run_on in tags)[:limit]

    def next_due(self, now: float, tags: Sequence[str] = ANY_WORKER) -> float | None:
        """The earliest `due_at` later than `now`."""
        with self._database_lock:
            found = [work.due_at for work in self._deadlines(tags)]
        return min((at for at in found if at is not None and at > now), default=None)

    @property
    def queued(self) -> MemoryQueued:
        """What waits in queues."""
        return MemoryQueued(self._works)

    def _works(self) -> list[Work]:
        with self._database_lock:
            return list(self._work.values())

    def streams(self, prefix: str) -> list[str]:
        """Names of the streams that begin so, in order."""
        with self._database_lock:
            return sorted(stream for stream in self._stored_events_index if stream.startswith(prefix))

    def all_work(self) -> list[tuple[Work, int]]:
        """The whole `work` table with `mail`."""
        with self._database_lock:
            return [(self._work[run_id], self._mail[run_id]) for run_id in sorted(self._work)]

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        """Replace the whole `work` table."""
        with self._database_lock:
            self._work = {work.run_id: work for work, _ in rows}
            self._mail = {work.run_id: mail for work, mail in rows}

    def changed(self) -> bool:
        """Whether anything was committed since the last call."""
        before, self._asked_at = self._asked_at, len(self._stored_events)
        return self._asked_at != before

    # ---- owning

    def hold(self, owner: str) -> None:
        """Become the one executor of this object."""
        with self._database_lock:
            if self._owner is not None:
                raise StoreBusy(
                    f"this memory store is held by {self._owner}; only one engine at a time executes "
                    "the runs of a store: close that one first",
                    self._owner,
                )
            self._owner = owner

    def holding(self) -> bool:
        """Whether this store has an executor."""
        return self._owner is not None

    def release(self) -> None:
        """Stop being the executor."""
        self._owner = None

    def close(self) -> None:
        """Release; nothing can be stored any more, what is there can still be read."""
        self.release()
        self._closed = True


def _queues(work: Work) -> bool:
    """Whether it waits for a place in a queue."""
    return bool(work.queue) and work.state == "pending"
