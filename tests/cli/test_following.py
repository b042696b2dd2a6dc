"""`refold show --follow`: another process executes the run, and whoever looks sees it go on."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from typing import Any

import pytest

from refold.cli import main, watching
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.events.stream import Row
from tests.cli.shell import PATIENCE_S, REFOLD, Shell
from tests.events.transfers import AT, put, scheduled, started

WAITING = '[{"total": "12.50", "note": "wait"}]'


@pytest.fixture
def waiting(shell: Shell) -> Shell:
    """A run that another process executes, and that waits for the event `paid`."""
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", WAITING)
    shell.until(lambda: shell.effects() == ["charge"], process)
    return shell


def test_in_a_pipe_each_event_is_a_line_as_it_comes_until_the_run_ends(
    waiting: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = waiting.start("show", "o1", "--follow")
    objects = waiting.start("show", "o1", "--follow", "--json")
    assert plain.stdout is not None
    assert objects.stdout is not None
    seen: list[str] = []
    while not seen or "wait.opened" not in seen[-1]:
        seen.append(plain.stdout.readline())
    assert [json.loads(objects.stdout.readline())["tag"] for _ in seen][-1] == "wait.opened"
    assert plain.poll() is None  # it has said all there is, and waits for more
    waiting("signal", "o1", "paid")
    rest, _ = plain.communicate(timeout=PATIENCE_S)
    others, _ = objects.communicate(timeout=PATIENCE_S)
    assert plain.returncode == objects.returncode == 0
    assert "signal.received" in rest.splitlines()[0]
    assert "run.completed" in rest.splitlines()[-1]
    assert len(others.splitlines()) == len(rest.splitlines())
    told = []
    for command in (["show", "o1", "--follow"], ["events", "o1"]):
        assert main([*command, "--store", str(waiting.folder / "refold.db")]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


def test_an_end_that_comes_between_two_looks_is_not_lost() -> None:
    class EndsAfterARead(MemoryStore):
        def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
            rows = super().read(stream, after, limit)
            if after and not rows:
                put(self, "r", t.RunTerminated(id="e", at=AT))
            return rows

    store = EndsAfterARead()
    put(store, "r", started(), scheduled(1))
    followed = [row.tag for row in watching._events(store, "r", store.read("r"))]
    assert followed == ["run.started", "step.scheduled", "run.terminated"]


class Terminal:
    """A command on a terminal of 100 columns, and what it has written so far."""

    def __init__(self, shell: Shell, *args: str) -> None:
        self.master, slave = pty.openpty()
        environment = shell.environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        self.process = subprocess.Popen(
            [*REFOLD, *args], cwd=shell.folder, env=environment, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.written = ""

    def read_until(self, text: str) -> None:
        """Until this was written, or, for an empty text, until the end."""
        while not text or text not in self.written:
            assert select([self.master], [], [], PATIENCE_S)[0], (
                f"{text!r} never came in {self.written[-2000:]}"
            )
            piece = b""
            with suppress(OSError):  # Linux says so when nobody holds the other end any more
                piece = os.read(self.master, 65_536)
            if not piece:
                assert not text, f"{text!r} never came in {self.written[-2000:]}"
                break
            self.written += piece.decode(errors="replace")

    def seen(self) -> str:
        """What was written since the last time."""
        written, self.written = self.written, ""
        return written


@contextmanager
def terminal(shell: Shell, *args: str) -> Iterator[Terminal]:
    opened = Terminal(shell, *args)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.master)


def test_on_a_terminal_the_timeline_is_drawn_anew_and_stays_when_the_run_has_ended(waiting: Shell) -> None:
    with terminal(waiting, "show", "o1", "--follow") as screen:
        screen.read_until("wait for paid")
        screen.read_until("following o1")
        drawn = screen.seen()
        assert "ship" not in drawn
        assert "nobody executes" not in drawn
        waiting("signal", "o1", "paid")
        screen.read_until("ship")
        screen.read_until("")
        assert screen.process.wait() == 0
        drawn = screen.seen()
    assert "completed" in drawn
    assert "following" not in drawn.rpartition("ship")[2]
    assert drawn.count("\x1b[?25h") == 1  # the cursor is back


def test_ctrl_c_leaves_the_run_alone(waiting: Shell) -> None:
    with terminal(waiting, "show", "o1", "--follow") as screen:
        screen.read_until("following o1")
        os.kill(screen.process.pid, signal.SIGINT)
        screen.read_until("")
        assert screen.process.wait() == 130
        assert screen.written.rstrip().endswith("interrupted")
        assert "Traceback" not in screen.written
        assert "\x1b[?25h" in screen.written
    waiting.close()  # the process that executed it is killed
    with terminal(waiting, "show", "o1", "--follow") as screen:
        screen.read_until("nobody executes the store now")
    run: Any = waiting.json("show", "o1")["run"]
    assert run["status"] == "waiting"
    assert run["cancel_requested"] is None
