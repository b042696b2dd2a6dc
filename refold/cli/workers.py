"""`refold workers`: the processes that execute a store, by the store's own knowledge."""

import argparse

import msgspec

from ..events.clock import moment
from ..events.hold import Holder
from ..events.store import Reading
from ..projections.overview import held_by, unfinished
from .exits import OK
from .reading import body_of
from .screen import Screen
from .stores import caught_up, executors_of, looking
from .text import Span, as_json, clock, count, seconds, visible
from .words import now


def workers(args: argparse.Namespace, screen: Screen) -> int:
    """`refold workers`: one process at a time executes the runs of a file, any number those on a server."""
    with looking(args.store) as store:
        holders = executors_of(store)
        last = _last_write(store)
        with caught_up(store) as views:
            held = {holder.owner: held_by(views, holder.owner) for holder in holders}
            left = unfinished(views)
    if args.json:
        found = [{**msgspec.structs.asdict(one), "alive": True, "runs": held[one.owner]} for one in holders]
        screen.raw(as_json({"workers": found, "last_write": last, "unfinished": left}))
        return OK
    if not holders:
        wrote = f"; its last event is of {clock(last)} UTC" if last else ""
        screen.print(f"nobody executes {visible(store.url)} now{wrote}")
        if left:
            waiting = count(sum(left.values()), "run that is", "runs that are")
            screen.print((f"{waiting} not over: refold worker FILE.py goes on with what there is", "yellow"))
        return OK
    rows = [_cells(holder, held[holder.owner], last) for holder in holders]
    screen.table(("worker", "pid", "host", "since (UTC)", "runs", "last write"), rows)
    return OK


def _cells(holder: Holder, held: dict[str, int], last: str | None) -> list[str | Span]:
    at = moment(last)
    ago = "" if at is None else f"{seconds(max((now() - at).total_seconds(), 0.0))} ago"
    runs = ", ".join(f"{number:,} {visible(status)}" for status, number in held.items())
    return [
        (visible(holder.owner) or "has not said", "bold"), str(holder.pid or ""), visible(holder.host),
        clock(holder.since or None), runs or "none", ago,
    ]  # fmt: skip


def _last_write(store: Reading) -> str | None:
    """When the last event of the log happened, as it is stored."""
    found = store.scan(store.position() - 1, 1)
    at = body_of(found[0]).get("at") if found else None
    return None if at is None else str(at)
