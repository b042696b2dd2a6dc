"""Shells complete what the parser takes: the scripts are made from it, and bash runs its one here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from refold.cli import main
from refold.cli.completion import SHELLS, commands_of
from refold.cli.parser import build
from tests.cli.door import Door
from tests.engine.kit import waiting
from tests.engine.shop import patient

COMMANDS = commands_of(build())


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_knows_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    for command in COMMANDS:
        assert command.name in text
        for option in command.options:
            long = option.names[-1].removeprefix("--" if shell == "fish" else "")
            assert long in text
    assert text.isprintable() or set(text) - {"\n"} <= {c for c in text if c.isprintable()}


async def some_runs(door: Door) -> None:
    """Three, and ids that would be something else on a command line."""
    async with door.engine(patient) as e:
        for run in ("order-1", "order-2", "parcel-1", "*", "-x", ";id;", "$(id)", "a b", "`id`"):
            await e.start(patient, id=run)
            await waiting(e, run)


def test_bash_completes_commands_options_choices_and_run_ids(
    door: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anyio.run(some_runs, door)
    asked = {
        "wh": ["why"],
        "runs --status fa": ["failed"],
        "resolve order-1 pay#1 re": ["retry"],
        "why --s": ["--store"],
        "signal order-1 go --pay": ["--payload"],
        f"show --store {door.path} order": ["order-1", "order-2"],
        f"cancel --by ana --store {door.path} par": ["parcel-1"],
        f"export order-1 --store {door.path} par": ["parcel-1"],
        f"why --store {door.path} ": ["order-1", "order-2", "parcel-1"],
        "signal order-1 ": [],
        "cancel --by ": [],
        "verify run": ["runs.db"],
    }
    (tmp_path / "runs.db").touch()
    lines = [f'refold() {{ {sys.executable} -m refold "$@"; }}', script("bash", capsys)]
    for words in asked:
        first, *rest = ["refold", *words.split(" ")]
        quoted = " ".join(f"'{word}'" for word in [first, *rest])
        lines += [f"COMP_WORDS=({quoted}); COMP_CWORD={len(rest)}; _refold", 'echo "${COMPREPLY[*]}"']
    done = subprocess.run(
        ["bash", "-u"], input="\n".join(lines), cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert not done.stderr
    answers = done.stdout.splitlines()
    for (words, expected), answer in zip(asked.items(), answers, strict=True):
        found = [word for word in answer.split() if not word.startswith("runs.db.")]
        assert found == expected, words


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_itself_can_read_it(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    file = tmp_path / "script"
    file.write_text(script(shell, capsys))
    subprocess.run([shell, "-n", str(file)], check=True, capture_output=True)


def test_without_a_store_no_run_is_offered_and_nothing_complained_of(door: Door) -> None:
    assert door("completion", "--runs", "") == ""
    assert json.loads(door("completion", "--runs", "", "--json")) == []
    assert "for which shell? expected one of bash, zsh, fish" in door("completion", code=2)
