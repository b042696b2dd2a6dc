"""Workers die, freeze, lose connections and the server: nothing is lost, nothing is done twice."""

import random
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests import pg
from tests.cluster import checks
from tests.cluster.kit import PATIENCE_S, Crowd, Office, open_runs, until

CLIENTS = 2


def start_jobs(office: Office, runs: int) -> None:
    """Have clients start them, each its share."""
    for first in range(CLIENTS):
        office.hire("client", first, runs, CLIENTS)


def test_a_storm_loses_nothing_and_does_nothing_twice(
    postgres: str, postgres_server: str, tmp_path: Path
) -> None:
    assert after_a_short_storm(postgres, postgres_server, tmp_path, runs=40) == []


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
        until(lambda: len(office.scene.heard("effects")) > 20)
        crowd.freeze_one()
        crowd.kill_one()
        until(lambda: len(office.scene.heard("effects")) > 60)
        crowd.cut(postgres_server, 0.5)
        until(lambda: len(office.scene.heard("effects")) > 90)
        pg.restart(postgres_server, "immediate")
        until(lambda: len(office.scene.heard("effects")) > 130)
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
    runs, chance, began = 4_000, random.Random(7), monotonic()
    with pg.server(fsync="on", full_page_writes="on", autovacuum="on") as dsn:
        url = f"{dsn}&schema=storm"
        with Office(tmp_path / "office", url) as office:
            crowd = Crowd(office, 8, chance)
            start_jobs(office, runs)
            restart_at = thaw_at = 0.0
            while (left := open_runs(url)) or not all_done(office, url, runs):
                if monotonic() > restart_at:
                    pg.restart(dsn, chance.choice(["fast", "immediate"]))
                    crowd.happened["restarted"] += 1
                    restart_at = monotonic() + chance.uniform(1.0, 3.0)
                if monotonic() > thaw_at:
                    crowd.thaw_all()
                    thaw_at = monotonic() + 4.0
                match chance.randrange(4):
                    case 0:
                        crowd.kill_one()
                    case 1:
                        crowd.freeze_one()
                    case 2:
                        crowd.cut(dsn, 0.3)
                print(f"{monotonic() - began:.0f} s, {left} open, {crowd.happened}", flush=True)
                assert monotonic() - began < 3_000
                sleep(chance.uniform(0.1, 0.6))
            crowd.thaw_all()
        assert checks.after_a_storm(url, office.scene, range(runs)) == []
        print(f"{runs} runs in {monotonic() - began:.0f} s: {crowd.happened}", flush=True)
