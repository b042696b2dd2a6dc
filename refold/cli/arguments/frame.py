"""What every command has: its parser, `--json`, `--store`, an example; and the kinds of arguments."""

import argparse
from typing import Any, NoReturn

from ..exits import EPILOG, USAGE
from ..screen import complain


class Parser(argparse.ArgumentParser):
    """Complains like everything else here, and in one place."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}\n{self.format_usage().rstrip()}\ntry {self.prog} --help")
        self.exit(USAGE)


def add(
    commands: Any, name: str, does: str, help: str, example: str, *, store: bool = True
) -> argparse.ArgumentParser:
    """A command: its name, the function that does it (`module:function`), a line of help, an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n{example}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(does=does)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    if store:
        parser.add_argument(
            "--store",
            metavar="STORE",
            help="path or URL of the store (default: $REFOLD_STORE, else refold.db)",
        )
    return parser


def natural(text: str) -> int:
    """An integer from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value}")
    return value


def positive(text: str) -> int:
    """An integer from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def span(text: str) -> float:
    """Seconds from 0, with a fraction or without."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text}")
    return value
