"""Concurrency keys (`lock/KEY`): which run holds one, and who was refused it."""

from datetime import datetime

from .event import Event


class LockTaken(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Stream `lock/KEY`. The run holds the key from here on; stored with its start."""

    TAG = "lock.taken"
    run_id: str
    workflow: str = ""


class LockFreed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Stream `lock/KEY`. The run no longer holds the key; stored with its end."""

    TAG = "lock.freed"
    run_id: str


class LockRefused(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Stream `lock/KEY`. Somebody wanted the key while another run held it."""

    TAG = "lock.refused"
    holder: str
    """The run that held it …"""
    since: datetime
    """… and since when."""
    holds: str = ""
    """The holder's workflow."""
    run_id: str = ""
    """The run that was to have it; empty: one that was to be started under an id of its own."""
    workflow: str = ""
    """That run's workflow."""
