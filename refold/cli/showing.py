"""`refold show RUN`: one run, folded from the log itself, so that it is never behind."""

import argparse
from typing import Any

from ..events.hold import executor_of
from ..projections.timelines import Timeline, timeline_of
from .exits import OK
from .portrait import draw, uncollected
from .screen import Screen
from .stores import looking
from .text import as_json
from .watching import follow
from .words import NOBODY, stream_of


def show(args: argparse.Namespace, screen: Screen) -> int:
    """`refold show RUN`."""
    with looking(args.store) as store:
        rows = stream_of(store, args.run)
        if args.follow:
            return follow(args, screen, store, rows)
        executed = executor_of(store) is not None
    with uncollected():
        found = timeline_of(rows, full=args.all or args.json, records=args.json)
        if args.json:
            everything = {"run": found.record(), "steps": found.steps(), "waits": _waits(found)}
            screen.raw(as_json(everything))
        else:
            draw(screen, found)
            if not executed and found.run.ended_at is None:
                screen.print((NOBODY, "yellow"))
    return OK


def _waits(found: Timeline) -> list[dict[str, Any]]:
    """All that it waited for: time, events, people, items, other runs, and whoever had paused it."""
    return [
        {"name": lane.name, "kind": lane.kind, "number": lane.number, "status": lane.status,
         "note": lane.note, "run_id": lane.run_id, "from": lane.segments[0].start,
         "to": lane.segments[-1].end}
        for lane in found.lanes
        if lane.kind not in ("step", "undo") and lane.segments
    ]  # fmt: skip
