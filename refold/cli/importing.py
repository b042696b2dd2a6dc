"""`refold import`: what `refold export` wrote comes into a store, whole or not at all."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import asdict

from ..engine.read_models import ReadModels
from ..events.errors import ConfigurationError
from ..events.open import open_store
from ..events.store import Store
from ..events.transfer import Imported, import_log
from .exits import OK
from .exporting import progress
from .screen import Screen
from .stores import store_url
from .text import as_json, count, visible


def import_(args: argparse.Namespace, screen: Screen) -> int:
    """`refold import FILE --store STORE`."""
    url = store_url(args.store)
    if url.startswith("memory://"):
        raise ConfigurationError(f"{url}: a store in memory would end with this command; give a path")
    with _opened(args.file) as (file, name):
        store = open_store(url)
        try:
            with screen.live() as live:
                found = import_log(store, file, name=name, progress=progress(live, "importing"))
            models = ReadModels(store)
            try:
                models.catch_up()
            finally:
                models.close()
            open_runs = sum(work.state != "done" for work, _ in store.all_work())
        finally:
            store.close()
    if args.json:
        screen.raw(as_json({"store": store.url, **asdict(found), "open_runs": open_runs, "verified": True}))
    else:
        _print(screen, store, found, open_runs)
    return OK


@contextmanager
def _opened(given: str) -> Iterator[tuple[BinaryIO, str]]:
    if given == "-":
        yield sys.stdin.buffer, "standard input"
        return
    path = Path(given)
    if not path.is_file() and not path.is_fifo():
        raise ConfigurationError(
            f"there is no file {given}; give what `refold export` wrote, or - for a pipe"
        )
    with path.open("rb") as file:
        yield file, given


def _print(screen: Screen, store: Store, found: Imported, open_runs: int) -> None:
    screen.print((visible(store.url), "bold"))
    what = f"{count(found.runs, 'new run')}, {count(found.events, 'event')}"
    if found.contents:
        what += f", {count(found.contents, 'large value')}"
    screen.print("  ", screen.mark(True), f" imported {what}")
    if found.advanced:
        screen.print(f"  -  {count(found.advanced, 'run was', 'runs were')} here up to an earlier event")
    if found.there:
        screen.print(f"  -  {count(found.there, 'run was', 'runs were')} here already: passed over")
    screen.print("  ", screen.mark(True), " every hash of the store verified")
    if open_runs:
        screen.print(
            f"  -  {count(open_runs, 'run goes', 'runs go')} on as soon as somebody executes this store"
        )
