"""What `refold doctor` says of servers: whether an acknowledged event can be lost there."""

import json
from typing import Any

import pytest

from refold.cli import main
from refold.cli.doctor_postgres import check_server
from refold.events.postgres import PostgresStore
from refold.events.postgres_health import Behind, Health
from refold.events.postgres_server import SCHEMA_VERSION
from refold.events.transfer import export_log

SAFE = {
    "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
    "synchronous_standby_names": "ANY 1 (a, b)",
}  # fmt: skip


def said(copies: int | None = 1, behind: Behind | None = None, **settings: str) -> dict[str, str]:
    health = Health("15.4", SCHEMA_VERSION, SAFE | settings, copies, behind)
    found = check_server(health)
    return {one.name: f"{one.state}: {one.found} {one.advice}" for one in found}


def test_a_cluster_whose_commits_are_confirmed_is_well() -> None:
    found = said()
    assert found["durability"].startswith("ok: fsync=on")
    assert found["failover"].startswith("ok: 1 standby may confirm")


@pytest.mark.parametrize(
    ("name", "state", "what"),
    [
        ("durability", "broken", {"fsync": "off"}),
        ("durability", "broken", {"synchronous_commit": "local"}),
        ("failover", "warning", {"synchronous_standby_names": ""}),
        ("failover", "broken", {"copies": 0}),
    ],
)
def test_what_can_lose_an_event_is_said(name: str, state: str, what: dict[str, Any]) -> None:
    assert said(**what)[name].startswith(f"{state}: ")


def test_a_copy_says_how_old_it_is() -> None:
    assert "heard the last news 2.5 s ago" in said(behind=Behind(2.5, 3))["failover"]
    assert "ok" in said(copies=None)["failover"]


def test_of_a_real_server(postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = PostgresStore(postgres)
    header = json.loads(next(iter(export_log(store))))
    store.close()
    assert f'"schema":{SCHEMA_VERSION}' in json.dumps(header).replace(" ", "")
    main(["doctor", "--json", "--store", postgres])
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert f", schema {SCHEMA_VERSION}, " in checks["store"]["found"]
    assert checks["durability"]["state"] == "broken"  # a server of tests: fsync=off
    assert checks["failover"]["state"] == "warning"
