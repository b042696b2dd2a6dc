"""`refold runs`: a page of the runs of a store, from its read models."""

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ..events.errors import ConfigurationError, ValueRefused
from ..events.hold import executor_of
from .exits import OK
from .screen import Screen
from .stores import list_runs, looking
from .text import Span, as_json, clip, clock, seconds, usd, visible, visible_lines
from .words import NOBODY, blocked, now, status_span, took


def runs(args: argparse.Namespace, screen: Screen) -> int:
    """`refold runs`."""
    filters = _filters(args)
    with looking(args.store) as store:
        try:
            page = list_runs(store, filters)
        except ValueRefused as error:  # a value of the command line's
            raise ConfigurationError(str(error)) from None
        nobody = executor_of(store) is None
    if args.json:
        screen.raw(as_json({"runs": page.runs, "cursor": page.cursor}))
        return OK
    if not page.runs:
        wanted = visible(" ".join(_given(args)))
        screen.print(f"no runs{' with ' + wanted if wanted else ''} in {visible(store.url)}")
        return OK
    rows = [_run_cells(row) for row in page.runs]
    screen.table(
        ("run", "workflow", "status", "started (UTC)", "took", "steps", "cost", "note"), rows,
        right="took steps cost", flex=7,
    )  # fmt: skip
    if nobody and any(row["status"] in ("running", "pending") for row in page.runs):
        screen.print((NOBODY, "yellow"))
    if page.cursor:
        screen.print(("more: add --limit, or --cursor ", "dim"), (f"'{visible(page.cursor)}'", "dim"))
    return OK


def _filters(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, as `list_runs` takes it."""
    return {
        "status": args.status, "workflow": args.workflow, "attention": args.attention,
        "blocked_on": args.blocked, "parent": args.parent, "root": args.family,
        "trigger": args.trigger, "lock": args.lock,
        "attributes": dict(map(_label, args.label or ())), "started_after": since("--since", args.since),
        "started_before": since("--before", args.before), "limit": args.limit, "cursor": args.cursor,
        "dismissed": None if args.all else args.dismissed,
    }  # fmt: skip


_NAMES = (
    "status", "workflow", "attention", "blocked", "label", "parent", "family", "trigger", "lock", "since",
    "before",
)  # fmt: skip


def _given(args: argparse.Namespace) -> Iterator[str]:
    for name in _NAMES:
        value = getattr(args, name)
        for one in value if isinstance(value, list) else [value] if value else []:
            yield f"--{name} {one}"


def _label(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.removesuffix(":"):
        raise ConfigurationError(f"--label {text!r}: expected NAME=VALUE, or NAME:=JSON")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], msgspec.json.decode(value.encode(errors="surrogateescape"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"--label {text!r}: {value!r} is no JSON: {error}") from None


def since(option: str, text: str | None) -> datetime | None:
    """A moment: `2026-01-31T12:00` (UTC when it names no zone), or so long ago: `90s`, `30m`, `2h`, `7d`."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        seconds_ago = float(ago[1]) * _UNITS[ago[2]]
        try:
            return now() - timedelta(seconds=seconds_ago)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {text!r}: expected a time, such as 2026-01-31T12:00 or 2026-01-31T12:00+01:00, "
            "or how long ago: 90s, 30m, 2h, 7d"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


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
    lock = f"lock {visible(row['lock'])}" if row["lock"] and row["ended_at"] is None else ""
    return "; ".join(text for text in (blocked(row["blocked_on"]), lock) if text), "cyan"
