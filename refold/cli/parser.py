"""The command line as a whole; what a command does is loaded only when it is called."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .arguments import (
    acting,
    executing,
    explaining,
    looking,
    moving,
    operating,
    proving,
    queueing,
    scheduling,
    shells,
)
from .arguments.frame import Parser
from .exits import EPILOG, USAGE
from .screen import Screen

Command = Callable[[argparse.Namespace, Screen], int]

GROUPS = (executing, looking, explaining, acting, operating, queueing, scheduling, proving, moving, shells)
"""In the order of the help page."""


def parse(arguments: Sequence[str] | None) -> tuple[Command, argparse.Namespace]:
    """The function of the command and its arguments. Exits with 2 for a command line that cannot be read."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = build(given[0] if given else "")
    args = parser.parse_args(given)
    if args.command is None:
        parser.print_help()
        parser.exit(USAGE)
    module, _, function = args.does.partition(":")
    command: Command = getattr(importlib.import_module(module, __package__), function)
    return command, args


def build(only: str = "") -> argparse.ArgumentParser:
    """The whole command line; or as much as one command needs: all thirty cost as much as a query."""
    parser = Parser(
        prog="refold",
        description="Durable execution that you embed: runs survive kill -9, and the log tells everything.",
        epilog=f"try: refold demo\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    every = {add.__name__.removeprefix("_"): add for group in GROUPS for add in group.COMMANDS}
    for add in [every[only]] if only in every else every.values():
        add(commands)
    return parser


class _Version(argparse.Action):
    """`--version`, looked up only when asked for: `importlib.metadata` costs 47 ms."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from .. import __version__

        print(f"refold {__version__}")
        parser.exit()
