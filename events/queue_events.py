"""Limits of a queue (`queue/NAME`): each event says all of them, so the last one alone counts."""

from .event import Event


class QueueConfigured(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Stream `queue/NAME`. These are the queue's limits from here on; what holds a place keeps it."""

    TAG = "queue.configured"
    concurrency: int | None = None
    """How many of its runs may have begun and not ended; None: any number, 0: none begins."""
    per_key: int | None = None
    """The same for the runs of one queue key."""
    rate: int | None = None
    """How many may begin …"""
    period_s: float = 0.0
    """… within so many seconds; 0 with `rate` None."""
    declared: bool = False
    """Said by a program's code, not by a person."""
