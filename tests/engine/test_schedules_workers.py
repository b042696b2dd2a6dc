"""One schedule, several worker processes on PostgreSQL that die and freeze: each time once, none lost."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from refold import Context, Engine, Settings, workflow
from refold.engine import schedule_firing, schedule_log
from refold.events import types as t
from refold.events.clock import new_run_id
from refold.events.dispatch import work_differences
from refold.events.open import open_store
from refold.events.store import Store
from refold.events.stream import SCHEDULES, is_run
from refold.events.verify import verify
from tests.engine import kit
from tests.engine.kit import HandClock

PROGRAM = """
import sys
import anyio
from refold import Context, Engine, Settings, workflow
from refold.engine import schedule_firing, schedule_log

@workflow
async def tick(ctx: Context) -> str:
    return ctx.attributes["scheduled_for"]

async def main() -> None:
    settings = Settings(lease_ttl=1.5, lease_refresh=0.5, grace=0.2, projections=False)
    async with Engine(sys.argv[1], workflows=[tick], settings=settings):
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""
EVERY = timedelta(seconds=0.1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@workflow
async def tick(ctx: Context) -> str:
    return str(ctx.attributes["scheduled_for"])


class Crew:
    """Workers of one store."""

    def __init__(self, url: str, folder: Path) -> None:
        self.command = [sys.executable, str(folder / "program.py"), url]
        (folder / "program.py").write_text(PROGRAM)
        self.members: list[subprocess.Popen[str]] = []

    def hire(self, number: int) -> None:
        """All at once: a process takes its time to start."""
        fresh = [subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
        self.members += fresh
        for member in fresh:
            assert member.stdout is not None
            assert member.stdout.readline() == "ready\n"

    def dismiss(self, member: subprocess.Popen[str]) -> None:
        self.members.remove(member)
        member.kill()
        member.communicate()


@contextmanager
def crew(url: str, folder: Path) -> Iterator[Crew]:
    made = Crew(url, folder)
    try:
        yield made
    finally:
        for member in list(made.members):
            made.dismiss(member)


def fired(store: Store) -> list[t.ScheduleFired]:
    events = [row.event() for row in store.read(SCHEDULES + "tick")]
    return [event for event in events if isinstance(event, t.ScheduleFired)]


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 90
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


async def _say(url: str, what: str) -> None:
    async with Engine(url, workflows=[tick], execute=False, settings=Settings(projections=False)) as engine:
        if what == "create":
            await engine.schedules.create(
                "tick", tick, every=EVERY.total_seconds(), catch_up="all", overlap="allow_all"
            )
        else:
            await engine.schedules.pause("tick")


def check(store: Store) -> None:
    """Every time from the first to the last has become one run, which has completed."""
    times = [event.nominal for event in fired(store)]
    assert times == [times[0] + number * EVERY for number in range(len(times))]
    assert (times[0] - EPOCH) % EVERY == timedelta(0)
    runs = {event.run_id for event in fired(store)}
    assert len(runs) == len(times)
    tags = [row.event().TAG for row in store.read(SCHEDULES + "tick")]
    assert set(tags) == {"schedule.created", "schedule.fired", "schedule.paused"}
    for run_id in runs:
        events = [row.event() for row in store.read(run_id)]
        assert sum(isinstance(event, t.RunStarted) for event in events) == 1
        assert sum(isinstance(event, t.RunCompleted) for event in events) == 1
    assert not work_differences(store)
    assert not verify(store).problems


def storm(url: str, folder: Path, marks: range, chance: random.Random, members: int) -> int:
    """At each of these numbers of times one worker freezes, or wakes and another one dies; from four on that
    one is replaced."""
    store = open_store(url)
    try:
        with crew(url, folder) as made:
            made.hire(members)
            asyncio.run(_say(url, "create"))
            frozen: list[subprocess.Popen[str]] = []
            for number in marks:
                until(lambda wanted=number: len(fired(store)) >= wanted)  # type: ignore[misc]
                victim = chance.choice([member for member in made.members if member not in frozen])
                if not frozen:
                    victim.send_signal(
                        signal.SIGSTOP
                    )  # longer than its lease, with a time in its hand perhaps
                    frozen.append(victim)
                    continue
                frozen.pop().send_signal(signal.SIGCONT)
                made.dismiss(victim)
                made.hire(members // 4)
            for member in frozen:
                member.send_signal(signal.SIGCONT)
            asyncio.run(_say(url, "pause"))
            until(lambda: all(work.state == "done" for work, _ in store.all_work() if "/" not in work.run_id))
        check(store)
        return len(fired(store))
    finally:
        store.close()


def test_workers_that_die_and_freeze_fire_each_time_once(postgres: str, tmp_path: Path) -> None:
    assert storm(postgres, tmp_path, range(10, 30, 10), random.Random(1), 3) >= 20


@pytest.mark.anyio
@pytest.mark.parametrize("fenced", [True, False])
async def test_of_two_that_decide_about_the_same_time_the_log_refuses_one(
    fenced: bool, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the expected version, and with ids of chance, there is a second run."""
    clock, stream = HandClock(), SCHEDULES + "tick"
    async with (
        kit.engine(postgres, tick, clock=clock) as one,
        kit.engine(postgres, tick, clock=clock) as late,
    ):
        await one.schedules.create("tick", tick, every=3_600)
        before = [schedule_log.load(late.store, stream)]
        clock.move(3_600)
        await kit.until(lambda: len(fired(one.store)) == 1)

        def look(store: Any, name: str, known: Any = None) -> Any:
            return before.pop() if before else schedule_log.load(store, name, known)

        monkeypatch.setattr(schedule_firing, "load", look)
        if not fenced:
            monkeypatch.setattr(schedule_firing, "run_id_of", lambda name, nominal: new_run_id())
            monkeypatch.setattr(
                schedule_firing, "append",
                lambda stream, tail, *rest: schedule_log.append(stream, late.store.tail(stream), *rest),
            )  # fmt: skip
        late.worker.schedules.attend(stream)
        await late.worker.log.flush()
        runs = [work for work, _ in one.store.all_work() if is_run(work.run_id)]
        assert not before
        assert len(runs) == len(fired(one.store)) == (1 if fenced else 2)


@pytest.mark.slow
def test_a_long_storm_over_one_schedule(postgres: str, tmp_path: Path) -> None:
    assert storm(postgres, tmp_path, range(10, 1_000, 20), random.Random(2), 4) >= 990
