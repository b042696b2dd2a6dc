"""The power goes, or SIGKILL comes, at any moment of a commit: what was acknowledged is there."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from refold.events.errors import StoreError
from refold.events.sqlite import SQLiteStore
from refold.events.verify import verify
from tests.events import programs
from tests.events.power.images import Image, images, read_record

IMAGES = 1_000
COMMITS = 120


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    if not sys.platform.startswith("linux"):
        pytest.skip("LOUD: the power-cut shim needs Linux")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("LOUD: no C compiler, power cuts cannot be simulated (Debian: apt install gcc)")
    source = Path(__file__).parent / "power" / "shim.c"
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    command = [
        compiler,
        "-O1",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(source),
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


def run_under(shim: Path, folder: Path, name: str, *arguments: object, record: Path | None = None) -> str:
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_DIR": f"{folder.resolve()}/"}
    if record is not None:
        environment["SHIM_LOG"] = str(record)
    command = programs.command(name, *arguments)
    done = subprocess.run(
        command, cwd=programs.ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def acknowledged_but_lost(image: Image, path: Path) -> int:
    """Start from the image as after a power cut; how many acknowledged events are missing."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    for name, data in image.files.items():
        if not name.endswith("-shm"):
            (path.parent / name).write_bytes(data)
    store = SQLiteStore(path)
    try:
        found = verify(store)
        assert not found.problems, found.problems
        return sum(
            max(0, version - store.tail(stream).version) for stream, version in image.acknowledged.items()
        )
    finally:
        store.close()


def outcomes(shim: Path, tmp_path: Path, synchronous: str, count: int) -> Counter[str]:
    folder, record = tmp_path / "disk", tmp_path / "record"
    folder.mkdir()
    run_under(shim, folder, "commit_and_acknowledge", folder / "log.db", synchronous, COMMITS, record=record)
    ops = read_record(record)
    kinds = Counter((op.kind, op.name) for op in ops)
    assert kinds["A", "ACK"] == COMMITS
    assert kinds["W", "log.db"] > 100, "there were no checkpoints"
    results: Counter[str] = Counter()
    # in memory where there is such a folder: nothing here depends on a disk any more
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path) as after:
        for image in images(ops, count, seed=1):
            try:
                lost = acknowledged_but_lost(image, Path(after) / "log.db")
                results["lost" if lost else "whole"] += 1
            except (StoreError, AssertionError) as error:
                results[type(error).__name__] += 1
    print(synchronous, dict(results))
    return results


def test_a_power_cut_loses_nothing_that_was_acknowledged(shim: Path, tmp_path: Path) -> None:
    assert outcomes(shim, tmp_path, "FULL", IMAGES) == {"whole": IMAGES}


def test_without_waiting_for_the_disk_a_power_cut_loses_events(shim: Path, tmp_path: Path) -> None:
    """The control of the test above."""
    results = outcomes(shim, tmp_path, "OFF", 100)
    assert results["lost"] > 10
    assert results["whole"] < 100


def test_killed_at_any_system_call_of_a_commit_the_file_holds_all_of_it_or_nothing(
    shim: Path, tmp_path: Path
) -> None:
    rows = json.loads(run_under(shim, tmp_path, "kill_at_every_call", tmp_path))
    whole, nothing = (42, "running", 0), (2, "pending", 0)
    states = [tuple(row[1:4]) for row in rows]
    assert set(states) == {whole, nothing}
    assert all(state == whole for state, row in zip(states, rows, strict=True) if row[4])
    killed = [state for state, row in zip(states, rows, strict=True) if not row[4]]
    assert killed.count(nothing) > 10, "before and inside the commit"
    assert killed.count(whole) > 10, "inside it and in the checkpoint after it"
