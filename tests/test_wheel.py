"""What people install is what is here: the wheel, built from the sdist, holds every file of the package."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tidy import LAYERS

ROOT = Path(__file__).parent.parent
LITTER = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "build", "dist", "__pycache__", ".*_cache")


def build(folder: Path) -> set[str]:
    """Names in the wheel that the project in `folder` builds by way of its sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def expected(folder: Path) -> set[str]:
    """Every file of the door and the layers, under the name it has when installed."""
    names = {"pytest_refold.py"}
    for top in LAYERS:
        for path in (folder / top).glob("**/*"):
            parts = path.relative_to(folder).parts
            linked = parts[0] == "refold" and parts[1] in LAYERS
            if path.is_file() and not linked and path.suffix != ".pyc":
                names.add("/".join(parts if top == "refold" else ("refold", *parts)))
    return names


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=LITTER))


def test_the_wheel_holds_every_file_of_the_package(copy: Path) -> None:
    assert build(copy) == expected(copy)


def test_a_package_that_is_not_listed_would_be_missed(copy: Path) -> None:
    (copy / "engine" / "new").mkdir()
    (copy / "engine" / "new" / "__init__.py").write_text('"""Not in pyproject.toml."""\n')
    assert expected(copy) - build(copy) == {"refold/engine/new/__init__.py"}
