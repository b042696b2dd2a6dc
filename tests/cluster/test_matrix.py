"""On PostgreSQL, too: killed before, inside and after every append, and in every body."""

from pathlib import Path

import psycopg
import pytest

from tests.cluster.kit import Office
from tests.cluster.mortal import play
from tests.crash.case import Outcome


def played(postgres: str, folder: Path, flow: str, *kills: int) -> Outcome:
    """In a schema, and a folder, of its own."""
    name = "_".join(map(str, kills)) or "calm"
    server, _, schema = postgres.rpartition("&schema=")
    own = f"{schema}_{flow}_{name}"
    try:
        with Office(folder / own, f"{server}&schema={own}") as office:
            return play(office, flow, *kills)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {own} CASCADE".encode())


def test_a_run_survives_kills_at_some_moments(postgres: str, tmp_path: Path) -> None:
    """Before, inside and after an append, and once more in the process that took over."""
    outcome = played(postgres, tmp_path, "tidied", 4, 5, 6)
    assert outcome.problems == [], f"killed {outcome.deaths}"
    assert outcome.result == "cancelled: run 'run' was cancelled: enough"
    assert len(outcome.deaths) == 3


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["order", "branches", "tidied", "careful", "listener", "storm", "idle"])
def test_a_run_survives_a_kill_at_every_moment(postgres: str, tmp_path: Path, flow: str) -> None:
    calm = played(postgres, tmp_path, flow)
    assert calm.problems == []
    assert calm.moments >= 3 * calm.commits
    for moment in range(1, calm.moments + 1):
        outcome = played(postgres, tmp_path, flow, moment)
        assert outcome.problems == [], f"killed {outcome.deaths}"
        assert flow == "careful" or outcome.result == calm.result
