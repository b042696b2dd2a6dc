"""What shells are told of the command line: its commands, and each one's options and arguments."""

import argparse
from typing import NamedTuple

FILES = ("FILE", "STORE", "FOLDER")


class Word(NamedTuple):
    """An option with its names, or an argument without."""

    names: tuple[str, ...]
    takes: str
    """What its value is (`JSON`, `RUN` …); empty for a switch."""
    choices: tuple[str, ...]
    help: str
    many: bool

    @property
    def is_run(self) -> bool:
        return self.takes == "RUN" and not (self.names or self.choices)

    @property
    def is_file(self) -> bool:
        return any(word in self.takes for word in FILES)


class Command(NamedTuple):
    """A command."""

    name: str
    help: str
    words: list[Word]

    @property
    def options(self) -> list[Word]:
        return [word for word in self.words if word.names]

    @property
    def arguments(self) -> list[Word]:
        return [word for word in self.words if not word.names]


def word_of(action: argparse.Action) -> Word:
    """One action of the parser."""
    names = tuple(action.option_strings)
    takes = "" if action.nargs == 0 else str(action.metavar or action.dest).upper()
    choices = tuple(str(choice) for choice in action.choices or ())
    help = (action.help or "").replace("%(default)s", str(action.default))
    return Word(names, takes, choices, help, action.nargs in ("*", "+"))
