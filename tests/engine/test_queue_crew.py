"""D13. Worker processes that die and freeze never have more runs of a queue under way than it allows."""

import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.verify import verify
from tests.engine.test_queues import most_at_once
from tests.engine.test_workers import Crew, crew

PROGRAM = """
import sys
import anyio
from refold import Context, Engine, Settings, step, workflow
from refold.queues import Queue

url, effects, role = sys.argv[1:4]

@step
async def work(number: int) -> int:
    await anyio.sleep(0.01)
    return number

@workflow
async def job(ctx: Context, number: int) -> int:
    await work(number)
    await ctx.sleep(0.02)
    return await work(number)

async def main() -> None:
    if role == "start":
        queues = [Queue("q", concurrency=3, per_key=2), Queue("other", concurrency=1)]
        async with Engine(url, workflows=[job], execute=False, queues=queues) as engine:
            for number in range(int(sys.argv[4])):
                queue = "other" if number % 6 == 5 else "q"
                key = "one" if number % 6 == 4 else "many"
                await engine.start(job, number, id=f"{queue}-{key}-{number}", queue=queue, queue_key=key)
        return
    settings = Settings(lease_ttl=1.0, lease_refresh=0.3, grace=0.2, max_active=4, projections=False)
    async with Engine(url, workflows=[job], settings=settings):
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def left(store: PostgresStore) -> int:
    return sum(work.state != "done" for work, _ in store.all_work())


def wait_for(store: PostgresStore, open_runs: int) -> None:
    deadline = monotonic() + 90
    while left(store) > open_runs:
        assert monotonic() < deadline, [work for work, _ in store.all_work() if work.state != "done"]
        sleep(0.02)


def storm(store: PostgresStore, made: Crew, runs: int, members: int) -> None:
    """Kill one, freeze one for longer than its lease, go on until all is done."""
    made.start_runs(runs)
    for _ in range(members):
        made.hire()
    wait_for(store, runs * 3 // 4)
    made.members[0].send_signal(signal.SIGSTOP)
    wait_for(store, runs // 2)
    made.dismiss(made.members[1])
    made.hire()
    wait_for(store, runs // 4)
    made.members[0].send_signal(signal.SIGCONT)
    wait_for(store, 0)


def check(store: PostgresStore) -> None:
    assert most_at_once(store, lambda run: run.startswith("q-")) == 3
    assert most_at_once(store, lambda run: run.startswith("q-many")) == 2
    assert most_at_once(store, lambda run: run.startswith("other-")) == 1
    for work, _ in store.all_work():
        ends = [row for row in store.read(work.run_id) if row.tag == t.RunCompleted.TAG]
        assert len(ends) == 1, work
    assert not verify(store).problems


@pytest.mark.parametrize(("runs", "members"), [(24, 3), pytest.param(400, 4, marks=pytest.mark.slow)])
def test_no_limit_is_passed_and_no_place_is_lost(
    postgres: str, tmp_path: Path, runs: int, members: int
) -> None:
    store = PostgresStore(postgres)
    try:
        with crew(postgres, tmp_path) as made:
            (tmp_path / "program.py").write_text(PROGRAM)
            storm(store, made, runs, members)
        check(store)
    finally:
        store.close()


STOPS_ITSELF = """
import os, signal
from refold.engine.recovery import Recovery

resume, stopped = Recovery._resume, []

def freezes(self, *rest):
    if not stopped:
        stopped.append(self)
        print("frozen", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    resume(self, *rest)

Recovery._resume = freezes
"""


@pytest.mark.slow
def test_one_that_is_stopped_right_before_it_begins_a_run_does_not_begin_it(
    postgres: str, tmp_path: Path
) -> None:
    store = PostgresStore(postgres)
    try:
        with crew(postgres, tmp_path) as made:
            (tmp_path / "program.py").write_text(PROGRAM.replace("concurrency=3, per_key=2", "concurrency=1"))
            (tmp_path / "freezes.py").write_text(STOPS_ITSELF + PROGRAM)
            made.start_runs(4)
            command = [sys.executable, str(tmp_path / "freezes.py"), *made.command("execute")[2:]]
            first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            made.members.append(first)
            assert first.stdout is not None
            while first.stdout.readline() != "frozen\n":
                pass
            made.hire()
            wait_for(store, 2)
            first.send_signal(signal.SIGCONT)
            wait_for(store, 0)
        assert most_at_once(store) == 1
    finally:
        store.close()
