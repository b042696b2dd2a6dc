"""`refold import`: what `refold export` wrote comes into a store, whole or not at all."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import asdict

from ..engine.read_models import ReadModels
from ..events.errors import ConfigurationError, StoreError
from ..events.hold import executor_of
from ..events.open import open_store
from ..events.store import Store
from ..events.stream import is_run
from ..events.transfer import Imported, import_log
from .exits import OK
from .exporting import progress
from .screen import Screen
from .stores import store_url
from .text import as_json, count, visible

LOOKED_AT = 100_000
"""Running children, at most."""
SHOWN = 5


def import_(args: argparse.Namespace, screen: Screen) -> int:
    """`refold import FILE --store STORE`."""
    url = store_url(args.store)
    if url.startswith("memory://"):
        raise ConfigurationError(f"{url}: a store in memory would end with this command; give a path")
    with _opened(args.file) as (file, name), _made(url) as store:
        with screen.live() as live:
            found = import_log(store, file, name=name, progress=progress(live, "importing"))
            models = ReadModels(store)
            try:
                show, end = progress(live, "folding the read models:"), store.position()
                while models.runner.catch_up(2_000):
                    show(models.runner.position, end)
                left = _left_behind(models)
            finally:
                models.close()
        open_runs = sum(work.state != "done" and is_run(work.run_id) for work, _ in store.all_work())
    if args.json:
        screen.raw(as_json({"store": store.url, **asdict(found), "open_runs": open_runs, "left_behind": left,
                             "verified": True}))  # fmt: skip
    else:
        _print(screen, store, found, open_runs, left)
    return OK


@contextmanager
def _made(url: str) -> Iterator[Store]:
    """The store, made if need be; one that was made for an import that was refused goes away again."""
    try:
        store, new = open_store(url, create=False), False
    except StoreError:
        store, new = open_store(url), True
    try:
        path = getattr(store, "path", None)
        try:
            yield store
        except BaseException:
            if new and isinstance(path, Path) and not store.position() and executor_of(store) is None:
                store.close()
                for suffix in ("", "-wal", "-shm", ".lock"):
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
            raise
    finally:
        store.close()


def _left_behind(models: ReadModels) -> list[dict[str, str]]:
    """Children that runs here wait for, and that are not here: the file had some runs of a family only."""
    return [
        {"run": row["parent_id"], "child": row["run_id"]}
        for row in models.query("children", limit=LOOKED_AT, status="running", detached=False)
        if models.store.work(row["run_id"]) is None
    ]


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


def _print(screen: Screen, store: Store, found: Imported, open_runs: int, left: list[dict[str, str]]) -> None:
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
    for each in left[:SHOWN]:
        run, child = visible(each["run"]), visible(each["child"])
        screen.print("  ", ("!", "yellow"), f" {run} waits for its child {child}, which is not here")
    if left:
        screen.print("     export with --family, and import that, too: what is here already is passed over")
