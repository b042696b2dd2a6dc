"""`refold why RUN`: in words, what a run waits for and since when, who executes it, what comes next."""

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from ..events.clock import SystemClock, to_datetime
from ..events.errors import RunNotFound
from ..events.hold import Holder
from ..events.store import Reading
from ..events.stream import INBOX
from ..projections.why import Standing, stand
from .exits import OK
from .screen import Screen
from .stores import executor_of, looking
from .text import as_json, visible, visible_lines
from .why_words import SHOWN, Said, tell


def why(args: argparse.Namespace, screen: Screen) -> int:
    """`refold why RUN`: folded from the log itself, so it is never behind."""
    with looking(args.store) as store:
        standing, executor = look(store, args.run), executor_of(store)
        children = dict(children_of(store, standing))
    told = tell(standing, to_datetime(SystemClock().now()), executor, children)
    if args.json:
        screen.raw(as_json(_as_data(standing, told, executor, args.store)))
        return OK
    for number, said in enumerate(told):
        _print(screen, said, args.store, first=number == 0)
    return OK


def children_of(store: Reading, standing: Standing) -> Iterator[tuple[str, Standing]]:
    """The children that are shown, each as it stands, or as the run does that goes on for it."""
    names = [wait.name for wait in standing.waits if wait.type == "child"][: SHOWN + 1]
    for name in names:
        if store.work(name) is not None:  # of a single run that was brought here the children may be missing
            child = look(store, name)
            while child.end is not None and child.end.next_run:
                child = look(store, child.end.next_run)
            yield name, child


def look(store: Reading, run_id: str) -> Standing:
    """How a run stands, its inbox included. Raises `RunNotFound`."""
    work = store.work(run_id) if "/" not in run_id else None
    if work is None:
        raise RunNotFound(run_id)
    return stand(store.read(run_id), store.read(run_id + INBOX, work.seen))


def command_line(words: list[str], store: str | None) -> str:
    """What to type: with the store that this command was given, and the file if it is at hand."""
    if words[1] == "run" and not Path(words[2].partition(":")[0]).exists():
        words = [*words[:2], "FILE.py:" + words[2].partition(":")[2], *words[3:]]
    return shlex.join([*words, "--store", store] if store else words)


def _print(screen: Screen, said: Said, store: str | None, *, first: bool) -> None:
    head, *rest = visible_lines(said.text)
    screen.print(("", "") if first else ("  ", ""), (head, "bold" if first else ""))
    screen.block(rest, indent=4)
    for words in said.commands:
        screen.print("      ", (visible(command_line(words, store)), "cyan"))


def _as_data(
    standing: Standing, told: list[Said], executor: Holder | None, store: str | None
) -> dict[str, Any]:
    tail = ["--store", store] if store else []
    return {
        **to_builtins(standing, builtin_types=()),
        "executor": None if executor is None else to_builtins(executor),
        "said": [said.text for said in told],
        "commands": [[*words, *tail] for said in told for words in said.commands],
    }
