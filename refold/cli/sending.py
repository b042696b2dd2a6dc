"""`refold signal` and `refold cancel`: messages to a run, durable when the command ends."""

import argparse
import asyncio
import getpass
from typing import Any

import msgspec

from ..engine.engine import Engine
from ..events.errors import ConfigurationError, RunNotFound
from .exits import OK
from .screen import Screen
from .stores import existing
from .text import as_json, visible


def principal() -> str:
    """Who sits at this terminal, for the log."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):  # no entry in the password database, as in many containers
        return "user"


def parse_json(text: str, what: str) -> Any:
    """A JSON value from the command line. Raises `ConfigurationError` with a hint."""
    try:
        return msgspec.json.decode(text.encode(errors="surrogateescape"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"{what}: not JSON: {error}; a text needs quotes of its own: '\"like this\"'"
        ) from None


def signal(args: argparse.Namespace, screen: Screen) -> int:
    """`refold signal RUN NAME`."""
    payload = parse_json(args.payload, "--payload") if args.payload is not None else None

    async def send(engine: Engine) -> None:
        await engine.signal(args.run, args.name, payload, id=args.id, by=args.by or principal())

    _with_engine(args, send)
    if args.json:
        screen.raw(as_json({"run": args.run, "signal": args.name, "id": args.id, "stored": True}))
    else:
        screen.print(screen.mark(True), f" event {visible(args.name)} is stored for run {visible(args.run)}")
    return OK


def cancel(args: argparse.Namespace, screen: Screen) -> int:
    """`refold cancel RUN`."""

    async def send(engine: Engine) -> None:
        await engine.cancel(args.run, args.reason, by=args.by or principal())

    _with_engine(args, send)
    if args.json:
        screen.raw(as_json({"run": args.run, "cancel": "requested", "reason": args.reason}))
    else:
        screen.print(
            screen.mark(True), f" run {visible(args.run)} is asked to stop; its handler may clean up first"
        )
    return OK


def _with_engine(args: argparse.Namespace, send: Any) -> None:
    async def act() -> None:
        with existing(args.store) as store:
            if "/" in args.run:
                raise RunNotFound(args.run)
            async with Engine(store, execute=False) as engine:
                await send(engine)

    asyncio.run(act())
