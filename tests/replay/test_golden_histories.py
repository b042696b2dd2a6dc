"""Histories recorded once replay for ever: on every Python, in every process, whatever its hash seed."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from refold.events.errors import NonDeterminismError

from .golden import FOLDER, WORKFLOWS, read, record, replay_files, write
from .model_programs import model_program
from .model_workflows import MODEL
from .play import Difference, check
from .programs import program
from .workflows import HANDWRITTEN

ROOT = Path(__file__).parents[2]
FILES = sorted(FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_replays(path: Path) -> None:
    assert replay_files([path])[0] == 1


def test_there_are_enough_of_them() -> None:
    names = Counter(path.stem.rsplit("-", 1)[0] for path in FILES)
    assert names[program.name] >= 20
    assert names[model_program.name] >= 12
    assert all(names[name] >= 2 for name in (*HANDWRITTEN, *MODEL))
    assert sum(path.stat().st_size for path in FILES) < 600_000


@pytest.mark.parametrize("name", [*HANDWRITTEN, *MODEL])
def test_handwritten_workflows_replay_in_many_worlds(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert sum(check(workflow, record(name, seed)) for seed in range(100, 110)) > 20


def test_control_another_handler_does_not_replay_them(tmp_path: Path) -> None:
    (path,) = FOLDER.glob("fan_out-1.jsonl")
    _, history = read(path)
    with pytest.raises((Difference, NonDeterminismError)):
        check(WORKFLOWS["hedge"], history)
    tag, state = history.rows[3]
    history.rows[3] = (tag, state.replace(b'"step":', b'"step":4'))
    with pytest.raises((Difference, NonDeterminismError)):
        check(WORKFLOWS["fan_out"], history)


# ---- other processes


def pythons() -> list[str]:
    """This Python, and those of 3.12 and later for which `PYTHON=… ./dev test` made an environment."""
    others = sorted(str(path) for path in ROOT.glob(".venv-3.*/bin/python"))
    others += os.environ.get("REFOLD_TEST_PYTHONS", "").split(os.pathsep)
    return [sys.executable, *(path for path in others if path and Path(path).exists())]


def run(python: str, *arguments: str, hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "tests.replay.golden", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout.strip()


def test_other_processes_with_other_hash_seeds_and_addresses_replay_them() -> None:
    outputs = {
        run(python, "replay", str(FOLDER), "--junk", str(seed * 777), hash_seed=seed)
        for seed, python in enumerate([sys.executable, *pythons()], start=1)
    }
    (output,) = outputs
    assert output.startswith(f"histories {len(FILES)} ")


def test_what_one_process_or_python_records_another_one_replays(tmp_path: Path) -> None:
    for number, python in enumerate(pythons()):
        run(python, "record", str(tmp_path), "--programs", "8", "--seed", str(number * 50 + 900), hash_seed=9)
    count = len(list(tmp_path.glob("*.jsonl")))
    for python in pythons():
        output = run(python, "replay", str(tmp_path), "--junk", "5000", hash_seed=0)
        assert output.startswith(f"histories {count} ")


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    history = record("mailbox", 5)
    write(tmp_path / "x.jsonl", history, "a test")
    workflow, again = read(tmp_path / "x.jsonl")
    assert workflow is WORKFLOWS["mailbox"]
    assert [tag for tag, _ in again.rows] == [tag for tag, _ in history.rows]
