"""`refold runs`: a page of the runs of a store, from its read models."""

import argparse
from typing import Any

from .exits import OK
from .screen import Screen
from .stores import list_runs, looking
from .text import Span, as_json, clip, clock, seconds, usd, visible, visible_lines
from .words import blocked, status_span, took


def runs(args: argparse.Namespace, screen: Screen) -> int:
    """`refold runs`."""
    filters = {name: getattr(args, name) for name in ("status", "workflow", "attention", "limit", "cursor")}
    with looking(args.store) as store:
        page = list_runs(store, filters)
    if args.json:
        screen.raw(as_json({"runs": page.runs, "cursor": page.cursor}))
        return OK
    if not page.runs:
        wanted = [f"--{n} {filters[n]}" for n in ("status", "workflow", "attention") if filters[n]]
        screen.print(
            f"no runs{' with ' + visible(' '.join(wanted)) if wanted else ''} in {visible(store.url)}"
        )
        return OK
    rows = [_run_cells(row) for row in page.runs]
    screen.table(
        ("run", "workflow", "status", "started (UTC)", "took", "steps", "cost", "note"), rows,
        right="took steps cost", flex=7,
    )  # fmt: skip
    if page.cursor:
        screen.print(("more: add --limit, or --cursor ", "dim"), (f"'{visible(page.cursor)}'", "dim"))
    return OK


def _run_cells(row: dict[str, Any]) -> list[str | Span]:
    name = visible(row["workflow"]) + ("" if row["version"] == "1" else f" {visible(row['version'])}")
    steps = f"{row['steps_completed']}/{row['steps_total']}"
    return [
        (clip(visible(row["run_id"]), 48), "bold"),
        name,
        status_span(row["status"]),
        clock(row["started_at"]),
        seconds(took(row)),
        steps,
        usd(row["cost_usd"]),
        _note(row),
    ]


def _note(row: dict[str, Any]) -> Span:
    if row["attention"] != "none":
        reason = visible_lines(row["attention_reason"] or "")[0]
        return f"{visible(row['attention'])}: {reason}".removesuffix(": "), "bold yellow"
    if row["error_type"]:
        return visible(f"{row['error_type']}: {row['error_message'] or ''}").removesuffix(": "), "red"
    if row["status"] in ("cancelled", "terminated"):
        return visible(row["error_message"] or ""), "yellow"
    return blocked(row["blocked_on"]), "cyan"
