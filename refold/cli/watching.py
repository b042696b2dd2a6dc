"""`refold show RUN --follow`: a run as it goes on, whichever process executes it, until it has ended."""

import argparse
from collections.abc import Iterator
from threading import Event
from time import perf_counter

from ..events.hold import executor_of
from ..events.store import Reading
from ..events.stream import Row
from ..projections.lanes import Lane, merged
from ..projections.timelines import Timeline, timeline_of
from . import timeline
from .exits import OK
from .portrait import draw, head, uncollected
from .reading import event_as_json, print_event
from .screen import Page, Screen
from .text import count, visible
from .words import NOBODY, now

LOOK_S = 0.1
"""How often to ask the store whether anybody has written, which takes 10 µs."""
TICK_S = 0.5
"""How often to draw while nothing happens: the clock goes on."""


def follow(args: argparse.Namespace, screen: Screen, store: Reading, rows: list[Row]) -> int:
    """Redraw on a terminal that has colours; elsewhere a line for each event, as it comes."""
    if screen.colours and not args.json:
        _redraw(args, screen, store, rows)
        return OK
    first = rows[0]
    for row in _events(store, args.run, rows):
        if args.json:
            screen.raw(event_as_json(row))
        else:
            print_event(screen, row, first)
        screen.flush()  # for whoever reads along
    return OK


def _events(store: Reading, run_id: str, rows: list[Row]) -> Iterator[Row]:
    """The history so far, then each new event; it ends with the run."""
    last = 0
    while True:
        yield from rows
        last = rows[-1].version if rows else last
        work = store.work(run_id)  # before the look, so that what is read then has the end in it
        rows = store.read(run_id, last)
        if work is not None and work.state == "done":
            yield from rows
            return
        if not rows:
            _wait(store, None)


def _redraw(args: argparse.Namespace, screen: Screen, store: Reading, rows: list[Row]) -> None:
    with screen.live() as live:
        while True:
            began = perf_counter()
            work = store.work(args.run)
            rows += store.read(args.run, rows[-1].version)
            with uncollected():
                found = timeline_of(rows, full=args.all)
            if work is not None and work.state == "done":
                break
            live.show(_page(screen, found, executed=executor_of(store) is not None))
            Event().wait(2 * (perf_counter() - began))  # a long history takes a third of a core at most
            _wait(store, TICK_S)
    draw(screen, found)


def _wait(store: Reading, at_most_s: float | None) -> None:
    """Until somebody has written, or the time has come."""
    began = perf_counter()
    while not store.changed() and (at_most_s is None or perf_counter() - began < at_most_s):
        Event().wait(LOOK_S)


def _page(screen: Screen, found: Timeline, *, executed: bool) -> Page:
    """As much as the terminal has lines for: the lanes that began last stay."""
    page = Page(screen)
    head(page, found.record())
    page.print()
    room = max(page.height - len(page.lines) - 5, 3)
    lanes, left_out = _fitting(found.lanes, room)
    if left_out:
        page.print((f"  {count(left_out, 'lane')} that began earlier", "dim"))
    for line in timeline.lines(page, lanes, found.start, now(), found.marks):
        page.print(line)
    if not executed:
        page.print((f"  {NOBODY}", "yellow"))
    page.print((f"  following {visible(found.run.run_id)}; Ctrl-C leaves it as it is", "dim"))
    return page


def _fitting(lanes: list[Lane], room: int) -> tuple[list[Lane], int]:
    if len(lanes) > room:
        lanes = merged(lanes)
    left_out = max(len(lanes) - room, 0)
    return lanes[left_out:], left_out
