"""`refold resume`, `retry`, `compensate`, `fork`: bringing a run back, undoing it, making another of it."""

import argparse

from ..engine.engine import Engine
from ..engine.repairing import resumable
from ..events.errors import ActRefused, ConfigurationError
from ..events.store import Store
from ..projections.why_of import look
from .operating import asked, will_be_paused
from .screen import Screen
from .speaking import by, current, report, speak
from .stores import existing


def resume(args: argparse.Namespace, screen: Screen) -> int:
    """`refold resume RUN`, or `refold resume --workflow NAME`."""
    if (args.run is None) == (args.workflow is None):
        raise ConfigurationError("expected a run's id, or --workflow NAME for the only one of a workflow")

    def check(store: Store) -> None:
        standing = look(store, current(store, args.run))
        if not standing.over and not will_be_paused(standing):
            raise ActRefused(
                f"run {standing.run_id} is {standing.status}, not paused: there is nothing to resume; "
                f"refold why {standing.run_id} tells what it waits for"
            )

    async def act(engine: Engine) -> str:
        return await engine.resume(args.run, args.reason, by=by(args))

    if args.run is None:
        with existing(args.store) as store:
            args.run = resumable(store, args.workflow)
    fate = speak(args, act, check)
    did = "is brought back from what failed" if fate.value == "retried" else "is no longer paused"
    words = f"run {fate.run_id} {did}" if fate.taken else asked(args, fate)
    fields = {"act": "resume", "did": fate.value, "reason": args.reason, "by": by(args)}
    return report(args, screen, fate, words, fields)


def retry(args: argparse.Namespace, screen: Screen) -> int:
    """`refold retry RUN`."""

    async def act(engine: Engine) -> None:
        await engine.retry(args.run, at=args.at, keep=not args.discard, reason=args.reason, by=by(args))

    fate = speak(args, act)
    place = f"event {args.at}" if args.at else "the beginning" if args.discard else "what it ended on"
    fields = {"act": "retry", "at": args.at, "keep": not args.discard, "reason": args.reason, "by": by(args)}
    return report(args, screen, fate, f"run {fate.run_id} is brought back, from {place}", fields)


def compensate(args: argparse.Namespace, screen: Screen) -> int:
    """`refold compensate RUN`."""

    async def act(engine: Engine) -> None:
        await engine.compensate(args.run, reason=args.reason, by=by(args))

    fate = speak(args, act)
    words = f"run {fate.run_id} is to undo what it did" if fate.taken else asked(args, fate)
    fields = {"act": "compensate", "reason": args.reason, "by": by(args)}
    return report(args, screen, fate, words, fields)


def fork(args: argparse.Namespace, screen: Screen) -> int:
    """`refold fork RUN`."""

    async def act(engine: Engine) -> str:
        return await engine.fork(args.run, at=args.at, id=args.id, lock=args.lock, by=by(args))

    original = args.run
    fate = speak(args, act)
    with existing(args.store) as store:
        fate = fate._replace(run_id=fate.value, standing=look(store, fate.value))
    words = f"run {fate.run_id} is made, with the past of {original}"
    return report(args, screen, fate, words, {"act": "fork", "of": original, "at": args.at, "by": by(args)})
