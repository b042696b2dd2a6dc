"""What a page shows on a terminal, done in a folder: commands, processes beside them, `kill -9`."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60
TYPING_S = 1.5
"""What a person needs to type the next line, when there is nothing to watch."""
SHELL_CHARACTERS = set("|<>;&$`*?()")


@dataclass(frozen=True)
class Done:
    """How a command has ended."""

    code: int
    told: str


class Server:
    """A `tests.docs.server`: programs and `refold` commands, each in a process forked from it."""

    def __init__(self) -> None:
        self._one = Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.server"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, order: dict[str, Any]) -> Any:
        """From any thread."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the fork server died"
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE_S)


class Job:
    """A command that runs beside the page."""

    def __init__(self, server: Server, folder: Path, number: int, command: list[str]) -> None:
        self._server = server
        self._output = folder.parent / f"{folder.name}.{number}"
        self._shown = 0
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("REFOLD", "PYTEST", "COV"))}
        order = {
            "command": command, "folder": str(folder), "output": str(self._output),
            "environment": environment | {"NO_COLOR": "1", "USER": "ana", "TZ": "UTC"},
        }  # fmt: skip
        self.pid: int = server.ask(order)
        self._code: int | None = None

    def told(self) -> str:
        """What it has printed so far."""
        return self._output.read_text() if self._output.exists() else ""

    def rest(self) -> str:
        """What it has printed behind what it was watched for."""
        return self.told()[self._shown :]

    def wait(self) -> Done:
        """Until it has ended."""
        while self._code is None:
            self._code = self._server.ask({"ended": self.pid})
            if self._code is None:
                sleep(0.02)
        return Done(self._code, self.told())

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._code is None:
            os.kill(self.pid, how)

    def until(self, text: str) -> None:
        """Wait until it has printed that."""
        deadline = monotonic() + PATIENCE_S
        while text not in self.rest():  # threads may tear a line from its end
            assert monotonic() < deadline, f"it has not said {text!r} but:\n{self.told()}"
            sleep(0.01)
        self._shown += self.rest().index(text) + len(text)
        self._shown += self.rest().startswith("\n")


class Terminal:
    """A folder, and what is typed there."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self.folder = folder
        self._jobs: list[Job] = []
        self._beside: list[Job] = []
        self._number = 0

    def start(self, *command: str) -> Job:
        """A `refold` command or a Python file, beside this one."""
        self._number += 1
        job = Job(self._server, self.folder, self._number, list(command))
        self._jobs.append(job)
        return job

    def run(self, *command: str) -> Done:
        """… to its end."""
        return self.start(*command).wait()

    def type(self, line: str, expected: str) -> str:
        """Do a line of a page; returns what it prints. What runs beside is watched until it has said that."""
        beside = line.endswith(" &")
        words = shlex.split(line.removesuffix(" &"))
        if words[0] == "kill":
            return self._kill(words)
        if words[0] == "wait":
            self._beside[-1].wait()
            return self._beside[-1].rest()
        if words[0] in ("refold", "python") and not SHELL_CHARACTERS & set(re.sub(r"'[^']*'", "", line[:-2])):
            job = self.start(*(words[1:] if words[0] == "python" else words))
            if beside:
                self._beside.append(job)
                for wanted in expected.splitlines():
                    job.until(wanted)
                if not expected:
                    sleep(TYPING_S)
                return expected
            return job.wait().told
        return self._in_a_shell(line)

    def _kill(self, words: list[str]) -> str:
        job = self._beside[-1]
        job.kill(signal.SIGKILL if "-9" in words else signal.SIGTERM)
        job.wait()
        return ""

    def _in_a_shell(self, line: str) -> str:
        """What needs a shell gets one, and this Python's `refold`."""
        place = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        environment = os.environ | {"PATH": place, "NO_COLOR": "1", "USER": "ana"}
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout

    def close(self) -> None:
        """Nothing is left behind."""
        for job in self._jobs:
            job.kill()
            job.wait()


@contextmanager
def terminal(server: Server, folder: Path) -> Iterator[Terminal]:
    """A terminal in that folder, which is made."""
    folder.mkdir(exist_ok=True)
    typed = Terminal(server, folder)
    try:
        yield typed
    finally:
        typed.close()
