"""`refold signal` and `refold cancel`: messages to a run, durable when the command ends."""

import argparse

from ..engine.engine import Engine
from .given import parse_json
from .screen import Screen
from .speaking import by, report, speak


def signal(args: argparse.Namespace, screen: Screen) -> int:
    """`refold signal RUN NAME`."""
    payload = parse_json(args.payload, "--payload") if args.payload is not None else None

    async def send(engine: Engine) -> None:
        await engine.signal(args.run, args.name, payload, id=args.id, by=by(args))

    fate = speak(args, send)
    words = f"event {args.name} is stored for run {fate.run_id}"
    return report(args, screen, fate, words, {"signal": args.name, "id": args.id, "by": by(args)})


def cancel(args: argparse.Namespace, screen: Screen) -> int:
    """`refold cancel RUN`."""

    async def send(engine: Engine) -> None:
        await engine.cancel(args.run, args.reason, by=by(args))

    fate = speak(args, send)
    words = f"run {fate.run_id} is asked to stop; its handler may clean up first"
    return report(args, screen, fate, words, {"cancel": "requested", "reason": args.reason, "by": by(args)})
