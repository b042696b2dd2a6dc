"""Streams of rows, and the hash that chains them.

A row is what a store keeps of one event. Its hash covers the hash before it, so no row can be
changed, removed or moved without every later hash (and its own) telling: SHA-256 over the stored
bytes, 1 µs an event. Canonical JSON would cost 300 times that and is not needed.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from .errors import StoreCorrupt
from .registry import decode_event, encode_event
from .types import Event

GENESIS = bytes(32)
"""Hash before the first row of a stream."""

INBOX = "/inbox"
"""Suffix of the stream that holds what others say to a run."""
KEYS = "key/"
"""Prefix of the streams that hold start keys."""
QUEUES = "queue/"
"""Prefix of the streams that hold the limits of queues."""
LOCKS = "lock/"
"""Prefix of the streams that say which run has a concurrency key."""
SCHEDULES = "schedule/"
"""Prefix of the streams of schedules."""
NO_RUNS = (KEYS, QUEUES, LOCKS, SCHEDULES)
"""Prefixes of all streams that are neither a run's nor its inbox; no run's id has a slash."""


def is_run(stream: str) -> bool:
    """Whether this is the stream of a run itself."""
    return not stream.endswith(INBOX) and not stream.startswith(NO_RUNS)


def next_text(prefix: str) -> str:
    """The first text, by code points, that is greater than all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Row(NamedTuple):
    """One event as stored."""

    stream: str
    version: int
    """1, 2, 3 … without gaps."""
    tag: str
    state: bytes
    """JSON of the event."""
    hash: bytes
    """32 bytes."""
    position: int = 0
    """Place in the whole log; 0 until committed."""

    def event(self) -> Event:
        """Decoded. Raises `UnknownEvent` or `StoreCorrupt`."""
        return decode_event(self.tag, self.state, f"{self.stream}@{self.version}")


class Tail(NamedTuple):
    """Where a stream ends: the next append expects exactly this."""

    version: int = 0
    hash: bytes = GENESIS


def row_hash(previous: bytes, stream: str, version: int, tag: str, state: bytes) -> bytes:
    """SHA-256 over the previous hash and everything the row says."""
    head = f"\x00{stream}\x00{version}\x00{tag}\x00".encode()
    return sha256(previous + head + state).digest()


def chain(stream: str, tail: Tail, events: Iterable[Event]) -> tuple[list[Row], Tail]:
    """The events as rows that follow `tail`, and the tail after them."""
    version, previous = tail
    head = f"\x00{stream}\x00".encode()
    rows: list[Row] = []
    for event in events:
        version += 1
        tag, state = event.TAG, encode_event(event)
        # `row_hash`, with what is the same for all rows made once: a third of its time
        previous = sha256(b"%b%b%d\x00%b\x00%b" % (previous, head, version, _bytes(tag), state)).digest()
        rows.append(Row(stream, version, tag, state, previous))
    return rows, Tail(version, previous)


@cache
def _bytes(tag: str) -> bytes:
    return tag.encode()


def check_chain(rows: Sequence[Row], tail: Tail = Tail()) -> Tail:  # noqa: B008 - immutable
    """Check rows that follow `tail`; returns the new tail, or raises `StoreCorrupt` naming the row."""
    version, previous = tail
    for row in rows:
        version += 1
        if row.version != version:
            raise StoreCorrupt(
                f"stream {row.stream!r}: version {version} is missing, found {row.version}; restore a backup"
            )
        if row_hash(previous, row.stream, version, row.tag, row.state) != row.hash:
            raise StoreCorrupt(
                f"stream {row.stream!r} version {version} ({row.tag}, position {row.position}) "
                "does not match its hash: the row, or the one before it, was changed; restore a backup"
            )
        previous = row.hash
    return Tail(version, previous)
