"""`refold run` without an id: it says at once how to go on, for after a kill -9 nobody can."""

import asyncio
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold import Engine
from tests.cli.shell import Shell

WAITING = '[{"total": "12.50", "note": "wait"}]'


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


async def send(store: Path, run_id: str) -> None:
    async with Engine(store, execute=False) as engine:
        await engine.signal(run_id, "paid")


def told_command(process: subprocess.Popen[str]) -> list[str]:
    """The command in what it says first."""
    assert process.stderr is not None
    assert "killed, it goes on with" in process.stderr.readline()
    return shlex.split(process.stderr.readline())[1:]


def test_killed_without_an_id_the_command_it_named_goes_on(shell: Shell) -> None:
    process = shell.start("run", "app.py:checkout", "--input", WAITING)
    command = told_command(process)
    shell.until(lambda: shell.effects() == ["charge"], process)
    process.kill()
    process.wait()
    again = shell.start("run", "app.py:checkout", "--input", WAITING)  # the same line anew: another run …
    assert told_command(again) != command
    assert again.stderr is not None
    assert "an earlier run of checkout is unfinished" in again.stderr.readline()  # … and the first is named
    assert shlex.split(again.stderr.readline())[1:] == command
    again.kill()
    again.wait()
    run_id = command[command.index("--id") + 1]
    asyncio.run(send(shell.folder / "refold.db", run_id))
    assert shell(*command) == '"parcel"\n'
    assert f"ship {run_id}/ship#1" in shell.effects()


def test_a_second_ctrl_c_does_not_wait_for_the_step(shell: Shell) -> None:
    shell.slow_down()
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", '{"total": "1"}')
    shell.until(shell.shipping, process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # the first one gives the step its grace, 10 s
        process.wait(timeout=0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "Traceback" not in said


ENDLESS = """
from refold import Context, workflow

@workflow
async def endless(ctx: Context) -> None:
    await ctx.sleep(0.01)
    print("round", flush=True)
    while True:
        pass
"""


@pytest.mark.parametrize("command", ["run", pytest.param("worker", marks=pytest.mark.slow)])
def test_the_first_ctrl_c_stops_a_handler_that_never_waits(shell: Shell, command: str) -> None:
    (shell.folder / "endless.py").write_text(ENDLESS)
    shell("run", "endless.py:endless", "--id", "r", "--detach")
    target = ["endless.py:endless", "--id", "r"] if command == "run" else ["endless.py"]
    process = shell.start(command, *target)
    assert process.stdout is not None
    while process.stdout.readline() != "round\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cannot stop in order: breaking it off" in said
    assert "Traceback" not in said
