"""The test's side of the fork server."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.crash.case import Case, Outcome

ROOT = Path(__file__).parent.parent.parent


class Server:
    """A `tests.crash.server`, and folders for its cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cases = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def play(self, flow: str, *kills: int, reference: str = "", **rest: Any) -> Outcome:
        """Play a case in a folder of its own; see `Case`."""
        self._cases += 1
        case = Case(
            folder=str(self.folder / f"case-{self._cases}"), flow=flow, kills=kills,
            reference=str(self.folder / reference) if reference else "", **rest,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(msgspec.to_builtins(case)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the fork server died"
        outcome = msgspec.json.decode(line, type=Outcome)
        if outcome.problems and not case.cheat:
            outcome.problems.append(f"(files in {case.folder})")
        return outcome

    def unkilled(self, flow: str) -> Outcome:
        """The run that nobody kills; for a deterministic one its events become the reference."""
        outcome = self.play(flow, reference=reference_of(flow))
        assert outcome.problems == []
        return outcome


DETERMINISTIC = ("order", "branches", "tidied", "idle")
"""Workflows with one schedule only: their events are the same in every run."""


def reference_of(flow: str) -> str:
    return f"{flow}.json" if flow in DETERMINISTIC else ""
