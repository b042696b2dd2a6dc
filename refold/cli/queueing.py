"""`refold queues`: how full the queues of a store are, and their limits, which `set` changes."""

import argparse
import asyncio
from typing import Any

from ..engine.engine import Engine
from ..engine.queues import SHOWN, Queue, QueueState, states, undeclared
from ..events.errors import ConfigurationError
from .exits import OK
from .given import principal
from .screen import Screen
from .stores import looking, shared_url
from .text import as_json, clock, visible


def queues(args: argparse.Namespace, screen: Screen) -> int:
    """`refold queues`."""
    if args.verb == "set":
        return _set(args, screen)
    if args.concurrency is not None or args.per_key is not None or args.rate is not None:
        raise ConfigurationError("limits are set with `refold queues set NAME …`")
    with looking(args.store) as store:
        found = [state for state in states(store) if args.name in (None, state.name)]
    if args.name is not None and not found:
        raise undeclared(args.name, "it has no runs either")
    if args.json:
        screen.raw(as_json({"queues": [_plain(state) for state in found]}))
    elif found:
        names = ("queue", "waiting", "running", "concurrency", "per key", "rate", "oldest waiting (UTC)")
        screen.table(names, [_cells(state) for state in found], right="waiting running")
        if args.name is not None and found[0].holders:
            screen.print(f"places: {visible(', '.join(found[0].holders))}{' …' * (found[0].running > SHOWN)}")
    else:
        screen.print(f"no queues in {visible(store.url)}")
    return OK


def _set(args: argparse.Namespace, screen: Screen) -> int:
    if args.name is None:
        raise ConfigurationError("which queue? refold queues set NAME --concurrency 4")

    async def change() -> Queue:
        async with Engine(shared_url(args.store), execute=False) as engine:
            return await engine.queues.set(
                args.name, concurrency=args.concurrency, per_key=args.per_key, rate=args.rate,
                by=args.by or principal(),
            )  # fmt: skip

    queue = asyncio.run(change())
    if args.json:
        screen.raw(as_json(_limits(queue)))
    else:
        limits = ", ".join(f"{name} {value}" for name, value in _said(queue).items() if value != "-")
        screen.print(("✓ ", "green"), f"queue {visible(queue.name)}: {limits or 'no limits'}")
    return OK


def _said(queue: Queue) -> dict[str, str]:
    rate = "-" if queue.rate is None else f"{queue.rate[0]:,} in {queue.rate[1]:g} s"
    return {"concurrency": _number(queue.concurrency), "per key": _number(queue.per_key), "rate": rate}


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _cells(state: QueueState) -> list[Any]:
    if state.queue is None:
        limits: list[Any] = [("nobody has declared it: refold queues set", "yellow"), "", ""]
    else:
        limits = list(_said(state.queue).values())
    oldest = clock(state.oldest.isoformat()) if state.oldest is not None else "-"
    return [(visible(state.name), "bold"), f"{state.pending:,}", f"{state.running:,}", *limits, oldest]


def _limits(queue: Queue) -> dict[str, Any]:
    return {
        "queue": queue.name, "concurrency": queue.concurrency, "per_key": queue.per_key, "rate": queue.rate,
    }  # fmt: skip


def _plain(state: QueueState) -> dict[str, Any]:
    limits = _limits(state.queue or Queue(state.name))
    return {
        **limits, "declared": state.queue is not None, "waiting": state.pending, "running": state.running,
        "oldest": state.oldest, "holders": state.holders,
    }  # fmt: skip
