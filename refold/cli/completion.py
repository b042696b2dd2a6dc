"""`refold completion`: scripts for shells, made from the parser, so that they know what it knows."""

import argparse
from collections.abc import Callable
from shlex import quote

from ..events.errors import ConfigurationError, RefoldError
from ..events.stream import is_run
from . import parser
from .completion_bash import bash
from .completion_fish import fish
from .completion_words import Command, word_of
from .completion_zsh import zsh
from .exits import OK
from .screen import Screen
from .stores import looking
from .text import as_json

SHELLS: dict[str, Callable[[list[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
MANY = 200
"""Run ids offered at most: more are no help."""


def completion(args: argparse.Namespace, screen: Screen) -> int:
    """`refold completion SHELL`, or `--runs PREFIX` for the scripts themselves."""
    if args.runs is not None:
        found = _runs(args.store, args.runs)
        text = as_json(found) if args.json else "\n".join(found)
        if text:
            screen.raw(text)
        return OK
    if args.shell is None:
        raise ConfigurationError(f"for which shell? expected one of {', '.join(SHELLS)}")
    script = SHELLS[args.shell](commands_of(parser.build()))
    screen.raw(as_json({"shell": args.shell, "script": script}) if args.json else script)
    return OK


def commands_of(parser: argparse.ArgumentParser) -> list[Command]:
    """What there is to complete."""
    (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    return [
        Command(name, helps.get(name, ""), [word_of(action) for action in sub._actions])
        for name, sub in commands.choices.items()
    ]


def _runs(store: str | None, prefix: str) -> list[str]:
    """Ids that begin so. Nothing when there is no store: a shell that completes has nobody to tell.

    Only those that mean themselves on a command line: bash inserts what it is given as it is, so that an id
    like `;reboot;` or `$(…)` would be a command, and `*` would become the names of files.
    """
    try:
        with looking(store) as found:
            ids = [work.run_id for work, _ in found.all_work() if is_run(work.run_id)]
    except RefoldError:
        return []
    ids = [run_id for run_id in ids if run_id.startswith(prefix) and not run_id.startswith("-")]
    return [run_id for run_id in ids if quote(run_id) == run_id][:MANY]
