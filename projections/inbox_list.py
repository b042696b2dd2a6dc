"""What waits, and for whom: lists of gates, waits and timers, each from one index."""

from typing import Any

from ..events.errors import ValueRefused
from .gates import GATES
from .records import Record, select
from .timers import TIMERS
from .views import Views
from .waits import WAITS


def list_gates(
    views: Views,
    *,
    open_only: bool = True,
    voter: str | None = None,
    run_id: str | None = None,
    due_before: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[Record], str | None]:
    """Gates, those opened first first, and the cursor of the next page, or None.

    Args:
        voter: only those that this one may vote on now: named or nobody is, not excluded, not voted yet.
        due_before: only those with a deadline before this time, in the order of the deadlines.

    Raises `ValueRefused` for a cursor that did not come from here.
    """
    order, where, values = ("opened_at" if due_before is None else "due_at"), ["1 = 1"], list[Any]()
    if open_only or due_before is not None:
        where.append("status = 'open'")
    for condition, value in (("run_id = ?", run_id), ("due_at IS NOT NULL AND due_at < ?", due_before)):
        if value is not None:
            where.append(condition)
            values.append(value)
    if voter is not None:
        where.append(views.may_vote)
        values += [voter] * 3
    if cursor is not None:
        at, first, rest = cursor.partition("/")
        gate, second, run = rest.partition("/")
        if not first or not second or not gate.isdecimal():
            raise ValueRefused(f"{cursor!r} is no cursor: pass the one that came with the page before")
        where.append(f"({order}, run_id, gate) > (?, ?, ?)")
        values += [at, run, int(gate)]
    tail = f"WHERE {' AND '.join(where)} ORDER BY {order}, run_id, gate LIMIT ?"
    found = select(views, GATES.table, tail, *values, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], None if last is None else f"{last[order]}/{last['gate']}/{last['run_id']}"


def find_gate(views: Views, token: str) -> Record | None:
    """The gate of this token, or None."""
    found = select(views, GATES.table, "WHERE token <> '' AND token = ? LIMIT 1", token)
    return found[0] if found else None


def list_waits(views: Views, run_id: str) -> list[Record]:
    """A run's waits for events, in order, and first the row of the signals that came early."""
    return select(views, WAITS.table, "WHERE waits.run_id = ? ORDER BY wait", run_id)


def waiting_for(views: Views, name: str, limit: int = 50) -> list[Record]:
    """Open waits for the event of this name, the oldest first."""
    tail = "WHERE status = 'open' AND name = ? ORDER BY opened_at, run_id LIMIT ?"
    return select(views, WAITS.table, tail, name, limit)


def list_timers(views: Views, run_id: str) -> list[Record]:
    """A run's timers, in order."""
    return select(views, TIMERS.table, "WHERE timers.run_id = ? ORDER BY timer", run_id)


def due_timers(views: Views, before: str, limit: int = 1000) -> list[Record]:
    """Open timers that are due before this time, the earliest first."""
    tail = "WHERE status = 'open' AND due_at < ? ORDER BY due_at, run_id, timer LIMIT ?"
    return select(views, TIMERS.table, tail, before, limit)
