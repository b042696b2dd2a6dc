"""`refold locks`: which runs hold a concurrency key, and since when."""

import argparse

from msgspec import to_builtins

from ..events.locks import Lock, look_at
from ..projections.queries import locked_runs
from .exits import OK
from .screen import Screen
from .stores import caught_up, looking
from .text import Span, as_json, clip, clock, seconds, visible
from .words import now


def locks(args: argparse.Namespace, screen: Screen) -> int:
    """`refold locks`: the read models say which keys to look at, their own streams who has them."""
    with looking(args.store) as store, caught_up(store) as views:
        keys = [args.key] if args.key is not None else dict.fromkeys(key for key, _ in locked_runs(views))
        found = [lock for key in keys if (lock := look_at(store, key)).holder]
    if args.json:
        screen.raw(as_json({"locks": [to_builtins(lock) for lock in found]}))
    elif found:
        screen.table(("lock", "held by", "workflow", "since (UTC)", "for"), [_cells(lock) for lock in found])
    elif args.key is not None:
        screen.print(f"nobody holds the lock {visible(args.key)} in {visible(store.url)}")
    else:
        screen.print(f"no locks are held in {visible(store.url)}")
    return OK


def _cells(lock: Lock) -> list[str | Span]:
    since = "" if lock.since is None else clock(lock.since)
    held = "" if lock.since is None else seconds(max((now() - lock.since).total_seconds(), 0.0))
    return [
        (clip(visible(lock.key), 60), "bold"), clip(visible(lock.holder), 48), visible(lock.workflow), since,
        held,
    ]  # fmt: skip
