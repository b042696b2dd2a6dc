"""The demo's witness: every step body writes a line into a file before and after its effect.

The file knows nothing of the log, so that the two can be compared. O_APPEND, one write a line: what was
written survives the SIGKILL of its process, and lines of several threads do not mix.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from ..engine.bodies import StepInfo, current_step
from ..events.clock import SystemClock

FILE = "effects.log"


class Effect(Struct, frozen=True):
    """One line."""

    what: str
    """`begin`, `end`, or `kill` for the last line of the worker that killed itself."""
    key: str
    attempt: int
    pid: int
    at: float
    """Epoch seconds."""


class Doom:
    """When this process is to kill itself: set by the worker, asked by the step bodies."""

    kill_at = 0
    """In the so many-th body of the step `stage` that begins here; 0: never."""
    begun = 0


@contextmanager
def effect(folder: str) -> Iterator[StepInfo]:
    """The effect of the current step is inside."""
    info = current_step()
    _write(folder, "begin", info)
    yield info
    _write(folder, "end", info)


def perhaps_die(folder: str, info: StepInfo) -> None:
    """SIGKILL to ourselves, if this is the moment: nothing is flushed, closed or said goodbye to."""
    Doom.begun += 1
    if Doom.begun == Doom.kill_at:
        _write(folder, "kill", info)
        os.kill(os.getpid(), signal.SIGKILL)


def _write(folder: str, what: str, info: StepInfo) -> None:
    line = f"{what} {info.key} {info.attempt} {os.getpid()} {SystemClock().now():.6f}\n"
    file = os.open(os.path.join(folder, FILE), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(folder: Path) -> list[Effect]:
    """All lines so far."""
    path = folder / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        what, key, attempt, pid, at = line.split(" ")
        found.append(Effect(what, key, int(attempt), int(pid), float(at)))
    return found
