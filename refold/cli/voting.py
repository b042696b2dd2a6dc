"""`refold approve`, `reject` and `answer`: what people say at the gates of a run."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

from ..engine.engine import Engine
from ..events.errors import VoteRefused
from ..events.store import Store
from ..projections.why_of import children_of, look
from .given import parse_json
from .screen import Screen
from .speaking import by, report, speak
from .text import count, visible

Gate = str | int | None
Vote = Callable[[Engine, Gate], Awaitable[None]]


def approve(args: argparse.Namespace, screen: Screen) -> int:
    """`refold approve RUN`."""

    async def vote(engine: Engine, gate: Gate) -> None:
        await engine.approve(
            args.run, gate, selections=args.select, feedback=args.feedback, by=by(args), digest=args.digest
        )

    return _vote(args, screen, vote, "approval", {"selections": args.select})


def reject(args: argparse.Namespace, screen: Screen) -> int:
    """`refold reject RUN`."""

    async def vote(engine: Engine, gate: Gate) -> None:
        await engine.reject(args.run, gate, feedback=args.feedback, by=by(args), digest=args.digest)

    return _vote(args, screen, vote, "rejection", {})


def answer(args: argparse.Namespace, screen: Screen) -> int:
    """`refold answer RUN JSON`."""
    value = parse_json(args.value, "JSON")

    async def vote(engine: Engine, gate: Gate) -> None:
        await engine.answer(args.run, value, gate, by=by(args), feedback=args.feedback)

    return _vote(args, screen, vote, "answer", {"answer": value})


def _vote(args: argparse.Namespace, screen: Screen, vote: Vote, what: str, fields: dict[str, Any]) -> int:
    gate = _gate(args)

    def choose(store: Store) -> None:
        nonlocal gate
        gate = _only_open(store, args) if gate is None else gate

    async def say(engine: Engine) -> None:
        await vote(engine, gate)

    fate = speak(args, say, choose)
    at = f" at {gate}" if gate is not None else ""
    words = f"the {what} of {by(args)}{at} is stored for run {fate.run_id}"
    said = {"vote": args.command, "gate": gate, "feedback": args.feedback, "by": by(args), **fields}
    code = report(args, screen, fate, words, said)
    if fate.taken and not args.json:
        for wait in fate.standing.waits:
            if wait.name == gate and wait.type == "approval":
                more = f" of {' or '.join(wait.voters)}" if wait.voters else ""
                screen.print(visible(f"  {gate} needs {count(wait.needed, 'more approval')}{more}"))
    return code


def _gate(args: argparse.Namespace) -> Gate:
    gate: str | None = args.gate
    return int(gate) if gate is not None and gate.isdecimal() else gate


def _only_open(store: Store, args: argparse.Namespace) -> str | None:
    """The only open gate of the kind that is voted on; None: it is for the engine to say what is open."""
    kind = "input" if args.command == "answer" else "approval"
    standing = look(store, args.run)
    names = [wait.name for wait in standing.waits if wait.type == kind]
    if not names and not any(wait.type in ("input", "approval") for wait in standing.waits):
        for _, child in children_of(store, standing):
            if any(wait.type == kind for wait in child.waits):
                raise VoteRefused(
                    f"run {args.run}: no gate is open, but one of its child {child.run_id}: "
                    f"refold {args.command} {child.run_id}"
                )
    return names[0] if len(names) == 1 else None
