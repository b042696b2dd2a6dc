"""The page about the command line and `--help` say the same."""

import argparse
import re
from functools import cache
from pathlib import Path

import pytest

from refold.cli import exits
from refold.cli.parser import build

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reference" / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^## `refold (\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


@cache
def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = [a for a in build()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


def test_every_command_has_its_section() -> None:
    assert list(SECTIONS) == list(commands())


def test_a_command_that_is_built_alone_is_the_same() -> None:
    for name, parser in commands().items():
        (alone,) = [a for a in build(name)._actions if isinstance(a, argparse._SubParsersAction)]
        assert list(alone.choices) == [name]
        assert alone.choices[name].format_help() == parser.format_help()


@pytest.mark.parametrize("name", commands())
def test_every_option_is_documented_and_every_documented_one_exists(name: str) -> None:
    options = set()
    for action in commands()[name]._actions:
        if action.dest not in ("help", "json", "store"):
            options.add(action.option_strings[-1] if action.option_strings else action.metavar)
    assert set(re.findall(r"^\| `([^`]+)` \|", SECTIONS[name], re.MULTILINE)) == options


@pytest.mark.parametrize("name", commands())
def test_help_has_an_example_that_the_parser_takes(name: str) -> None:
    text = commands()[name].format_help()
    assert "example:\n" in text
    assert "exit codes: 0" in text
    for line in re.findall(r"^refold (.*)$", SECTIONS[name], re.MULTILINE):
        words = re.findall(r"'[^']*'|\S+", line.split(" | ")[0])
        assert build(name).parse_args([word.strip("'") for word in words]).command == name


def test_exit_codes_are_documented() -> None:
    for code in (exits.OK, exits.FAILED, exits.USAGE, exits.REFUSED):
        assert f"\n| {code} | " in PAGE
    assert f"\n| {exits.INTERRUPTED}, {exits.TERMINATED} | " in PAGE
