"""`refold show RUN`: one run, folded from the log itself, so that it is never behind."""

import argparse
from typing import Any

from ..projections.timelines import Timeline, timeline_of
from . import timeline
from .exits import OK
from .screen import Screen
from .stores import looking
from .text import as_json, clip, clock, compact, seconds, usd, visible, visible_lines
from .words import blocked, now, status_span, stream_of, took


def show(args: argparse.Namespace, screen: Screen) -> int:
    """`refold show RUN`: folded from the log itself, so it is never behind."""
    with looking(args.store) as store:
        rows = stream_of(store, args.run)
    found = timeline_of(rows, full=args.all or args.json)
    run = found.record()
    if args.json:
        screen.raw(as_json({"run": run, "steps": found.steps(), "waits": _waits(found)}))
        return OK
    _head(screen, run)
    screen.print()
    timeline.draw(screen, found.lanes, found.start, found.end or now(), found.marks)
    _troubles(screen, run, found)
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


def _head(screen: Screen, run: dict[str, Any]) -> None:
    title = "" if run["title"] == run["workflow"] else f"  {visible(run['title'])}"
    screen.print((visible(run["run_id"]), "bold"), "  ", status_span(run["status"]), title)
    version = f"{visible(run['workflow'])} version {visible(run['version'])}"
    _field(
        screen, "workflow", f"{version}, started {clock(run['started_at'])} UTC by {visible(run['trigger'])}"
    )
    owners = f", {run['generation']} owners" if run["generation"] > 1 else ""
    _field(screen, "took", f"{seconds(took(run))}, {seconds(run['active_s'])} of it in steps{owners}")
    _field(screen, "steps", timeline.summary(run))
    tokens = [
        f"{run[n]} {n.replace('_', ' ')}" for n in ("input_tokens", "output_tokens", "cache_tokens") if run[n]
    ]
    if cost := [text for text in (usd(run["cost_usd"]), *tokens) if text]:
        _field(screen, "cost", ", ".join(cost))
    _field(screen, "input", clip(compact(run["args"]), 400))
    if run["attributes"]:
        _field(screen, "labels", clip(compact(run["attributes"]), 400))
    if run["status"] == "completed":
        _field(screen, "result", clip(compact(run["result"]), 400))
    if run["blocked_on"]:
        _field(screen, "blocked", blocked(run["blocked_on"]))
    if run["cancel_requested"]:
        _field(screen, "cancel", f"requested: {visible(run['cancel_requested'])}")


def _field(screen: Screen, name: str, text: str) -> None:
    screen.print((f"  {name:9}", "dim"), text)


def _troubles(screen: Screen, run: dict[str, Any], found: Timeline) -> None:
    if run["attention"] != "none":
        screen.print()
        screen.print(("attention: ", "bold yellow"), (visible(run["attention"]), "bold yellow"))
        screen.block(visible_lines(run["attention_reason"] or ""))
    if run["status"] == "failed":
        screen.print()
        screen.print(("failed with ", "bold red"), visible(run["error_type"] or ""))
        screen.block(visible_lines(run["error_message"] or ""))
    failures = [row for row in found.attempts if row.error_type]
    if failures:
        screen.print()
        screen.print(("failed attempts", "dim"))
        for row in failures[-8:]:
            text = visible(f"{row.error_type}: {row.error_message}")
            screen.print(f"  {visible(row.key)} attempt {row.attempt}  ", (clip(text, 200), "red"))
        if len(failures) > 8:
            screen.print((f"  and {len(failures) - 8} earlier ones: --json has all", "dim"))
