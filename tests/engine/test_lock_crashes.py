"""Killed around taking and freeing a key: never two holders, never a key that nobody frees."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.stream import LOCKS
from refold.events.verify import verify

ALL = (1, 200, 1)


def crashes(folder: Path, cheat: str, moments: tuple[int, int, int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engine.lock_crashes", str(folder), cheat, *map(str, moments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("moments", "least"),
    [((2, 200, 8), 3), pytest.param(ALL, 28, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_a_key_is_held_by_the_run_that_has_it_whenever_its_process_dies(
    tmp_path: Path, moments: tuple[int, int, int], least: int
) -> None:
    """D05."""
    found = crashes(tmp_path, "nothing", moments)
    assert found["problems"] == []
    assert found["deaths"] >= least


@pytest.mark.slow
def test_a_key_that_is_freed_after_the_end_is_noticed(tmp_path: Path) -> None:
    assert (
        "killed at 4: ['waits'] hold it, open are []"
        in crashes(tmp_path, "frees_later", (4, 5, 1))["problems"]
    )


@pytest.mark.slow
def test_a_key_that_is_taken_before_the_start_is_noticed(tmp_path: Path) -> None:
    assert (
        "killed at 3: ['waits'] hold it, open are []"
        in crashes(tmp_path, "takes_before", (3, 4, 1))["problems"]
    )


STARTS = """
import asyncio, sys
from refold import Context, Engine, workflow
from refold.errors import Locked

@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("go")

async def main(url: str, count: int) -> None:
    async with Engine(url, execute=False) as engine:
        print("ready", flush=True)
        sys.stdin.readline()
        starts = [engine.start(waits, id=f"{sys.argv[3]}-{n}", lock="/srv/data") for n in range(count)]
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(outcome, Locked):
                print("refused by", outcome.run_id)
            else:
                print("won", outcome.id)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_of_fifty_starts_from_four_processes_one_wins(postgres: str, tmp_path: Path) -> None:
    """D05."""
    (tmp_path / "starts.py").write_text(STARTS)
    shares = (13, 13, 12, 12)
    store = PostgresStore(postgres)
    made: list[subprocess.Popen[str]] = []
    try:
        for number, share in enumerate(shares):
            command = [sys.executable, str(tmp_path / "starts.py"), postgres, str(share), f"p{number}"]
            made.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in made:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in made:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [line for process in made for line in process.communicate(timeout=120)[0].splitlines()]
    finally:
        for process in made:
            process.kill()
            process.communicate()
    (winner,) = [line.removeprefix("won ") for line in said if line.startswith("won ")]
    assert Counter(said)[f"refused by {winner}"] == 49
    first, *rest = [row.event() for row in store.read(LOCKS + "/srv/data")]
    assert isinstance(first, t.LockTaken)
    assert first.run_id == winner
    refused = [note for note in rest if isinstance(note, t.LockRefused)]
    assert len(refused) == len(rest) == 49
    assert {note.holder for note in refused} == {winner}
    assert len({note.run_id for note in refused}) == 49
    assert [work.run_id for work, _ in store.all_work()] == [winner]
    assert not verify(store).problems
    store.close()
