"""`refold sql` and the lists, asked of a log on PostgreSQL."""

import asyncio
import json
from unittest import mock

import pytest

from refold import Context, Engine, workflow
from refold.cli import main
from refold.events.errors import StoreReadOnly
from refold.projections.runner import Runner

Capture = pytest.CaptureFixture[str]


@workflow
async def seven(ctx: Context) -> int:
    return 7


@pytest.fixture
def log(postgres: str) -> str:
    """Three runs, of which no list has been asked for yet."""

    async def begin() -> None:
        async with Engine(postgres, workflows=[seven], execute=False) as engine:
            for name in "abc":
                await engine.start(seven, id=name)

    asyncio.run(begin())
    return postgres


def asked(capsys: Capture, log: str, *args: str, code: int = 0) -> str:
    assert main([*args, "--store", log]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_questions_are_answered_and_nothing_else(log: str, capsys: Capture) -> None:
    assert asked(capsys, log, "sql", "select run_id, status from runs order by run_id") == (
        "run_id\tstatus\na\tpending\nb\tpending\nc\tpending\n"
    )
    found = json.loads(
        asked(capsys, log, "sql", "select event::jsonb->>'workflow' as w from events", "--json")
    )
    assert found == [{"w": "seven"}] * 3
    assert "run_id" in asked(capsys, log, "sql", "work")
    for query, refusal in (
        ("delete from runs", "only answers SELECT|nothing else"),
        ("select 1; drop table runs", "nothing else"),
        ("select nextval('commits_id_seq')", "it would change something"),
        ("with gone as (delete from runs returning 1) select * from gone", "data-modifying"),
        ("select nothing from runs", "does not exist"),
    ):
        said = asked(capsys, log, "sql", query, code=2)
        assert any(part in said for part in refusal.split("|")), said
    assert asked(capsys, log, "sql", "select count(*) as n from runs;") == "n\n3\n"


def test_a_slow_question_is_given_up(log: str, capsys: Capture) -> None:
    with mock.patch("refold.cli.sql_postgres.SLOW_S", 1):
        said = asked(capsys, log, "sql", "select pg_sleep(60)", code=2)
    assert "the server had been at it for 1 s" in said


def test_who_cannot_write_lists_what_is_there_and_says_how_old_it_is(log: str, capsys: Capture) -> None:
    assert asked(capsys, log, "runs").count("seven") == 3

    async def more() -> None:
        async with Engine(log, workflows=[seven], execute=False) as engine:
            await engine.start(seven, id="d")

    asyncio.run(more())
    refused = StoreReadOnly("the server only reads")
    with mock.patch.object(Runner, "catch_up", side_effect=refused):
        assert main(["runs", "--store", log]) == 0
    said = capsys.readouterr()
    assert said.out.count("seven") == 3
    assert "the lists are 1 event behind the log, and cannot be brought up here" in said.err
    assert asked(capsys, log, "runs").count("seven") == 4
