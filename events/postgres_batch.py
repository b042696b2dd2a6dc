"""What one commit stores on PostgreSQL, as the arrays of one statement; and names as text it can keep."""

import re
from collections.abc import Sequence
from typing import Any

from .store import Unit
from .stream import INBOX, Row, Tail
from .work import Work

_ESCAPED = re.compile(r"\\([\\0])")


class Batch:
    """What one commit stores, as the arrays that its statement takes."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.works: dict[str, Work] = {}
        self.blobs: dict[str, bytes] = {}
        self.heads: list[tuple[str, int, bytes]] = []
        """Of each stream: what must be its last row."""
        self.begins: list[str] = []
        """Runs whose places must be ours still."""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> "Batch | None":
        """All units together; None when they need a look at the tails first.

        That is so for messages, whose version is not known before, for an append of nothing, whose
        expectation no row would check, and for units that contradict each other.
        """
        batch, ends = cls(), dict[str, Tail]()
        for unit in units:
            if unit.posts:
                return None
            for append in unit.appends:
                end = ends.get(append.stream)
                if not append.rows or append.stream.endswith(INBOX):
                    return None
                if end is None:
                    batch.heads.append((append.stream, append.expected, append.after))
                elif end.version != append.expected or (append.after and append.after != end.hash):
                    return None
                ends[append.stream] = Tail(append.rows[-1].version, append.rows[-1].hash)
            batch.add(unit, ())
        return batch

    def add(self, unit: Unit, posted: Sequence[Row]) -> None:
        """The rows of one more unit."""
        for append in unit.appends:
            self.rows += append.rows
        self.rows += posted
        for work in unit.works:
            self.works[work.run_id] = work
        self.blobs.update(unit.blobs)
        if unit.begins:
            self.begins.append(unit.begins)

    @property
    def for_others(self) -> bool:
        """Whether something waits for a place in a queue, or for a worker with a tag, from now on."""
        return any(work.state == "pending" and (work.queue or work.run_on) for work in self.works.values())

    def parameters(self) -> dict[str, Any]:
        """Arrays by name; rows of `work` in the order in which everybody locks them."""
        rows, works = self.rows, [self.works[run_id] for run_id in sorted(self.works)]
        return {
            "size": len(rows),
            "streams": texts([row.stream for row in rows]),
            "versions": [row.version for row in rows],
            "tags": [row.tag for row in rows],
            "states": [row.state for row in rows],
            "hashes": [row.hash for row in rows],
            "heads": texts([stream for stream, _, _ in self.heads]),
            "expected": [expected for _, expected, _ in self.heads],
            "after": [after for _, _, after in self.heads],
            "runs": texts([work.run_id for work in works]),
            "workflows": [work.workflow for work in works],
            "pins": [work.version for work in works],
            "conditions": [work.state for work in works],
            "dues": [work.due_at for work in works],
            "seen": [work.seen for work in works],
            "generations": [work.generation for work in works],
            "statuses": [work.status for work in works],
            "queues": [work.queue for work in works],
            "priorities": [work.priority for work in works],
            "queue_keys": [work.queue_key for work in works],
            "tags_wanted": [work.run_on for work in works],
            "begun": [work.begun_at for work in works],
            "begins": texts(self.begins),
            "digests": list(self.blobs),
            "contents": list(self.blobs.values()),
        }


def text_of(name: str) -> str:
    """The name as text that PostgreSQL can keep: it has no NUL."""
    if "\0" in name or "\\" in name:
        return name.replace("\\", "\\\\").replace("\0", "\\0")
    return name


def texts(names: Sequence[str]) -> list[str]:
    return [text_of(name) for name in names]


def name_of(text: str) -> str:
    """The name that `text_of` made this text of."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda found: "\0" if found[1] == "0" else "\\", text)
