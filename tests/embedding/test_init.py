"""`refold init`: what it writes works as it is, and nothing that was there is touched."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold import Engine
from refold.cli import main
from refold.cli.init import RUN
from refold.cli.project import FILES
from tests.cli.shell import Shell


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Shell]:
    assert main(["init", str(tmp_path / "shop")]) == 0
    shell = Shell(tmp_path)
    shell.folder = tmp_path / "shop"
    yield shell
    shell.close()


def test_its_own_tests_pass(project: Shell) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # 1 s less
    done = subprocess.run(
        command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_it_runs_killed_and_approved_as_it_says(project: Shell) -> None:
    run = ("run", "app.py:checkout", "--id", "order-1", "--input", '"tea"')
    assert f"refold {' '.join(run[:-1])} '{run[-1]}'" == RUN
    process = project.start(*run)
    assert process.stderr is not None
    assert process.stderr.readline() == "charging for tea\n"
    project.until(lambda: blocked_on(project) == "timer", process)
    process.kill()
    process.wait()
    again = project.start(*run)
    project.until(lambda: blocked_on(project) == "approval", again)
    project("approve", "order-1")
    out, said = again.communicate(timeout=60)
    assert out == '"tea is on its way"\n'
    assert said == "shipping tea\n"


def blocked_on(project: Shell) -> str:
    async def look() -> str:
        async with Engine(project.folder / "refold.db", execute=False) as engine:
            return str(((await engine.get("order-1")).status()["blocked_on"] or {}).get("type"))

    return asyncio.run(look())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_what_to_type_next(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my shop"]) == 0
    said = capsys.readouterr().out
    assert "cd 'my shop'\n" in said
    assert RUN in said
    assert "\x1b" not in said
    assert main(["init", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == list(FILES)
    assert told["next"][0] == RUN


def test_code_that_is_there_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "app.py").write_text("mine")
    assert main(["init"]) == 2
    assert "app.py there already" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["app.py"]
    assert (here / "app.py").read_text() == "mine"


def test_a_readme_that_is_there_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "README.md").write_text("mine")
    assert main(["init"]) == 0
    assert "left as they are: README.md" in capsys.readouterr().out
    assert (here / "README.md").read_text() == "mine"
    assert (here / "app.py").exists()


def test_a_file_is_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "shop").touch()
    assert main(["init", "shop"]) == 2
    assert "cannot write a project to shop: File exists" in capsys.readouterr().err


def test_what_it_writes_is_tidy(here: Path) -> None:
    main(["init", "shop"])
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "--version"], capture_output=True, text=True, check=False
    )
    if ruff.returncode:
        pytest.skip("ruff is not installed")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length=110"],
            cwd="shop", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
