"""The eventsourcing library's view of a store on PostgreSQL."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
    Subscription,
)

from .store import Append, Refusal, Unit
from .stream import Row, Tail, row_hash


class LibraryRecorder(ApplicationRecorder):
    """The library's methods, by those of a `Store`."""

    @abstractmethod
    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        """See `Store.commit`."""

    @abstractmethod
    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        """See `Store.read`."""

    @abstractmethod
    def tail(self, stream: str) -> Tail:
        """See `Store.tail`."""

    @abstractmethod
    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        """See `Store.scan`."""

    @abstractmethod
    def position(self) -> int:
        """See `Store.position`."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int]:
        """The library's way to append: the unique key is its only check, the hashes are made here."""
        appends: list[Append] = []
        tails: dict[str, Tail] = {}
        for event in stored_events:
            stream = _stream(event.originator_id)
            version = event.originator_version
            before = tails.get(stream) or (self.tail(stream) if version > 1 else Tail())
            last = row_hash(before.hash, stream, version, event.topic, event.state)
            row = Row(stream, version, event.topic, event.state, last)
            tails[stream] = Tail(version, last)
            appends.append(Append(stream, version - 1, [row], before.hash if version > 1 else b""))
        (refusal,) = self.commit([Unit(tuple(appends))])
        if refusal is not None:
            raise IntegrityError(f"{refusal.stream} is at version {refusal.found}, not {refusal.expected}")
        rows = chain.from_iterable(append.rows for append in appends)
        self.position()
        return [self.read(row.stream, row.version - 1, 1)[0].position for row in rows]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Events of one stream, as the library's own."""
        rows = self.read(_stream(originator_id), gt or 0)
        wanted = [row for row in rows if lte is None or row.version <= lte]
        return [
            StoredEvent(originator_id, row.version, row.tag, row.state)
            for row in (wanted[::-1] if desc else wanted)[:limit]
        ]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events in the order of their positions, as the library's own."""
        after = (start or 0) - (inclusive_of_start and start is not None)
        found: list[Notification] = []
        while len(found) < limit and (rows := self.scan(after, max(limit, 100))):
            for row in rows:
                if stop is not None and row.position > stop:
                    return found
                if (not topics or row.tag in topics) and len(found) < limit:
                    found.append(Notification(row.stream, row.version, row.tag, row.state, row.position))
            after = rows[-1].position
        return found

    def max_notification_id(self) -> int | None:
        """The last position; None when there is no event."""
        return self.position() or None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Not offered: whoever follows a log asks `scan` again, `changed` tells when."""
        raise NotImplementedError("follow the log with scan(); changed() tells when to look")


def _stream(originator_id: UUID | str) -> str:
    return originator_id.hex if isinstance(originator_id, UUID) else originator_id
