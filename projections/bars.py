"""Bars: the stretches of a lane as kinds in the cells of an axis of time, for a terminal or a picture."""

from datetime import datetime

from .lanes import Lane

KINDS = {
    "wait": "waiting",
    "retry": "until the next attempt",
    "paused": "paused",
    "child": "child runs",
    "run": "running",
    "undo": "undoing",
    "cancelled": "given up",
    "failed": "failed",
    "cut": "cut off",
}
"""What each kind of stretch means; the later ones cover the earlier ones in one cell."""
_TROUBLE = ("cancelled", "failed", "cut")
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


class Axis:
    """From moments to cells."""

    def __init__(self, start: datetime, end: datetime, width: int) -> None:
        self.start, self.width = start, width
        self.total_s = max((end - start).total_seconds(), 1e-6)

    def cell(self, at: datetime) -> int:
        """The cell of a moment."""
        share = (at - self.start).total_seconds() / self.total_s
        return min(max(int(share * self.width), 0), self.width - 1)


def cells(lane: Lane, axis: Axis, end: datetime) -> list[str]:
    """The kind in each cell, empty where there is nothing; what is not over goes on to `end`.

    In a lane that many share, one that failed is a point where it did: it must not hide the others.
    """
    found = [""] * axis.width
    first, per_cell = axis.start.timestamp(), axis.total_s / axis.width
    last, top = end.timestamp(), axis.width - 1

    def paint(begin: int, stop: int, kind: str) -> None:
        rank = _RANK[kind]
        for place in range(begin, stop + 1):
            if not found[place] or rank > _RANK[found[place]]:
                found[place] = kind

    for segment in lane.segments:
        until = last if segment.end is None else segment.end.timestamp()
        begin = min(max(int((segment.start.timestamp() - first) / per_cell), 0), top)
        stop = min(max(int((until - first) / per_cell), 0), top)
        if lane.steps > 1 and segment.kind in _TROUBLE:
            paint(begin, stop, "run")
            begin = stop
        paint(begin, stop, segment.kind)
    return found


def stretches(kinds: list[str]) -> list[tuple[int, int, str]]:
    """Neighbouring cells of one kind together: the first, the one after the last, the kind."""
    found: list[tuple[int, int, str]] = []
    start = 0
    for place in range(1, len(kinds) + 1):
        if place == len(kinds) or kinds[place] != kinds[start]:
            if kinds[start]:
                found.append((start, place, kinds[start]))
            start = place
    return found
