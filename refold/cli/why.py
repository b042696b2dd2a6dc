"""`refold why RUN`: in words, what a run waits for and since when, who executes it, what comes next."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from ..events.clock import SystemClock, to_datetime
from ..events.hold import Holder, executor_of
from ..projections.why import Standing
from ..projections.why_of import children_of, look
from ..projections.why_words import Said, tell
from .exits import OK
from .screen import Screen
from .stores import looking
from .text import as_json, visible, visible_lines


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
