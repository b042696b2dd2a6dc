"""The ends of runs, for projections that close their rows with them."""

from collections.abc import Sequence

from ..events.stream import Row as Entry
from . import reading as r
from .projection import Key

END_TAGS = (
    "run.completed", "run.failed", "run.cancelled", "run.terminated", "run.continued", "run.compensated",
    "run.compensation_failed",
)  # fmt: skip


def left_open(entry: Entry, event: r.RunEnded) -> Sequence[Key]:
    """Keys of rows by run and number, whatever they may be, that the end has found open."""
    return [(entry.stream, number) for number in event.open]
