"""The command line, asked for what it cannot do: one line, exit code 2 or 3, no traceback."""

import asyncio
import contextlib
import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from refold import Context, Engine, Settings, step, workflow
from refold.cli import main, sql, worker
from refold.cli.exits import REFUSED, USAGE
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.projections.views_sqlite import SqliteViews
from tests.engine.kit import seen, waiting
from tests.errors.cases import Provoke, Said, meets

APP = """
from refold import Context, workflow

@workflow
async def first(ctx: Context, n: int = 1) -> int:
    return n

@workflow
async def second(ctx: Context) -> None:
    await ctx.wait_for_event("go")
"""


def complains(kind: str, *command: str) -> Provoke:
    """A command in a folder with an app and a store; what it says on stderr."""

    def provoke(folder: Path) -> Said:
        (folder / "app.py").write_text(APP)
        (folder / "empty.py").write_text("x = 1\n")
        (folder / "broken.py").write_text("import no_such_module\n")
        (folder / "notes.txt").write_text("Dear diary\n")
        open_store(folder / "refold.db").close()
        return Said(kind, said(folder, *command))

    return provoke


def said(folder: Path, *command: str) -> str:
    err, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main(list(command))
            except SystemExit as exit:
                code = exit.code  # type: ignore[assignment]
    finally:
        os.chdir(before)
    line = err.getvalue()
    assert code in (USAGE, REFUSED), (code, line)
    assert line.startswith("refold: "), line
    assert line.count("\n") == 1, line
    return line.removeprefix("refold: ").strip()


OF_THE_PROGRAM: dict[str, tuple[str, ...]] = {
    "expected FILE.py:WORKFLOW or MODULE:WORKFLOW, such as app.py:checkout": ("run", ":first"),
    "…: expected FILE.py:WORKFLOW or MODULE:WORKFLOW, such as app.py:checkout": ("run", "my app:first"),
    "no file …; expected FILE.py:WORKFLOW …": ("run", "missing.py:first"),
    "… is not a Python file; expected …": ("run", "notes.txt:first"),
    "cannot load …": ("run", "broken.py:first"),
    "…: which workflow? There are: …": ("run", "app.py"),
    "…: … Its workflows: …": ("run", "app.py:third"),
    "--label …: expected NAME=VALUE…": ("run", "app.py:first", "--label", "vip"),
    "--label …: … is no JSON: …": ("runs", "--label", "total:=three"),
    "… …: expected a time, such as …": ("runs", "--since", "yesterday"),
    "--input …: …": ("run", "app.py:first", "--input", "@missing.json"),
    "…: not JSON: …; a text needs quotes …": ("run", "app.py:first", "--input", "hello"),
    "--store is empty: is the variable set that it was to come from?": ("runs", "--store", ""),
    "…: a store in memory ends with its process; …": ("runs", "--store", "memory://"),
    "two stores: … and --store …; give one": ("verify", "refold.db", "--store", "other.db"),
    "--folder …: …": ("demo", "--folder", "notes.txt/inside", "--yes"),
    "…: expected a file: a worker executes …": ("worker", "app.py:first"),
    "…: it has no workflows; decorate one with @workflow": ("worker", "empty.py"),
    "…: nobody else could start runs there; …": ("worker", "app.py", "--store", "memory://"),
    "expected a run's id, or --workflow NAME for …": ("resume",),
    "either single runs or --all": ("export", "r", "--all"),
    "for which shell? expected one of …": ("completion",),
    "…: … there already, and nothing is ever overwritten; …": ("init", "."),
    "cannot write a project to …": ("init", "notes.txt"),
    "either --json or --csv": ("sql", "--json", "--csv"),
    "the query asks for nothing; …": ("sql", ""),
    "this query was refused: …": ("sql", "DELETE FROM runs"),
    "this query is no text: …": ("sql", "SELECT '\udc00'"),
    "a graph of what? give runs: …": ("export", "--format", "dot"),
    "--json tells about a file: give --output, too": ("export", "--all", "--json"),
    "there is no file …; give what …": ("import", "missing.jsonl"),
    "…: a store in memory would end with this command; give a path": ("import", "x", "--store", "memory://"),
}
for _message, _command in OF_THE_PROGRAM.items():
    meets("ConfigurationError", _message)(complains("ConfigurationError", *_command))

meets("StoreError", "cannot write …: …; nothing is left of it")(
    complains("StoreError", "export", "--all", "--output", "missing/log.jsonl")
)


@step(execution="at_most_once")
async def wire() -> None:
    await asyncio.get_running_loop().create_future()


@workflow
async def second(ctx: Context) -> None:
    await ctx.wait_for_event("go")


@workflow
async def wires(ctx: Context) -> None:
    await wire()


@workflow
async def asks(ctx: Context) -> None:
    await ctx.approval("Ship?")


@workflow
async def parent(ctx: Context) -> None:
    await ctx.child(asks)


def beside(flow: Any, *command: str, kind: str = "ActRefused") -> Provoke:
    """A command about the run `r`, which stands in the store."""

    async def start(store: Path) -> None:
        async with Engine(store, workflows=[flow], settings=Settings(grace=0)) as e:
            run = await e.start(flow, id="r")
            if flow is wires:
                await seen(run, t.StepStarted)
            else:
                await waiting(e, "r~1" if flow is parent else "r")

    def provoke(folder: Path) -> Said:
        asyncio.run(start(folder / "refold.db"))
        return Said(kind, said(folder, *command))

    return provoke


meets("ActRefused", "run … is …, not paused: there is nothing to resume; refold why …")(
    beside(second, "resume", "r")
)
meets("ActRefused", "run … has no step …; its steps: …")(beside(second, "reset", "r", "pay#1"))

meets("ActRefused", "run …: step … has not ended (…): there is nothing to reset; …")(
    beside(wires, "reset", "r", "wire#1")
)
meets("VoteRefused", "run …: no gate is open, but one of its child …")(
    beside(parent, "approve", "r", kind="VoteRefused")
)


@meets("ConfigurationError", "…: `refold sql` asks a SQLite file or PostgreSQL")
def ask_a_store_of_ones_own(folder: Path) -> None:
    with sql._connected(MemoryStore(), SqliteViews(None)):
        pass


@meets("StoreError", "cannot open … to read it: …")
def ask_a_file_that_is_gone(folder: Path) -> None:
    store = SimpleNamespace(path=folder / "missing" / "log.db", url="")
    with sql._connected(store, SqliteViews(None)):
        pass


@meets("StoreBusy", "…; --wait waits until it is free")
def a_second_worker(folder: Path) -> Said:
    return held(folder, "worker", "app.py")


@meets("StoreBusy", "…; or leave the run to that one: --detach")
def run_beside_a_worker(folder: Path) -> Said:
    return held(folder, "run", "app.py:first")


def held(folder: Path, *command: str) -> Said:
    """A command that wants to execute a store which another process executes."""
    (folder / "app.py").write_text(APP)
    store = open_store(folder / "refold.db")
    store.hold("the first")
    try:
        return Said("StoreBusy", said(folder, *command))
    finally:
        store.close()


@meets("StoreBusy", "another process has taken over …; it goes on there")
async def a_worker_that_is_taken_over(folder: Path) -> None:
    engine: Any = SimpleNamespace(
        worker=SimpleNamespace(blocked={}, closing=True), store=SimpleNamespace(url="shop.db")
    )
    await worker._follow(engine, mock.Mock(), mock.Mock())
