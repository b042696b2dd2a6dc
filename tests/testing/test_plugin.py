"""The pytest plugin, used as a project would that knows nothing of this repository."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from refold.events.transfer import export_log
from refold.testing import TestEngine

from .shop import paid

ROOT = Path(__file__).parents[2]

PROJECT = {
    "pytest.toml": "[pytest]\nstrict = true\nfilterwarnings = ['error']\n",
    "shop.py": (Path(__file__).parent / "shop.py").read_text(),
    "test_shop.py": """
import pytest
from shop import checkout, paid, charge, CARDS
from refold.testing import replay_history, CrashDifference

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_an_engine(refold_engine):
    async with refold_engine(paid, strict=True) as engine:
        mock = engine.mock(charge, returns="ok")
        assert await engine.run(paid, "visa") == "ok"
        assert len(mock.calls) == 1

def test_crashes(durable_crash, tmp_path):
    report = durable_crash(paid, "visa", observe=lambda: None)
    assert report.crashes == 4
    assert list(tmp_path.iterdir())

@pytest.mark.refold_histories("histories")
def test_histories(refold_history):
    replay_history(paid, refold_history)
""",
    "test_no_marker.py": """
def test_without_a_folder(refold_history):
    pass
""",
    "test_no_files.py": """
import pytest

@pytest.mark.refold_histories("nowhere")
def test_with_an_empty_folder(refold_history):
    pass
""",
}


def run(folder: Path, *arguments: str) -> str:
    """Pytest in a process of its own, with this plugin and anyio's only."""
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "pytest_refold", "-p", "anyio", *arguments],
        cwd=folder, text=True, capture_output=True, timeout=60,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **path},
    )  # fmt: skip
    return found.stdout + found.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.anyio
async def test_a_project_has_its_fixtures_and_its_marker(project: Path) -> None:
    async with TestEngine(workflows=[paid]) as engine:
        await engine.run(paid, "visa", id="order-7")
        (project / "histories").mkdir()
        for number in (1, 2):
            lines = "".join(export_log(engine.store, ["order-7"]))
            (project / "histories" / f"order-{number}.jsonl").write_text(lines)
    said = run(project, "--continue-on-collection-errors")
    assert "4 passed, 2 errors" in said, said
    assert "PASSED test_shop.py::test_histories[order-1]" in said
    assert "needs @pytest.mark.refold_histories(FOLDER)" in said
    assert "expected histories, found no *.jsonl" in said


def test_a_project_that_does_not_use_it_does_not_load_refold() -> None:
    program = "import sys, pytest_refold; print([m for m in sys.modules if m.partition('.')[0] == 'refold'])"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_it_is_what_pytest_finds_when_refold_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"refold": "pytest_refold"}
    assert project["tool"]["setuptools"]["py-modules"] == ["pytest_refold"]
