"""`refold worker FILE.py …`: execute the runs of a store, those that others start included."""

import argparse
import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import Any

from ..engine.engine import Engine
from ..engine.settings import Settings
from ..engine.workflow import Workflow
from ..events.clock import SystemClock, to_datetime
from ..events.errors import HandlerError, StoreBusy, StoreError
from ..events.open import open_store
from ..events.store import Store
from .exits import INTERRUPTED, OK
from .interrupts import heeding
from .loading import load_files
from .news import News
from .screen import Screen, complain
from .stores import shared_url
from .text import as_json, clock, visible

LOOK_S = 0.1
WAIT_S = 0.5
"""How often to try for a store that another process executes."""


def worker(args: argparse.Namespace, screen: Screen) -> int:
    """`refold worker`."""
    url = shared_url(args.store)
    flows = load_files(args.files)
    _say_warnings()
    store = open_store(url)
    try:
        return asyncio.run(heeding(_work(args, screen, store, flows)))
    finally:
        store.close()


async def _work(
    args: argparse.Namespace, screen: Screen, store: Store, flows: list[Workflow[Any, Any]]
) -> int:
    told = Telling(screen, args.json)
    code = INTERRUPTED
    main = asyncio.current_task()
    assert main is not None

    def terminate() -> None:
        nonlocal code
        if code == OK:  # a second time: at once, as with Ctrl-C
            raise KeyboardInterrupt
        code = OK
        main.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    settings = Settings(grace=args.grace, max_active=args.concurrency)
    engine = Engine(store, workflows=flows, settings=settings, tags=args.tag, only_tagged=args.only_tagged)
    news: News | None = None
    try:
        await _enter(engine, args.wait, told)
        try:
            news = News(store)
            told.ready(engine)
            await _follow(engine, news, told)
        except asyncio.CancelledError:  # Ctrl-C cancels, too
            told.line("stopping", f"what runs gets {args.grace:g} s; again: none", grace_s=args.grace)
            raise
        finally:
            await engine.close()
    except asyncio.CancelledError:
        with suppress(StoreError):
            while news is not None and told.page(news):
                pass
        told.line("stopped", "what is unfinished goes on with the next worker")
        return code
    return OK


async def _enter(engine: Engine, wait: bool, told: "Telling") -> None:
    """Become the one who executes the store; with `wait` as soon as it is free."""
    asked = False
    while True:
        try:
            await engine.__aenter__()
            return
        except StoreBusy as busy:
            if not wait:
                raise StoreBusy(f"{busy}; --wait waits until it is free", busy.holder) from None
            if not asked:
                told.line("waiting", f"{busy.holder or 'another process'} executes it", holder=busy.holder)
            asked = True
        await asyncio.sleep(WAIT_S)


async def _follow(engine: Engine, news: News, told: "Telling") -> None:
    blocked, more = 0, False
    while True:
        with suppress(StoreError):  # the engine says that the store cannot be read, and goes on when it can
            more = (more or news.due()) and told.page(news)
            if len(engine.worker.blocked) != blocked:
                blocked = told.blocked(engine)
        if engine.worker.closing:
            raise StoreBusy(f"another process has taken over {engine.store.url}; it goes on there")
        await asyncio.sleep(0 if more else LOOK_S)


class Telling:
    """What the worker says: a line each, for people or (`--json`) for programs, at once also in a pipe."""

    def __init__(self, screen: Screen, json: bool) -> None:
        self.screen, self._json = screen, json
        self._blocked: set[str] = set()

    def line(self, event: str, text: str, *, run: str = "", workflow: str = "", **more: Any) -> None:
        """Something has happened; `text` is what people read, `more` is for programs."""
        at = to_datetime(SystemClock().now())
        if self._json:
            about = {"run": run, "workflow": workflow} if run else {}
            self.screen.raw(as_json({"at": at, "event": event, **about, **more}, indent=None))
        else:
            style = {"completed": "green", "began": "cyan", "goes_on": "cyan", "ready": "bold"}
            word = event.replace("_", " ")
            parts = [visible(part) for part in (run, workflow) if part]
            colour = style.get(event, "yellow" if not run else "red")
            self.screen.print((clock(at)[11:], "dim"), "  ", *(f"{part}  " for part in parts),
                              (word, colour), f"  {visible(text)}" if text else "")  # fmt: skip
        self.screen.flush()

    def ready(self, engine: Engine) -> None:
        """What is executed, and whose runs in the store nobody here can."""
        names = [f"{flow.name} {flow.version}" for flow in engine.workflows.values()]
        self.line("ready", f"{', '.join(names)}; runs of {engine.store.url}", workflows=names)
        for row in engine.runs.drift():
            if (row["workflow"], row["version"]) not in engine.workflows:
                what = f"{row['workflow']} {row['version']}"
                text = f"{what}: in none of these files, {row['runs']} unfinished"
                self.line("missing", text, missing=what, runs=row["runs"])

    def page(self, news: News) -> bool:
        """The runs that began or ended since the last time; whether there may be more."""
        items, more = news.read()
        for event, text, about in items:
            self.line(event, text, **about)
        return more

    def blocked(self, engine: Engine) -> int:
        """The runs that cannot go on in this process, and why; returns how many there are."""
        runs = engine.worker.blocked
        for run_id in runs.keys() - self._blocked:
            error = runs[run_id]
            self._blocked.add(run_id)
            work = engine.store.work(run_id)
            name = work.workflow if work is not None else ""
            self.line("blocked", str(error).partition("\n")[0], run=run_id, workflow=name, error=str(error))
            if not self._json and "\n" in str(error):
                complain(error)
        return len(runs)


class _Said(logging.Handler):
    """Warnings of the library on stderr, made harmless for a terminal like everything else here."""

    def emit(self, record: logging.LogRecord) -> None:
        halted = isinstance(record.args, tuple) and any(isinstance(a, HandlerError) for a in record.args)
        if not halted:  # told as `blocked` already
            complain(record.getMessage(), Screen(sys.stderr))


def _say_warnings() -> None:
    """Unless the user's files have said where logs go."""
    logger = logging.getLogger("refold")
    if not logger.hasHandlers():
        logger.addHandler(_Said(logging.WARNING))
