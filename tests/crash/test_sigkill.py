"""SIGKILL to fresh processes at moments nobody chose, on a file that is synced as outside of tests."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from tests.crash.case import Case
from tests.crash.flows import LAPS
from tests.crash.kit import ROOT
from tests.crash.scene import Scene

KILLS = 14
"""In each of two tests."""
FLOWS = {"marathon": range(1), "dynasty": range(4, 5)}


def start(case: Case) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.crash.fresh", msgspec.json.encode(case).decode()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_at_random(process: subprocess.Popen[str], chance: random.Random) -> bool:
    """Kill it within its first 0.1 s of work, or, one time in seven, of its life; False: it was through."""
    assert process.stdout is not None
    if chance.random() > 1 / 7:
        process.stdout.readline()
    killer = threading.Timer(chance.uniform(0.0, 0.1), os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    _, errors = process.communicate(timeout=120)
    killer.cancel()
    killer.join()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("flow", "number"), [(flow, n) for flow, numbers in FLOWS.items() for n in numbers])
def test_fresh_processes_killed_at_random_moments_finish_the_run(
    flow: str, number: int, tmp_path: Path
) -> None:
    chance, scene, rounds = random.Random(number), Scene(tmp_path), 0
    deaths = 0
    while deaths < KILLS:
        folder = tmp_path / f"round-{rounds}"
        folder.mkdir()
        rounds += 1
        scene = Scene(folder)
        case = Case(folder=str(folder), flow=flow, synced=True)
        while deaths < KILLS and kill_at_random(start(case), chance):
            scene.say("deaths", "at a random moment")
            deaths += 1
        output, errors = start(case).communicate(timeout=120)
        assert output == "open\nend\n", errors
        assert [line[0] for line in scene.heard("problems")] == []
        results = {line[1] for line in scene.heard("acks") if line[0] == "result"}
        assert results == {marathon() if flow == "marathon" else dynasty()}


def dynasty() -> int:
    """What `dynasty` comes to, without any engine."""
    total = 0
    for left in range(5, -1, -1):
        number = left + 3
        total += sum(2 * n + 1 for n in range(number, number + 3)) + sum(range(number)) + 2 * left
    return total


def marathon() -> int:
    """What `marathon` comes to, without any engine."""
    total = 0
    for lap in range(LAPS):
        total += lap + 1
        total = 0 + 2 + 4 + total
        if lap % 10 == 0:
            total += lap
    return total
