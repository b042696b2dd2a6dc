"""Workers die, freeze, lose connections and the server: nothing is lost, nothing is done twice."""

import random
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests import pg
from tests.cluster import checks
from tests.cluster.kit import PATIENCE_S, Crowd, Office, open_runs, until

CLIENTS = 2
RUNS = 4_000
STORM_S = 600.0
"""How long the long one lasts; what is left then is done in peace."""


def start_jobs(office: Office, runs: int) -> None:
    """Have clients start them, each its share."""
    for first in range(CLIENTS):
        office.hire("client", first, runs, CLIENTS)


def test_a_storm_loses_nothing_and_does_nothing_twice(
    postgres: str, postgres_server: str, tmp_path: Path
) -> None:
    assert after_a_short_storm(postgres, postgres_server, tmp_path, runs=24) == []


@pytest.mark.slow
def test_control_a_storm_tells_when_nothing_keeps_workers_apart(
    postgres: str, postgres_server: str, tmp_path: Path
) -> None:
    """Without the fence alone, leases hide for most of the time that it is missing."""
    assert after_a_short_storm(postgres, postgres_server, tmp_path, runs=40, cheat="keeps_nobody_apart") != []


def after_a_short_storm(
    postgres: str, postgres_server: str, folder: Path, runs: int, cheat: str = ""
) -> list[str]:
    """What is wrong after it."""
    chance = random.Random(5)
    with Office(folder / "office", postgres) as office:
        crowd = Crowd(office, 3, chance, cheat)
        start_jobs(office, runs)
        until(lambda: len(office.scene.heard("effects")) > 12)
        crowd.freeze_one()
        crowd.kill_one()
        until(lambda: len(office.scene.heard("effects")) > 36)
        crowd.cut(postgres_server, 0.5)
        until(lambda: len(office.scene.heard("effects")) > 54)
        pg.restart(postgres_server, "immediate")
        until(lambda: len(office.scene.heard("effects")) > 78)
        crowd.kill_one()
        crowd.thaw_all()
        try:
            until(lambda: all_done(office, postgres, runs), 30.0 if cheat else PATIENCE_S)
        except AssertionError:
            if not cheat:
                raise
    return checks.after_a_storm(postgres, office.scene, range(runs))


def all_done(office: Office, url: str, runs: int) -> bool:
    """Everything has been started and said, and has ended."""
    said = len([what for what, _ in office.scene.heard("acks") if what == "start"])
    return said == runs and open_runs(url) == 0


@pytest.mark.slow
def test_a_long_storm(tmp_path: Path) -> None:
    """Eight workers and a server that waits for the disk, which goes every one to three seconds."""
    chance, began = random.Random(7), monotonic()
    with pg.server(fsync="on", full_page_writes="on", autovacuum="on") as dsn:
        url = f"{dsn}&schema=storm"
        with Office(tmp_path / "office", url) as office:
            crowd = Crowd(office, 8, chance)
            start_jobs(office, RUNS)
            while monotonic() - began < STORM_S and not all_done(office, url, RUNS):
                one_more_blow(crowd, dsn, chance)
                print(f"{monotonic() - began:.0f} s, {open_runs(url)} open, {crowd.happened}", flush=True)
                sleep(chance.uniform(0.1, 0.6))
            crowd.thaw_all()
            until(lambda: all_done(office, url, RUNS), 900.0)
        ended = monotonic() - began
        assert checks.after_a_storm(url, office.scene, range(RUNS)) == []
        print(f"{RUNS} runs in {ended:.0f} s: {crowd.happened}", flush=True)


def one_more_blow(crowd: Crowd, dsn: str, chance: random.Random) -> None:
    """To the server when its time has come, and to one or some of those who work with it."""
    if monotonic() > crowd.restart_at:
        pg.restart(dsn, chance.choice(["fast", "immediate"]))
        crowd.happened["restarted"] += 1
        crowd.restart_at = monotonic() + chance.uniform(1.0, 3.0)
    if monotonic() > crowd.thaw_at:
        crowd.thaw_all()
        crowd.thaw_at = monotonic() + 6.0
    match chance.randrange(4):
        case 0:
            crowd.kill_one()
        case 1:
            crowd.freeze_one()
        case 2:
            crowd.cut(dsn, 0.3)
