"""Several worker processes execute one log on PostgreSQL, and die, freeze and come back."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.verify import verify

PROGRAM = """
import os, sys
import anyio
from refold import Context, Engine, Settings, current_step, step, workflow

url, effects, role = sys.argv[1:4]

@step
async def work(number: int) -> int:
    info = current_step()
    line = f"{info.run_id} {info.key} {info.attempt} {os.getpid()}\\n"
    fd = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)
    await anyio.sleep(0.01)
    return number

@workflow
async def piece(ctx: Context, number: int) -> int:
    return await work(number)

@workflow
async def job(ctx: Context, steps: int) -> int:
    total = 0
    for number in range(steps):
        total += await work(number)
        if number % 3 == 2:
            await ctx.sleep(0.02)
    return total + await ctx.child(piece, 1)

async def main() -> None:
    settings = Settings(lease_ttl=1.5, lease_refresh=0.5, grace=0.2, max_active=4)
    if role == "start":
        async with Engine(url, workflows=[job, piece], execute=False) as engine:
            for number in range(int(sys.argv[4])):
                await engine.start(job, 8, id=f"run-{number}")
        return
    async with Engine(url, workflows=[job, piece], settings=settings):
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


class Crew:
    """Worker processes, started again when they have died."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        (folder / "program.py").write_text(PROGRAM)
        self.members: list[subprocess.Popen[str]] = []

    def command(self, *more: str) -> list[str]:
        return [
            sys.executable,
            str(self.folder / "program.py"),
            self.url,
            str(self.folder / "effects"),
            *more,
        ]

    def start_runs(self, number: int) -> None:
        subprocess.run(self.command("start", str(number)), check=True, timeout=60)

    def hire(self) -> subprocess.Popen[str]:
        member = subprocess.Popen(self.command("execute"), stdout=subprocess.PIPE, text=True)
        self.members.append(member)
        assert member.stdout is not None
        assert member.stdout.readline() == "ready\n"
        return member

    def dismiss(self, member: subprocess.Popen[str]) -> None:
        self.members.remove(member)
        member.kill()
        member.communicate()

    def effects(self) -> list[list[str]]:
        path = self.folder / "effects"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def crew(url: str, folder: Path) -> Iterator[Crew]:
    made = Crew(url, folder)
    try:
        yield made
    finally:
        for member in list(made.members):
            member.send_signal(signal.SIGCONT)
            made.dismiss(member)


def open_runs(store: PostgresStore) -> int:
    return sum(work.state != "done" for work, _ in store.all_work())


def wait_for(store: PostgresStore, left: int) -> None:
    deadline = monotonic() + 60
    while open_runs(store) > left:
        assert monotonic() < deadline, [work for work, _ in store.all_work() if work.state != "done"]
        sleep(0.02)


def check(store: PostgresStore, made: Crew, runs: int) -> None:
    """Every run has completed, no step twice; no attempt was made twice; the log is whole."""
    for number in range(runs):
        events = [row.event() for row in store.read(f"run-{number}")]
        completed = Counter(event.step for event in events if isinstance(event, t.StepCompleted))
        assert len(completed) == 8
        assert set(completed.values()) == {1}
        assert sum(isinstance(event, t.RunCompleted) for event in events) == 1
    assert len(store.all_work()) == 2 * runs
    assert not verify(store).problems
    attempts = Counter((run, key, attempt) for run, key, attempt, _ in made.effects())
    assert set(attempts.values()) == {1}


def test_a_drained_worker_leaves_its_runs_to_the_others_at_once(postgres: str, tmp_path: Path) -> None:
    store = PostgresStore(postgres)
    with crew(postgres, tmp_path) as made:
        made.start_runs(4)
        first = made.hire()
        wait_for(store, 6)
        first.send_signal(signal.SIGINT)
        first.wait(30)
        assert [row[0] for row in store.leases.workers()] == []
        made.hire()
        wait_for(store, 0)
        check(store, made, 4)
    store.close()
