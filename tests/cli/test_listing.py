"""Lists of runs by what they are, and who executes them; in this process, for what they print."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, workflow
from refold.cli import main
from tests.cli.shell import Shell

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
Says = Callable[..., str]


@workflow
async def waits(ctx: Context) -> str:
    return str(await ctx.wait_for_event("go"))


@workflow
async def family(ctx: Context) -> None:
    await ctx.child(waits)


@workflow
async def ends(ctx: Context) -> int:
    return 7


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no")


@pytest.fixture
def says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Says:
    """Runs a command on the store and gives what it printed."""

    def run(*args: str, code: int = 0) -> str:
        assert main([*args, "--store", str(tmp_path / "x.db")]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def ids(says: Says, *filters: str) -> list[str]:
    return [run["run_id"] for run in json.loads(says("runs", *filters, "--json"))["runs"]]


async def fill(path: Path) -> None:
    async with Engine(path, workflows=[waits, family, ends, fails]) as engine:
        await (await engine.start(ends, id="done", attributes={"shop": "Bern", "size": 3})).result()
        await (await engine.start(ends, id="hidden")).result()
        await engine.dismiss("hidden")
        failed = await engine.start(fails, id="failed")
        with pytest.raises(Exception, match="no"):
            await failed.result()
        await engine.start(family, id="top")
        while not engine.runs.list(blocked_on="event").runs:
            await engine.projections.wait()


async def test_runs_are_found_by_each_filter(tmp_path: Path, says: Says) -> None:
    await fill(tmp_path / "x.db")
    every = ids(says)
    child = every[0]
    assert every[1:] == ["top", "failed", "done"]
    assert ids(says, "--status", "failed", "--status", "completed") == ["failed", "done"]
    assert ids(says, "--blocked", "event") == ids(says, "--parent", "top") == [child]
    assert ids(says, "--blocked", "child") == ["top"]
    assert ids(says, "--family", "top") == [child, "top"]
    assert ids(says, "--label", "shop=Bern", "--label", "size:=3") == ["done"]
    assert ids(says, "--label", "size=3") == []  # a text is not a number
    assert ids(says, "--all") == [child, "top", "failed", "hidden", "done"]
    assert ids(says, "--dismissed") == ["hidden"]
    assert ids(says, "--since", "1h") == every
    assert ids(says, "--before", "1h") == ids(says, "--since", "2100-01-01") == []
    assert says("runs", "--since", "2100", "--blocked", "retry", code=2).startswith("refold: --since '2100'")
    assert "no runs with --blocked retry --since 30m in sqlite" in says(
        "runs", "--since", "30m", "--blocked", "retry"
    )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--since", "yesterday", "expected a time"),
        ("--before", "2x", "expected a time"),
        ("--label", "shop", "expected NAME=VALUE"),
        ("--label", "size:=three", "'three' is no JSON"),
        ("--cursor", "here", "is no cursor"),
    ],
)
async def test_a_filter_that_says_nothing_is_refused_in_a_line(
    tmp_path: Path, says: Says, option: str, value: str, said: str
) -> None:
    async with Engine(tmp_path / "x.db"):
        pass
    text = says("runs", option, value, code=2)
    assert said in text
    assert text.count("\n") == 1


async def test_workers_tells_who_executes_the_store_and_what_it_holds(tmp_path: Path, says: Says) -> None:
    async with Engine(tmp_path / "x.db", workflows=[waits, ends]) as engine:
        await (await engine.start(ends, id="done")).result()
        await engine.start(waits, id="open")
        while not engine.runs.list(blocked_on="event").runs:
            await engine.projections.wait()
        (found,) = json.loads(says("workers", "--json"))["workers"]
        assert found["pid"] == os.getpid()
        assert found["host"] == os.uname().nodename
        assert found["runs"] == {"waiting": 1}
        assert found["alive"]
        line = says("workers").splitlines()[1]
        assert str(os.getpid()) in line
        assert "1 waiting" in line
    said = says("workers")
    assert re.search(r"nobody executes .*x\.db now; its last event is of \d{4}-", said)
    assert "1 run that is not over" in said
    assert json.loads(says("workers", "--json")) | {"last_write": ""} == {
        "workers": [], "unfinished": {"waiting": 1}, "last_write": "",
    }  # fmt: skip


def test_workers_names_a_process_that_lives_and_none_that_was_killed(shell: Shell) -> None:
    process = shell.start(
        "run", "app.py:checkout", "--id", "o1", "--input", '[{"total": "1", "note": "wait"}]'
    )

    def workers() -> Any:
        return shell.json("workers")["workers"]

    shell.until(lambda: shell.folder.joinpath("refold.db").exists(), process)
    shell.until(workers, process)
    assert [worker["pid"] for worker in workers()] == [process.pid]
    process.kill()
    process.wait()
    assert workers() == []


# ---- what was damaged ------------------------------------------------------------------------------


def damage(path: Path, run_id: str, tag: str, state: bytes) -> None:
    with closing(sqlite3.connect(path)) as file:
        changed = "UPDATE stored_events SET state = ? WHERE originator_id = ? AND topic = ?"
        assert file.execute(changed, (state, run_id, tag)).rowcount
        file.commit()


@pytest.mark.parametrize("state", [b'{"id":1', b"[]", b"{}", b'"\xff"'])
async def test_a_damaged_event_is_named_and_the_others_are_still_listed(
    tmp_path: Path, says: Says, state: bytes
) -> None:
    async with Engine(tmp_path / "x.db", workflows=[ends]) as engine:
        await (await engine.start(ends, id="a")).result()
        await (await engine.start(ends, id="b")).result()
    damage(tmp_path / "x.db", "a", "run.claimed", state)
    said = says("show", "a", code=3)
    assert said.startswith("refold: event 'run.claimed' at a@2 does not fit its type")
    assert said.count("\n") == 1
    assert "run.claimed" in says("events", "a").splitlines()[1]
    assert len(json.loads(says("events", "a", "--json"))) == len(says("show", "a", "--follow").splitlines())
    assert "completed" in says("show", "b")
    assert "nobody executes" in says("workers")


async def test_a_history_with_a_hole_is_refused_in_words(tmp_path: Path, says: Says) -> None:
    async with Engine(tmp_path / "x.db", workflows=[ends]) as engine:
        await (await engine.start(ends, id="a")).result()
    with closing(sqlite3.connect(tmp_path / "x.db")) as file:
        file.execute("DELETE FROM stored_events WHERE originator_id = 'a' AND originator_version = 1")
        file.commit()
    assert "its events do not follow from each other" in says("show", "a", code=3)


# ---- without the right to write ---------------------------------------------------------------------

READ_ONLY = """
import os, sys
import refold.cli.listing, refold.cli.workers, refold.events.sqlite_reader  # now: the other may not read them
if os.geteuid() == 0:
    os.seteuid(65534)
from refold.cli import main
for command in ("runs", "workers"):
    assert main([command, "--store", sys.argv[1]]) == 0
"""


def read_only(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The program above, run by somebody who may read the store in this folder and no more."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READ_ONLY, str(folder / "x.db")]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )  # fmt: skip
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("models", ["none", "of before", "up to date"])
async def test_a_store_that_may_only_be_read_is_listed_from_memory(models: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # those of pytest are private
        folder = Path(name)
        async with Engine(folder / "x.db", workflows=[ends]) as engine:
            await (await engine.start(ends, id="a")).result()
            await engine.projections.wait()
        before = (folder / "x.db.views").read_bytes()
        async with Engine(folder / "x.db", workflows=[ends]) as engine:
            await (await engine.start(ends, id="b")).result()
            await engine.projections.wait()
        if models == "none":
            (folder / "x.db.views").unlink()
        elif models == "of before":
            (folder / "x.db.views").write_bytes(before)
        done = read_only(folder)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["run", "b", "a", "nobody"]
