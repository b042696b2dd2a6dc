"""What clumsy hands do at the command line ends in one line that says what to do, never in a traceback."""

import io
import logging
import os
from pathlib import Path

import pytest

from refold import Context, Engine, workflow
from refold.cli import main
from refold.cli.exits import REFUSED, USAGE
from refold.engine.keeping_up import OnLoop
from refold.engine.read_models import ReadModels
from refold.errors import StoreFull

APP = """
from refold import Context, workflow

@workflow
async def shop(ctx: Context, n: int = 1) -> int:
    return n
"""

CLUMSY: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a folder as the store": (("runs", "--store", "."), REFUSED, "is a folder"),
    "a text as the store": (("show", "r", "--store", "app.py"), REFUSED, "give another path"),
    "an empty file as the store": (("runs", "--store", "empty.db"), REFUSED, "is empty"),
    "a store that is not there": (("runs",), REFUSED, "no store at"),
    "a value of the wrong type": (("run", "app.py:shop", "--input", '"x"'), USAGE, "Expected `int`"),
    "too many arguments": (("run", "app.py:shop", "--input", "[1, 2]"), USAGE, "the handler takes"),
    "an id of two lines": (("run", "app.py:shop", "--id", "a\nb"), USAGE, "printable"),
    "an id of a thousand": (("run", "app.py:shop", "--id", "a" * 1_000), USAGE, "1,000 characters"),
    "bytes that are no text": (("show", "\udcff"), REFUSED, "no run"),
    "a file with a mistake in it": (("run", "broken.py:shop"), USAGE, "SyntaxError"),
    "a file that ends the process": (("run", "exits.py:shop"), USAGE, "SystemExit"),
    "a workflow that is none": (("run", "app.py:Context"), USAGE, "is no @workflow"),
    "another run's id": (("signal", "r/inbox", "go", "--store", "good.db"), REFUSED, "no run"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "broken.py").write_text("def shop(:\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(7)\n")
    (tmp_path / "empty.db").touch()
    os.utime(tmp_path / "empty.db", (0, 0))  # one that is new is perhaps being made
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    return tmp_path


@pytest.mark.parametrize("what", CLUMSY)
def test_one_line_says_what_to_do(what: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, code, says = CLUMSY[what]
    if "good.db" in command:
        main(["run", "app.py:shop", "--store", "good.db"])
        capsys.readouterr()
    assert main(list(command)) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("refold: ")
    assert err.count("\n") == 1
    assert says in err


def test_a_folder_that_was_deleted_under_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(os, "dup2", lambda *files: None)  # pytest's own output goes on
    assert main(["runs"]) == REFUSED
    assert "whether the current folder is there" in capsys.readouterr().err


def test_an_output_that_takes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "app.py:shop"])
    monkeypatch.setattr(os, "dup2", lambda *files: None)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["runs"]) == REFUSED
        full.buffer.raw.close() if isinstance(full.buffer, io.BufferedWriter) else None
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_full_disk_of_the_read_models_is_told_once(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def shop(ctx: Context) -> int:
        return 1

    async with Engine("memory://", workflows=[shop]) as engine:
        models: ReadModels = engine.projections

        def full(number: int) -> int:
            raise StoreFull("no room")

        monkeypatch.setattr(models.runner, "catch_up", full)
        with caplog.at_level(logging.ERROR, logger="refold"):
            for _ in range(3):
                assert isinstance(models.follower, OnLoop)
                models.follower.look()
                models.follower.close()
    assert [record.message for record in caplog.records] == [
        "the read models cannot be written, the log goes on without them: no room"
    ]


@workflow
async def approval(ctx: Context) -> None:
    await ctx.approval("Is it a child of its own because it is called like that?")


def test_a_workflow_may_be_called_like_a_method_of_the_context() -> None:
    assert Engine("memory://", workflows=[approval]).workflows
