"""On a terminal there are colours and progress; in a pipe or with NO_COLOR there are none."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.shell import REFOLD, Shell

HIDE_CURSOR = "\x1b[?25l"


SHOW_CURSOR = "\x1b[?25h"
BESIDE = """
import fcntl, subprocess, sys, termios
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
sys.exit(subprocess.run(sys.argv[1:], process_group=0).returncode)
"""
"""A shell in front of which a command runs in the background, as after `&`."""


def on_a_terminal(shell: Shell, *args: str, **environment: str) -> str:
    """What a command writes to a terminal of 100 columns."""
    return written_by(shell, [*REFOLD, *args], environment)


def written_by(shell: Shell, command: list[str], environment: dict[str, str]) -> str:
    master, slave = pty.openpty()
    environment = shell.environment | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    process = subprocess.Popen(
        command,
        cwd=shell.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    written = b""
    while True:
        select.select([master], [], [])
        try:
            piece = os.read(master, 65_536)
        except OSError:  # Linux says so when nobody holds the other end any more
            break
        if not piece:
            break
        written += piece
    os.close(master)
    process.wait()
    return written.decode()


@pytest.fixture
def filled(shell: Shell) -> Shell:
    shell("run", "app.py:fails", "--id", "f", "--input", '"\\u001b[2J"', code=1)
    return shell


def test_a_terminal_gets_colours(filled: Shell) -> None:
    assert "\x1b[1;31mfailed" in on_a_terminal(filled, "runs")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(filled: Shell, environment: dict[str, str]) -> None:
    for command in (["runs"], ["show", "f"], ["verify"]):
        assert "\x1b" not in on_a_terminal(filled, *command, **environment)


def test_a_pipe_gets_plain_text(filled: Shell) -> None:
    assert "\x1b" not in filled("runs")


def test_escape_sequences_of_a_payload_stay_words_among_our_own(filled: Shell) -> None:
    for command in (["show", "f"], ["events", "f"], ["runs"]):
        written = on_a_terminal(filled, *command, COLUMNS="400")
        assert "\x1b[2J" not in written
        assert r"\x1b[2J" in written


def test_run_tells_what_is_going_on_and_prints_the_result(shell: Shell) -> None:
    written = on_a_terminal(shell, "run", "app.py:fails", "--id", "f")
    assert "refuse#1 attempt 1 failed" in written
    assert HIDE_CURSOR in written  # the line that changes
    assert written.count(SHOW_CURSOR) == 2  # at once, for who is killed cannot, and at the end
    written = on_a_terminal(shell, "run", "app.py:many", "--id", "m", "--input", "3")
    assert written.splitlines()[-1].endswith("3")
    assert "had ended before: nothing is run now" in on_a_terminal(shell, "run", "app.py:many", "--id", "m")


def test_a_run_that_was_brought_back_is_told_about_like_any_other(shell: Shell) -> None:
    shell("run", "app.py:fails", "--id", "f", code=1)
    shell("retry", "f")
    written = on_a_terminal(shell, "run", "app.py:fails", "--id", "f")
    assert "goes on: 0 steps done before" in written  # what failed is open again
    assert "refuse#1 attempt" in written
    assert "once that is mended, bring it back" in written
    assert "Traceback" not in written


def test_a_wide_table_fits_the_terminal(filled: Shell, tmp_path: Path) -> None:
    plain = on_a_terminal(filled, "runs", NO_COLOR="1", COLUMNS="80")
    assert max(map(len, plain.splitlines())) <= 80


def test_what_runs_beside_a_shell_draws_no_line_into_it(shell: Shell) -> None:
    command = [sys.executable, "-c", BESIDE, *REFOLD, "run", "app.py:fails", "--id", "f"]
    written = written_by(shell, command, {})
    assert "refuse#1 attempt 1 failed" in written
    assert HIDE_CURSOR not in written
