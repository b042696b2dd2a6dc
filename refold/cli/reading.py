"""`refold runs`, `show` and `events`: looking, while another process executes the store or none does."""

import argparse
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from ..events.clock import SystemClock, moment, to_datetime
from ..events.errors import RunNotFound
from ..events.registry import look_at_event
from ..events.store import Store
from ..events.stream import INBOX, Row
from ..projections.lanes import claims, lanes_of
from ..projections.own import fold_run, fold_steps
from . import timeline
from .exits import OK
from .screen import Screen
from .stores import existing, list_runs
from .text import Line, Span, as_json, clip, clock, compact, seconds, usd, visible, visible_lines

PAGE = 1_000
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


def status_span(status: str) -> Span:
    """A status in its colour."""
    return visible(status), STATUS_STYLES.get(status, "")


def now() -> datetime:
    return to_datetime(SystemClock().now())


# ---- runs ---------------------------------------------------------------------------------------


def runs(args: argparse.Namespace, screen: Screen) -> int:
    """`refold runs`."""
    filters = {name: getattr(args, name) for name in ("status", "workflow", "attention", "limit", "cursor")}
    with existing(args.store) as store:
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
    started = moment(row["started_at"])
    took = (
        row["wall_s"] if row["wall_s"] is not None else (now() - started).total_seconds() if started else None
    )
    name = visible(row["workflow"]) + ("" if row["version"] == "1" else f" {visible(row['version'])}")
    steps = f"{row['steps_completed']}/{row['steps_total']}"
    return [
        (clip(visible(row["run_id"]), 48), "bold"),
        name,
        status_span(row["status"]),
        clock(row["started_at"]),
        seconds(took),
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
    return f"sleeps{due}" if reason["type"] == "timer" else f"waits for {visible(reason['type'])}{due}"


# ---- show ---------------------------------------------------------------------------------------


def show(args: argparse.Namespace, screen: Screen) -> int:
    """`refold show RUN`: folded from the log itself, so it is never behind."""
    with existing(args.store) as store:
        rows = _stream(store, args.run)
    run, steps = fold_run(rows), fold_steps(rows)
    events = [look_at_event(row.tag, row.state, row) for row in rows]
    lanes = lanes_of(steps, events, full=args.all)
    if args.json:
        every = lanes_of([], events, full=True)
        waits = [
            {"name": lane.name, "kind": lane.kind, "status": lane.status, "from": lane.segments[0].start,
             "to": lane.segments[0].end}
            for lane in every
        ]  # fmt: skip
        screen.raw(as_json({"run": run, "steps": steps, "waits": waits}))
        return OK
    _head(screen, run)
    screen.print()
    start = moment(run["started_at"]) or now()
    end = moment(run["ended_at"]) or now()
    timeline.draw(screen, lanes, start, end, claims(events))
    _troubles(screen, run, steps)
    return OK


def _stream(store: Store, run_id: str) -> list[Row]:
    rows = store.read(run_id) if "/" not in run_id else []
    if not rows:
        raise RunNotFound(run_id)
    return rows


def _head(screen: Screen, run: dict[str, Any]) -> None:
    title = "" if run["title"] == run["workflow"] else f"  {visible(run['title'])}"
    screen.print((visible(run["run_id"]), "bold"), "  ", status_span(run["status"]), title)
    version = f"{visible(run['workflow'])} version {visible(run['version'])}"
    _field(
        screen, "workflow", f"{version}, started {clock(run['started_at'])} UTC by {visible(run['trigger'])}"
    )
    took = run["wall_s"]
    if took is None and (started := moment(run["started_at"])) is not None:
        took = (now() - started).total_seconds()
    owners = f", {run['generation']} owners" if run["generation"] > 1 else ""
    _field(screen, "took", f"{seconds(took)}, {seconds(run['active_s'])} of it in steps{owners}")
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


def _troubles(screen: Screen, run: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    if run["attention"] != "none":
        screen.print()
        screen.print(("attention: ", "bold yellow"), (visible(run["attention"]), "bold yellow"))
        screen.block(visible_lines(run["attention_reason"] or ""))
    if run["status"] == "failed":
        screen.print()
        screen.print(("failed with ", "bold red"), visible(run["error_type"] or ""))
        screen.block(visible_lines(run["error_message"] or ""))
    failures = [row for row in steps if row["error_type"]]
    if failures:
        screen.print()
        screen.print(("failed attempts", "dim"))
        for row in failures[-8:]:
            text = visible(f"{row['error_type']}: {row['error_message']}")
            screen.print(f"  {visible(row['key'])} attempt {row['attempt']}  ", (clip(text, 200), "red"))
        if len(failures) > 8:
            screen.print((f"  and {len(failures) - 8} earlier ones: --json has all", "dim"))


# ---- events -------------------------------------------------------------------------------------


def events(args: argparse.Namespace, screen: Screen) -> int:
    """`refold events RUN`: the history as it is stored."""
    with existing(args.store) as store:
        stream = args.run + INBOX if args.inbox else args.run
        if "/" in args.run or not store.read(args.run, 0, 1):
            raise RunNotFound(args.run)
        rows = _pages(store, stream, args.after, args.limit)
        if args.json:
            _json_events(screen, rows)
        else:
            _print_events(screen, rows)
    return OK


def _pages(store: Store, stream: str, after: int, limit: int | None) -> Iterator[Row]:
    left = limit
    while left is None or left > 0:
        rows = store.read(stream, after, PAGE if left is None else min(PAGE, left))
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1].version
        left = None if left is None else left - len(rows)


def _json_events(screen: Screen, rows: Iterator[Row]) -> None:
    """An array with an event a line, written as it is read: a history may be long."""
    separator = "["
    for row in rows:
        entry = {
            "version": row.version, "position": row.position, "tag": row.tag, "hash": row.hash.hex(),
            "event": msgspec.Raw(row.state),
        }  # fmt: skip
        screen.raw(separator + as_json(entry, indent=None))
        separator = ","
    screen.raw("]" if separator == "," else "[]")


_HEAD = {"id", "at", "by", "cause", "trace"}


def _print_events(screen: Screen, rows: Iterator[Row]) -> None:
    first: datetime | None = None
    for row in rows:
        body = msgspec.json.decode(row.state)
        at = moment(body.get("at"))
        first = first or at
        since = f"+{(at - first).total_seconds():.3f}" if at and first else ""
        line: Line = [
            (f"{row.version:>6}  ", "dim"), (f"{clock(at, micro=True)}  ", "dim"), (f"{since:>9}  ", ""),
            (f"{visible(row.tag):20} ", _tag_style(row.tag)),
        ]  # fmt: skip
        fields = "  ".join(f"{visible(k)}={_short(v)}" for k, v in body.items() if k not in _HEAD)
        by = body.get("by", "engine")
        who = "" if by in ("engine", "handler") else f"  by={visible(by)}"
        room = max(screen.width - sum(len(text) for text, _ in line), 20) if screen.terminal else 10_000
        screen.print(line, clip(fields + who, room))


def _short(value: Any) -> str:
    if isinstance(value, dict) and value.get("type") and "message" in value:
        return visible(f"{value['type']}: {value['message']}")
    return visible(value) if isinstance(value, str) else compact(value)


def _tag_style(tag: str) -> str:
    if tag.endswith(("failed", "interrupted", "late")):
        return "red"
    return "bold" if tag.startswith("run.") else "cyan" if tag.startswith(("timer", "wait", "signal")) else ""
