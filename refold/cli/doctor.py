"""`refold doctor`: what is wrong with this machine, this installation or a store, and what to do about it."""

import argparse
import os
import shlex
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from ..events.clock import SystemClock, moment, to_datetime
from ..events.errors import RefoldError, StoreReadOnly
from ..events.hold import executor_of
from ..events.registry import Unknown, look_at_event
from ..events.store import SCHEMA_VERSION, Reading
from ..projections import queries
from ..projections.core import CORE
from ..projections.rebuild import open_runner
from ..projections.runner import Lag
from ..projections.views_open import open_views
from .disk import check_disk
from .doctor_postgres import check_server
from .exits import FAILED, OK
from .finding import Finding
from .machine import check_machine
from .screen import Screen
from .stores import caught_up, looking, store_url
from .text import as_json, count, seconds, visible

FULL = 2
"""What SQLite answers to `PRAGMA synchronous` when it is FULL."""
SKEW_S = 5.0
"""By so much the last event may be later than this machine's clock."""
MARKS = {"warning": ("!", "yellow"), "unknown": ("-", "dim")}
STYLES = {"broken": "red", "warning": "yellow"}
WHAT_TO_DO = {
    "no_worker": "execute the store with their workflows",
    "missing_version": "register the version that they began with",
    "diverged": "put the code back, or register the old version",
    "in_doubt": "find out what the step did, and say so with `refold resolve`",
    "stuck": "fix the handler and start the worker again",
    "retrying": "it goes on by itself; `refold why RUN` says when",
}


def doctor(args: argparse.Namespace, screen: Screen) -> int:
    """`refold doctor`."""
    findings: list[Finding] = []
    for finding in chain(check_machine(screen), _check_store(args.store)):
        findings.append(finding)
        if not args.json:
            _print(screen, finding)
    broken = sum(finding.state == "broken" for finding in findings)
    if args.json:
        screen.raw(as_json({"ok": not broken, "checks": [asdict(finding) for finding in findings]}))
    else:
        warnings = sum(finding.state == "warning" for finding in findings)
        said = f"{count(broken, 'thing is', 'things are')} broken" if broken else "nothing is broken"
        screen.print((f"{said}, {count(warnings, 'warning')}", "bold"))
    return FAILED if broken else OK


def _print(screen: Screen, finding: Finding) -> None:
    mark = MARKS.get(finding.state) or screen.mark(finding.state == "ok")
    style = STYLES.get(finding.state, "")
    screen.print(mark, (f" {finding.name:14}", "dim"), (visible(finding.found), style))
    if finding.advice:
        screen.print(f"  {'':14}{'→' if screen.unicode else '->'} ", visible(finding.advice))


def _check_store(given: str | None) -> Iterator[Finding]:
    url = store_url(given)
    try:
        with looking(given) as store:
            path = getattr(store, "path", None)
            yield _present(store)
            if isinstance(path, Path):
                yield from _check_file(store, path)
                yield from check_disk(path.parent)
            health: Callable[[], Any] | None = getattr(store, "health", None)
            if health is not None:
                yield from check_server(health())
            yield from _check_runs(store)
    except RefoldError as error:
        wanted = given or os.environ.get("REFOLD_STORE")
        if wanted or "no store at" not in str(error):
            yield Finding("store", "broken", str(error))
        else:
            yield Finding(
                "store", "unknown", f"there is no {url} here", "`refold run` makes one; or give --store"
            )
            yield from check_disk(Path.cwd())


def _present(store: Reading) -> Finding:
    schema = getattr(store, "schema_version", SCHEMA_VERSION)
    return Finding("store", "ok", f"{store.url}, schema {schema}, {count(store.position(), 'event')}")


def _check_file(store: Reading, path: Path) -> Iterator[Finding]:
    closed = [place for place in (path, path.parent) if not os.access(place, os.W_OK)]
    if closed:
        advice = (
            "runs can be looked at, not executed: give this user the right to write the file and its folder"
        )
        yield Finding("writable", "warning", f"no: {', '.join(map(str, closed))}", advice)
    else:
        yield Finding("writable", "ok", "the file and its folder")
    options: dict[str, Any] = store.options()  # type: ignore[attr-defined]
    mode, synchronous = options["journal_mode"], options["synchronous"]
    found = f"journal_mode={mode}, synchronous={'FULL' if synchronous == FULL else synchronous}"
    if synchronous != FULL:
        yield Finding("durability", "broken", found, "a power cut would take back what was acknowledged")
    elif mode != "wal" and not closed:
        advice = "it becomes wal when nobody else has the file open; readers block writers until then"
        yield Finding("durability", "warning", found, advice)
    else:
        yield Finding("durability", "ok", found)


def _check_runs(store: Reading) -> Iterator[Finding]:
    yield _clock(store)
    lag = _lag(store)
    with caught_up(store) as views:
        counts = queries.count_runs(views, "status")
        attention = queries.count_runs(views, "attention")
        going = sum(row["runs"] for row in queries.drift(views))
    yield _executor(store, going)
    yield _read_models(lag, store)
    yield _attention(attention, sum(counts.values()))


def _clock(store: Reading) -> Finding:
    now = to_datetime(SystemClock().now())
    last = _last_at(store)
    told = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if last is None:
        return Finding("clock", "ok", told)
    ahead = (last - now).total_seconds()
    if ahead > SKEW_S:
        advice = "set the clock (NTP): timers fire late by that, and times in the log stand still until then"
        return Finding("clock", "warning", f"{told}, but the last event is {seconds(ahead)} later", advice)
    return Finding("clock", "ok", f"{told}, last event {seconds(max(-ahead, 0.0))} ago")


def _last_at(store: Reading) -> datetime | None:
    position = store.position()
    for row in store.scan(max(position - 1, 0), 1):
        event = look_at_event(row.tag, row.state, row)  # raises for one that is damaged
        return moment(event.body.get("at")) if isinstance(event, Unknown) else event.at
    return None


def _executor(store: Reading, going: int) -> Finding:
    holder = executor_of(store)
    if holder is not None:
        who = f"{holder.owner} (pid {holder.pid} on {holder.host}, since {holder.since})"
        return Finding("executed by", "ok", who if holder.owner else "a process that does not say its name")
    if going:
        advice = "start one: refold worker FILE.py"
        return Finding(
            "executed by", "warning", f"nobody, and {count(going, 'run is', 'runs are')} not over", advice
        )
    return Finding("executed by", "ok", "nobody; no run waits for one")


def _lag(store: Reading) -> Lag | StoreReadOnly:
    try:
        views = open_views(store)
    except StoreReadOnly as error:
        return error
    try:
        return open_runner(store, views, CORE).lag()
    except StoreReadOnly as error:
        return error
    finally:
        views.close()


def _read_models(lag: Lag | StoreReadOnly, store: Reading) -> Finding:
    if isinstance(lag, StoreReadOnly):
        return Finding(
            "read models", "unknown", "cannot be kept in a file here; lists are folded each time anew"
        )
    behind = f"{count(lag.events, 'event')} behind, brought up to date now" if lag.events else "up to date"
    if lag.parked:
        command = f"refold rebuild --store {shlex.quote(store.url)}"
        found = f"{behind}; {count(lag.parked, 'event')} could not be folded"
        return Finding("read models", "warning", found, f"after an upgrade: {command}")
    if lag.unknown:
        found = f"{behind}; {count(lag.unknown, 'event')} of types that this Refold does not know"
        return Finding(
            "read models", "warning", found, "they were written by a newer one: upgrade this process"
        )
    return Finding("read models", "ok", behind)


def _attention(found: dict[str, int], total: int) -> Finding:
    if not found:
        return Finding("runs", "ok", f"{count(total, 'run')}, none needs attention")
    told = ", ".join(f"{number} {kind}" for kind, number in found.items())
    advice = "; ".join(f"{kind}: {WHAT_TO_DO[kind]}" for kind in found if kind in WHAT_TO_DO)
    return Finding(
        "runs",
        "warning",
        f"{count(total, 'run')}; attention: {told}",
        f"{advice} (refold runs --attention any)",
    )
