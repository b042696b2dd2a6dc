"""The test's side of a cluster: hire processes, and let things happen to them and to the server."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

import psycopg

from refold.events.errors import StoreError
from refold.events.postgres import PostgresStore
from tests.crash.scene import Scene

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 120.0
CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'refold' AND random() < %s
"""


@cache
def forks() -> "subprocess.Popen[str]":
    """The process that forks all others, started when it is first needed; `stop` ends it."""
    command = [sys.executable, "-m", "tests.cluster.office"]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def stop() -> None:
    """End it, and every process that is left of its own."""
    if forks.cache_info().currsize:
        forks().communicate(timeout=60)
        forks.cache_clear()


def _ask(*order: object) -> int:
    process = forks()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "the office died"
    return int(answer)


class Office:
    """Hires processes that play a role (see roles.py) in one folder, on one store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(exist_ok=True)
        self.scene = Scene(folder)
        self.members: list[int] = []
        self.frozen: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in list(self.members):
            self.kill(member)

    def hire(self, role: str, *arguments: object, cheat: str = "") -> int:
        """Start a process; its id."""
        self.members.append(_ask("hire", str(self.folder), role, cheat, [self.url, *map(str, arguments)]))
        return self.members[-1]

    def wait(self, pid: int) -> int:
        """Its exit code, once it has ended."""
        self.members.remove(pid)
        return _ask("wait", pid)

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)  # not waited for by anybody else: it is still this very process
        self.frozen.discard(pid)
        self.wait(pid)

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.frozen.add(pid)

    def thaw(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)
        self.frozen.discard(pid)

    def ready(self, count: int) -> None:
        """Wait until so many processes have said that they are."""
        until(lambda: len(self.scene.heard("ready")) >= count)


def until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    deadline = monotonic() + within_s
    while not condition():
        assert monotonic() < deadline, f"still not so after {within_s} s: {condition}"
        sleep(0.01)


class Crowd:
    """Workers that die, freeze, and lose their connections."""

    def __init__(self, office: Office, workers: int, chance: random.Random, cheat: str = "") -> None:
        self.office, self.chance, self.cheat = office, chance, cheat
        self.members = [self._hire() for _ in range(workers)]
        self.happened: dict[str, int] = {"killed": 0, "frozen": 0, "cut": 0, "restarted": 0}
        self.restart_at = self.thaw_at = 0.0
        """When the server goes next, and when those who are frozen wake."""

    def _hire(self) -> int:
        return self.office.hire("worker", cheat=self.cheat)

    def kill_one(self) -> None:
        """And hire another one."""
        member = self.chance.choice(self.members)
        self.office.kill(member)
        self.members[self.members.index(member)] = self._hire()
        self.happened["killed"] += 1

    def freeze_one(self) -> None:
        """Not all of them: somebody has to take over."""
        awake = [member for member in self.members if member not in self.office.frozen]
        if len(awake) > max(1, len(self.members) // 2):
            self.office.freeze(self.chance.choice(awake))
            self.happened["frozen"] += 1

    def thaw_all(self) -> None:
        for member in list(self.office.frozen):
            self.office.thaw(member)

    def cut(self, dsn: str, share: float) -> None:
        """Close connections on the server's side."""
        with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as root:
            self.happened["cut"] += root.execute(CUT, (share,)).rowcount


def open_runs(url: str) -> int:
    """How many runs have not ended; -1 while the server does not say."""
    try:
        store = PostgresStore(url)
        try:
            return sum(work.state != "done" for work, _ in store.all_work())
        finally:
            store.close()
    except StoreError:
        return -1
