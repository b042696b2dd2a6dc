"""Saying something to a run from a command: send it, see what becomes of it, tell what comes next."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, NamedTuple

from msgspec import to_builtins

from ..engine import onward
from ..engine.engine import Engine
from ..events import types as t
from ..events.clock import SystemClock, to_datetime
from ..events.errors import ActRefused, RunEnded, RunNotFound
from ..events.hold import Holder, executor_of
from ..events.store import Store
from ..events.stream import INBOX
from ..projections.why import Standing, stand
from ..projections.why_of import look
from ..projections.why_words import executes, go_on, tell
from .exits import OK
from .given import principal
from .screen import Screen
from .stores import existing
from .text import as_json, visible
from .why import command_line

TAKEN_S = 2.0
"""How long to wait until the process that executes the store has taken a message."""
LOOK_S = 0.01
FIRST = 200
"""Events that are folded where nobody asks how the run stands: all of 30,000 would take half a second."""
_MESSAGES = frozenset(kind.TAG for kind in (t.SignalSent, t.CancelSent, t.VoteSent, t.RequestSent))

Say = Callable[[Engine], Awaitable[Any]]
Check = Callable[[Store], None]


class Fate(NamedTuple):
    """What has become of what was said by the time the command ends."""

    run_id: str
    value: Any
    """What the engine's verb returned."""
    taken: bool
    """The run has it, in its history."""
    note: str
    """What its owner noted about it, or empty."""
    executor: Holder | None
    standing: Standing
    """Whole for `--json` and of what was taken; else of the run's first events: where its code is."""


def by(args: argparse.Namespace) -> str:
    """Who says it."""
    return args.by or principal()


def speak(args: argparse.Namespace, say: Say, check: Check | None = None) -> Fate:
    """Say it to the run `args.run`; `check` refuses first what cannot be. Durable when this returns.

    Raises what the engine's verb raises, and `ActRefused` with the reason when the run's owner refuses it.
    """
    return asyncio.run(_speak(args, say, check))


async def _speak(args: argparse.Namespace, say: Say, check: Check | None) -> Fate:
    with existing(args.store) as store:
        run_id = current(store, args.run)
        if check is not None:
            check(store)
        mail, before = store.tail(run_id + INBOX).version, store.tail(run_id).version
        async with Engine(store, execute=False) as engine:
            value = await say(engine)
        sent = _sent(store, run_id, mail, by(args))
        executor = executor_of(store)
        taken, note = sent == 0, ""
        if sent and executor is not None:
            taken, note = await _taken(store, run_id, sent, before)
        told = args.json or (taken and executor is not None)
        standing = look(store, run_id) if told else stand(store.read(run_id, 0, FIRST))
        return Fate(run_id, value, taken, note, executor, standing)


def current(store: Store, run_id: str) -> str:
    """The run, or the one that it went on as. Raises `RunNotFound`."""
    while True:
        work = store.work(run_id) if "/" not in run_id else None
        if work is None:
            raise RunNotFound(run_id)
        if work.status != "continued":
            return run_id
        run_id = onward.next_run(store, run_id)


def _sent(store: Store, run_id: str, after: int, who: str) -> int:
    """Version of our message in the run's inbox; 0: what was done needed none."""
    for row in store.read(run_id + INBOX, after):
        if row.tag in _MESSAGES and row.event().by == who:
            return row.version
    return 0


async def _taken(store: Store, run_id: str, sent: int, before: int) -> tuple[bool, str]:
    """Wait for the run's owner to take the message, and find what it noted about it."""
    deadline = monotonic() + TAKEN_S
    while monotonic() < deadline:
        work = store.work(run_id)
        if work is not None and work.seen >= sent:
            return True, _note(store, run_id, sent, before)
        if work is not None and work.state == "done" and work.status != "continued":
            raise RunEnded(run_id, work.status)  # before it could take it
        await asyncio.sleep(LOOK_S)
    return False, ""


def _note(store: Store, run_id: str, sent: int, before: int) -> str:
    """Raises `ActRefused` when the owner has refused it."""
    for row in store.read(run_id, before):
        event = row.event() if row.tag == t.InboxSkipped.TAG else None
        if isinstance(event, t.InboxSkipped) and event.inbox == sent:
            if " refused: " in event.reason:
                raise ActRefused(event.reason.partition(" refused: ")[2])
            return event.reason
    return ""


def report(args: argparse.Namespace, screen: Screen, fate: Fate, words: str, fields: dict[str, Any]) -> int:
    """Tell what is now true and what comes next; `words` says what was done, `fields` for `--json`."""
    executor = None if fate.executor is None else to_builtins(fate.executor)
    if args.json:
        now = {"status": fate.standing.status, "taken": fate.taken, "executor": executor}
        screen.raw(as_json({"run": fate.run_id, **fields, "stored": True, **now}))
        return OK
    screen.print(screen.mark(True), f" {visible(words)}")
    _what_next(args, screen, fate)
    return OK


def _what_next(args: argparse.Namespace, screen: Screen, fate: Fate) -> None:
    standing, executor = fate.standing, fate.executor
    if fate.note:
        screen.print("  ", visible(fate.note))
    if executor is None:
        waits = "it goes on" if fate.taken else "the run takes it"
        screen.print(f"  no process executes this store now: {waits} when one does, started with")
        screen.print("      ", (visible(command_line(go_on(standing), args.store)), "cyan"))
    elif not fate.taken:
        screen.print(
            f"  {visible(executes(executor))}, and has not taken it yet: refold why ", visible(fate.run_id)
        )
    else:
        screen.print("  now: ", visible(tell(standing, to_datetime(SystemClock().now()), executor)[0].text))
