"""`refold events RUN`: the history as it is stored, while another process executes the store or none does."""

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from ..events.clock import moment
from ..events.errors import RunNotFound
from ..events.store import Reading
from ..events.stream import INBOX, Row
from .exits import OK
from .screen import Screen
from .stores import looking
from .text import Line, as_json, clip, clock, compact, visible

PAGE = 1_000


def events(args: argparse.Namespace, screen: Screen) -> int:
    """`refold events RUN`: the history as it is stored."""
    with looking(args.store) as store:
        stream = args.run + INBOX if args.inbox else args.run
        if "/" in args.run or not store.read(args.run, 0, 1):
            raise RunNotFound(args.run)
        rows = _pages(store, stream, args.after, args.limit)
        if args.json:
            _json_events(screen, rows)
        else:
            _print_events(screen, rows)
    return OK


def _pages(store: Reading, stream: str, after: int, limit: int | None) -> Iterator[Row]:
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
        screen.raw(separator + event_as_json(row))
        separator = ","
    screen.raw("]" if separator == "," else "[]")


def event_as_json(row: Row) -> str:
    """One event, on one line."""
    entry = {
        "version": row.version, "position": row.position, "tag": row.tag, "hash": row.hash.hex(),
        "event": msgspec.Raw(row.state),
    }  # fmt: skip
    body = body_of(row)
    if DAMAGED in body:
        entry |= {"event": None, **body}
    return as_json(entry, indent=None)


def body_of(row: Row) -> dict[str, Any]:
    """The fields of an event; of one that is no JSON object (any more) what there is, under `damaged`."""
    try:
        return msgspec.json.decode(row.state, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {DAMAGED: row.state.decode(errors="backslashreplace")}


DAMAGED = "damaged"
_HEAD = {"id", "at", "by", "cause", "trace"}


def _print_events(screen: Screen, rows: Iterator[Row]) -> None:
    first: Row | None = None
    for row in rows:
        first = first or row
        print_event(screen, row, first)


def print_event(screen: Screen, row: Row, first: Row) -> None:
    """One event, on one line, with the seconds since the first one."""
    body = body_of(row)
    at, began = moment(body.get("at")), moment(body_of(first).get("at"))
    since = f"+{(at - began).total_seconds():.3f}" if at and began else ""
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
