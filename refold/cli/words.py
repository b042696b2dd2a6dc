"""What the commands that look at runs have in common: words and colours for how a run stands."""

from datetime import datetime
from typing import Any

from ..events.clock import SystemClock, moment, to_datetime
from ..events.errors import RunNotFound
from ..events.store import Reading
from ..events.stream import Row
from .text import Span, clock, visible

STATUS_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "running": "bold cyan",
    "waiting": "cyan",
    "pending": "dim",
    "paused": "yellow",
    "continued": "green",
    "terminated": "bold yellow",
    "compensating": "bold yellow",
    "compensated": "yellow",
    "compensation_failed": "bold red",
}

NOBODY = "nobody executes the store now, so nothing will happen: refold worker FILE.py"
"""Of runs that are not over, as the log says: who executed them may have been killed."""


def status_span(status: str) -> Span:
    """A status in its colour."""
    return visible(status), STATUS_STYLES.get(status, "")


def now() -> datetime:
    return to_datetime(SystemClock().now())


def took(row: dict[str, Any]) -> float | None:
    """Seconds from its start to its end, or until now."""
    if row["wall_s"] is not None:
        return float(row["wall_s"])
    started = moment(row["started_at"])
    return None if started is None else (now() - started).total_seconds()


def blocked(reason: dict[str, Any] | None) -> str:
    """What a run waits for, in words."""
    if not reason:
        return ""
    due = f" until {clock(reason['due_at'])}" if reason.get("due_at") else ""
    if reason["type"] == "event":
        return f"waits for event {visible(reason['name'])}{due}"
    if reason["type"] == "retry":
        return f"tries step {reason['step']} again at {clock(reason['due_at'])}"
    if reason["type"] in ("approval", "input"):
        return f"waits for {reason['type']} at {visible(reason['name'])}{due}"
    if reason["type"] == "child":
        return f"waits for its child {visible(reason['run_id'])}"
    if reason["type"] == "in_doubt":
        return f"step {visible(reason['key'])} is in doubt: say what it did"
    if reason["type"] == "paused":
        return "paused"
    if reason["type"] == "queue":
        key = f" ({visible(reason['key'])})" if reason["key"] else ""
        return f"waits for a place in queue {visible(reason['name'])}{key}"
    if reason["type"] == "worker":
        return f"waits for a worker with tag {visible(reason['tag'])}"
    if reason["type"] == "timer" and not reason["timer"]:
        return f"begins at {clock(reason['due_at'])}"
    return f"sleeps{due}" if reason["type"] == "timer" else f"waits for {visible(reason['type'])}{due}"


def stream_of(store: Reading, run_id: str) -> list[Row]:
    rows = store.read(run_id) if "/" not in run_id else []
    if not rows:
        raise RunNotFound(run_id)
    return rows
