"""`refold schedules`: what starts runs by itself, as it stands; and what people do to it."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from msgspec import structs

from ..engine.engine import Engine
from ..engine.schedule_log import load
from ..engine.schedules import ScheduleInfo, Schedules, info, list_schedules, next_times
from ..events.errors import ConfigurationError, ScheduleNotFound
from ..events.registry import look_at_event
from ..events.schedule_events import ScheduleBuffered, ScheduleFired, ScheduleSkipped
from ..events.store import Reading
from ..events.stream import SCHEDULES
from .exits import OK
from .given import principal
from .listing import since
from .screen import Screen
from .stores import executors_of, existing, looking
from .text import Span, as_json, clock, compact, count, visible
from .words import NOBODY, now

RECENT = 10
"""Of what happened to a schedule that `show` tells."""
STYLES = {"active": "green", "paused": "yellow", "finished": "dim", "deleted": "dim"}
WHY = {
    "late": "too late when somebody could",
    "missed": "passed while nobody executed",
    "overlap": "the run before went on",
    "replaced": "a later time took its place",
    "paused": "passed in a pause",
    "exists": "there is a run of that id",
    "refused": "refused",
}


def schedules(args: argparse.Namespace, screen: Screen) -> int:
    """`refold schedules [ACTION] [NAME]`."""
    if args.action == "list":
        if args.name:
            raise ConfigurationError(f"list takes no name; try: refold schedules show {args.name}")
        return _list(args, screen)
    if not args.name:
        raise ConfigurationError(f"{args.action} which schedule? refold schedules {args.action} NAME")
    if args.action in ("show", "next"):
        return _look(args, screen)
    return _act(args, screen)


# ---- looking


def _list(args: argparse.Namespace, screen: Screen) -> int:
    with looking(args.store) as store:
        found, nobody = list_schedules(store, deleted=args.all), not executors_of(store)
    if args.json:
        screen.raw(as_json({"schedules": [structs.asdict(one) for one in found]}))
        return OK
    if not found:
        screen.print(f"no schedules in {visible(store.url)}")
        return OK
    head = ("schedule", "workflow", "when", "status", "next (UTC)", "last (UTC)", "runs", "note")
    screen.table(head, [_cells(one) for one in found], right="runs", flex=7)
    if nobody and any(one.status == "active" for one in found):
        screen.print((NOBODY, "yellow"))
    return OK


def _cells(one: ScheduleInfo) -> list[str | Span]:
    return [
        (visible(one.name), "bold"), visible(one.workflow), visible(one.when),
        (one.status, STYLES[one.status]), _clock(one.next_at), _clock(one.last_at), f"{one.fired:,}",
        (visible(_note(one)), "yellow" if _late(one) else ""),
    ]  # fmt: skip


def _clock(at: datetime | None) -> str:
    return clock(at.isoformat()) if at is not None else ""


def _late(one: ScheduleInfo) -> bool:
    return one.status == "active" and one.next_at is not None and (now() - one.next_at).total_seconds() > 60


def _note(one: ScheduleInfo) -> str:
    if _late(one):
        return f"late: no worker with {one.workflow} has fired it"
    if one.buffered is not None:
        return f"the time of {_clock(one.buffered)} waits for {', '.join(one.running)}"
    return one.note


def _look(args: argparse.Namespace, screen: Screen) -> int:
    with looking(args.store) as store:
        record = load(store, SCHEDULES + args.name) if args.name.isprintable() else None
        if record is None or (args.action == "next" and record.last.standing.deleted):
            raise ScheduleNotFound(args.name)
        one, times = info(record), next_times(record, args.count)
        happened = _happened(store, record.stream, record.tail.version) if args.action == "show" else []
    if args.json:
        fields = structs.asdict(one) if args.action == "show" else {"name": one.name}
        more = {"recent": [fact for fact, _ in happened]} if args.action == "show" else {}
        screen.raw(as_json({**fields, "next": times, **more}))
        return OK
    if args.action == "show":
        _show(one, screen)
    for at in times:
        screen.print("  next  " if args.action == "show" else "", f"{_clock(at)} UTC")
    if args.action == "show":
        for _, words in happened:
            screen.print("  ", words)
    elif not times:
        screen.print(f"schedule {visible(one.name)} has no further time")
    return OK


def _show(one: ScheduleInfo, screen: Screen) -> None:
    screen.print(
        (visible(one.name), "bold"), "  ", (one.status, STYLES[one.status]), f"  {visible(_note(one))}"
    )
    arguments = ", ".join(compact(value) for value in one.args)
    screen.print(f"  {visible(one.when)}: {visible(one.workflow)}({arguments})")
    screen.print(f"  catch_up {one.catch_up} ({one.window_s:g} s), overlap {one.overlap}")
    screen.print(f"  {count(one.fired, 'run')}, {count(one.skipped, 'time')} skipped")


def _happened(store: Reading, stream: str, version: int) -> list[tuple[dict[str, Any], str]]:
    """The last of what became of its times, each for programs and for people, the last one first."""
    found: list[tuple[dict[str, Any], str]] = []
    for row in reversed(store.read(stream, max(0, version - RECENT))):
        event = look_at_event(row.tag, row.state, row)
        fact: dict[str, Any] = {"event": row.tag, "at": getattr(event, "at", None)}
        if isinstance(event, ScheduleFired):
            fact |= {"time": event.nominal, "run": event.run_id, "why": event.why}
            words = f"{_clock(event.nominal)}  run {event.run_id}" + (
                "" if event.why == "time" else f" ({event.why})"
            )
        elif isinstance(event, ScheduleSkipped):
            fact |= {"time": event.first, "last": event.last, "count": event.count, "why": event.reason}
            until = "" if event.last == event.first else f" to {_clock(event.last)}"
            why = WHY.get(event.reason, event.reason) + (f": {event.detail}" if event.detail else "")
            words = f"{_clock(event.first)}{until}  skipped {event.count}: {why}"
        elif isinstance(event, ScheduleBuffered):
            fact |= {"time": event.nominal}
            words = f"{_clock(event.nominal)}  waits for the run before"
        else:
            by, note = getattr(event, "by", ""), getattr(event, "note", "")
            words = f"{_clock(fact['at'])}  {row.tag.removeprefix('schedule.')} by {by}" + (
                f": {note}" if note else ""
            )
        found.append((fact, visible(words)))
    return found


# ---- acting


def _act(args: argparse.Namespace, screen: Screen) -> int:
    by = args.by or principal()
    with existing(args.store) as store:
        said = asyncio.run(_say(store, args, by))
        executed = bool(executors_of(store))
    if args.json:
        screen.raw(as_json({"schedule": args.name, "act": args.action, **said[1], "by": by, "stored": True}))
        return OK
    screen.print(screen.mark(True), f" schedule {visible(args.name)} {visible(said[0])}")
    if not executed and args.action in ("trigger", "backfill"):
        screen.print((NOBODY, "yellow"))
    return OK


async def _say(store: Any, args: argparse.Namespace, by: str) -> tuple[str, dict[str, Any]]:
    """What was done, in words and for programs."""
    async with Engine(store, execute=False) as engine:
        acts: dict[str, Callable[[Schedules], Awaitable[tuple[str, dict[str, Any]]]]] = {
            "trigger": lambda found: _trigger(found, args, by),
            "backfill": lambda found: _backfill(found, args, by),
        }
        if args.action in acts:
            return await acts[args.action](engine.schedules)
        verb = getattr(engine.schedules, args.action)
        await verb(args.name, args.note, by=by)
        done = {"pause": "is paused", "resume": "fires again", "delete": "is deleted"}[args.action]
        return done, {"note": args.note}


async def _trigger(found: Schedules, args: argparse.Namespace, by: str) -> tuple[str, dict[str, Any]]:
    run_id = await found.trigger(args.name, by=by)
    return f"is asked for a run now: {run_id}", {"run": run_id}


async def _backfill(found: Schedules, args: argparse.Namespace, by: str) -> tuple[str, dict[str, Any]]:
    first, last = since("--from", args.first), since("--to", args.last) or now()
    if first is None:
        raise ConfigurationError("backfill from when? --from 7d, or --from 2026-01-31T12:00")
    number = await found.backfill(args.name, first, last, by=by)
    return f"is asked for the runs of {count(number, 'time')}", {"from": first, "to": last, "times": number}
