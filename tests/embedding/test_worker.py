"""`refold worker`: executes what others start, says so line by line, and stops in order."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold import Engine, workflow
from refold.cli import main
from tests.cli.shell import PATIENCE_S, Shell


@workflow
async def checkout(ctx: Any, order: Any) -> None:
    """The app's workflow, as a program knows it that only starts it."""


@workflow
async def unheard_of(ctx: Any) -> None:
    """One that the app does not have."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the app, for commands in this process."""
    Shell(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.modules", {**sys.modules})
    monkeypatch.delitem(sys.modules, "app", raising=False)
    return tmp_path


def start(shell: Shell, flow: Any, *args: Any, id: str) -> None:
    """As a web process would: without executing."""

    async def main() -> None:
        async with Engine(shell.folder / "refold.db", execute=False) as engine:
            await engine.start(flow, *args, id=id)

    asyncio.run(main())


def send(shell: Shell, run_id: str, name: str) -> None:
    async def main() -> None:
        async with Engine(shell.folder / "refold.db", execute=False) as engine:
            await engine.signal(run_id, name)

    asyncio.run(main())


def line(process: subprocess.Popen[str], *words: str) -> str:
    """The next line that holds all these words; the test ends here when none comes."""
    assert process.stdout is not None
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.start()
    heard = []
    try:
        for said in process.stdout:
            heard.append(said)
            if all(word in said for word in words):
                return said
    finally:
        patience.cancel()
    raise AssertionError(f"ended with {process.wait()} before it said {words}: {heard}")


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    return process.communicate(timeout=30)


def test_it_executes_what_others_start_and_goes_on_after_a_polite_stop(shell: Shell) -> None:
    start(shell, checkout, {"total": "1"}, id="before")
    process = shell.start("worker", "app.py")
    line(process, "ready", "checkout 1")
    line(process, "before", "completed")
    start(shell, checkout, {"total": "1", "note": "wait"}, id="while")
    line(process, "while", "began")
    shell.until(lambda: shell.effects().count("charge") == 2, process)
    said, _ = stop(process)
    assert process.returncode == 0
    assert "stopped" in said
    send(shell, "while", "paid")
    again = shell.start("worker", "app.py")
    line(again, "while", "goes on")
    line(again, "while", "completed")
    stop(again, signal.SIGINT)
    assert again.returncode == 130
    assert shell.effects().count("charge") == 2


def test_a_run_may_be_stored_for_a_worker_from_the_command_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ("--input", '{"total": "1"}', "--detach")
    assert main(["run", "app.py:checkout", "--id", "o1", *order]) == 0
    assert capsys.readouterr().out == "o1\n"
    assert main(["run", "app.py:checkout", "--id", "o1", *order, "--json"]) == 0  # the same run
    assert json.loads(capsys.readouterr().out) == {"run": "o1", "status": "pending"}
    assert not (here / "effects.txt").exists()
    assert main(["run", "app.py:checkout", "--id", "o1"]) == 0  # whoever executes the store does it
    assert capsys.readouterr().out == '"parcel"\n'


def test_a_second_one_is_told_who_is_there_and_with_wait_takes_its_place(
    shell: Shell, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shell.start("worker", "app.py")
    line(first, "ready")
    assert main(["worker", "app.py"]) == 3
    refused = capsys.readouterr().err
    assert f"pid {first.pid}" in refused
    assert "--wait" in refused
    second = shell.start("worker", "app.py", "--wait", "--json")
    assert f"pid {first.pid}" in json.loads(line(second, "waiting"))["holder"]
    first.kill()
    line(second, "ready")
    start(shell, unheard_of, id="u1")
    blocked = json.loads(line(second, "blocked"))
    assert (blocked["run"], blocked["workflow"]) == ("u1", "unheard_of")
    assert "not registered" in blocked["error"]
    start(shell, checkout, {"total": "1"}, id="o1")
    ended = json.loads(line(second, "completed"))
    assert (ended["run"], ended["workflow"]) == ("o1", "checkout")
    stop(second)
    assert second.returncode == 0


def test_a_step_gets_the_grace_and_a_second_signal_ends_it_at_once(shell: Shell) -> None:
    shell.slow_down()
    start(shell, checkout, {"total": "1"}, id="o1")
    process = shell.start("worker", "app.py", "--grace", "3600")
    shell.until(shell.shipping, process)
    process.send_signal(signal.SIGTERM)
    line(process, "stopping", "3600 s")
    stop(process)
    assert process.returncode == 130


MISTAKES = [
    (
        ("run", "app.py:many", "--input", "1", "--detach", "--store", "memory://"),
        "nobody else could start runs",
    ),
    (("worker", "none.py"), "no file none.py"),
    (("worker", "empty.py"), "empty.py: it has no workflows"),
    (("worker", "app.py:checkout"), "executes all workflows of app.py"),
    (("worker", "app.py", "twin.py"), "two workflows are called 'checkout'"),
    (("worker", "app.py", "--store", "memory://"), "nobody else could start runs there"),
    (("worker", "app.py", "--grace", "nan"), "expected seconds"),
    (("worker",), "FILE.py"),
]


@pytest.mark.parametrize(("args", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_a_sentence(
    args: tuple[str, ...],
    text: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "empty.py").touch()
    (here / "twin.py").write_text((here / "app.py").read_text())
    try:
        code = main(args)
    except SystemExit as exit:
        code = exit.code  # type: ignore[assignment]
    assert code == 2
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said
