"""`refold sql` answers questions about the read models and the log, and does nothing else."""

import csv
import io
import json
import os
import signal
from pathlib import Path

import pytest

from refold.cli import main
from refold.events import types as t
from refold.events.errors import StoreReadOnly
from refold.events.open import open_store
from refold.events.transfer import import_log
from refold.projections.core import CORE
from tests.events.transfers import AT, exported, put, sample, scheduled, started

Capture = pytest.CaptureFixture[str]
ODD = '=1+1\t"\x1b[2J\u202e'
COUNT = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    store = open_store("refold.db")
    import_log(store, exported(sample()))
    failed = t.StepFailed(id="f", at=AT, step=1, error=t.Failure(type="Odd", message=ODD))
    put(store, "c", started(), scheduled(1), t.StepStarted(id="b", at=AT, step=1, attempt=1), failed)
    store.close()
    return tmp_path


def asked(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main(["sql", *words]) == code
    found = capsys.readouterr()
    assert "Traceback" not in found.err
    return found.err if code else found.out


def test_read_models_are_caught_up_and_asked(capsys: Capture) -> None:
    said = asked(capsys, "select run_id, steps_total from runs order by run_id")
    assert said == "run_id\tsteps_total\na\t2\nb\t1\nc\t1\n"


def test_the_log_is_asked_in_its_own_words(capsys: Capture) -> None:
    query = "select tag, json_extract(event, '$.key') as key from events where stream = 'b' order by version"
    assert json.loads(asked(capsys, query, "--json")) == [
        {"tag": "run.started", "key": None},
        {"tag": "step.scheduled", "key": "pay#1"},
    ]
    query = (
        "select r.run_id, count(*) from runs r join stored_events e on e.originator_id = r.run_id group by 1"
    )
    assert asked(capsys, query).splitlines()[1:] == ["a\t4", "b\t2", "c\t4"]
    assert asked(capsys, "select state from stored_events where rowid = 3").startswith('state\n{"id":"m1"')
    assert asked(capsys, "select hash from stored_events where 0") == "hash\n"


def test_without_a_query_tables_and_columns_are_listed_with_what_they_hold(capsys: Capture) -> None:
    listed = {table["table"]: table for table in json.loads(asked(capsys, "--json"))}
    for projection in CORE:
        assert listed[projection.name]["kind"] == "read model"
        assert listed[projection.name]["doc"]
    for name in ("events", "stored_events", "work", "blobs", "meta"):
        assert listed[name]["kind"] == "log"
    for name, table in listed.items():
        found = json.loads(asked(capsys, f"pragma table_info({name})", "--json"))
        columns = {column["name"] for column in table["columns"]}
        assert columns - {"rowid"} <= {column["name"] for column in found}, name
        if table["kind"] == "log" or name == "runs":
            assert all(column["doc"] for column in table["columns"])
    said = asked(capsys, "steps")
    assert said.startswith("steps  ")
    assert "idempotency_key  TEXT" in said
    assert "\nruns" not in said


CHANGES = (
    "delete from runs", "update log.stored_events set topic = 'x'", "insert into work default values",
    "drop table runs", "create table x (a)", "create temp table x (a)", "vacuum", "begin", "reindex",
    "pragma journal_mode = delete", "pragma log.user_version = 7", "attach 'other.db' as other",
    "detach log", "select load_extension('x')", "with x as (select 1) delete from runs",
    "select 1; delete from runs", "explain delete from runs",
    "select fts3_tokenizer('simple')", "vacuum into 'other.db'",
)  # fmt: skip


def test_what_would_change_something_is_refused(capsys: Capture, store: Path) -> None:
    asked(capsys, "runs")  # the read models are there
    before = (store / "refold.db").read_bytes(), (store / "refold.db.views").read_bytes()
    for query in CHANGES:
        assert asked(capsys, query, code=2).startswith("refold: this query was refused: "), query
    assert ((store / "refold.db").read_bytes(), (store / "refold.db.views").read_bytes()) == before
    assert not (store / "other.db").exists()


def test_what_is_no_question_is_a_sentence(capsys: Capture) -> None:
    for query in ("", "-- nothing", "selec 1", "select x from runs", "select '\ud800'"):
        assert asked(capsys, query, code=2).count("\n") == 1, query


def test_nothing_that_is_stored_steers_a_terminal_or_a_spreadsheet(capsys: Capture) -> None:
    query = "select error_message, error_type from steps where run_id = 'c'"
    assert asked(capsys, query) == 'error_message\terror_type\n=1+1\\t"\\x1b[2J\\u202e\tOdd\n'
    assert json.loads(asked(capsys, query, "--json")) == [{"error_message": ODD, "error_type": "Odd"}]
    assert list(csv.reader(io.StringIO(asked(capsys, query, "--csv")))) == [
        ["error_message", "error_type"],
        ["'=1+1\\t\"\\x1b[2J\\u202e", "Odd"],
    ]
    odd = "select -1.5 as n, '-1.5' as number, '-x' as text, 'a\nb' as lines, null as empty, x'ff' as bytes"
    assert list(csv.reader(io.StringIO(asked(capsys, odd, "--csv"))))[1] == [
        "-1.5", "-1.5", "'-x", "a\nb", "", "ff"
    ]  # fmt: skip
    assert asked(capsys, "select 1 as \"a\x1b\", 2 as '=b'") == "a\\x1b\t=b\n1\t2\n"


def test_two_columns_of_one_name_both_come(capsys: Capture) -> None:
    assert json.loads(asked(capsys, "select 1 as a, 2 as a, 3 as a", "--json")) == [
        {"a": 1, "a_2": 2, "a_3": 3}
    ]
    assert asked(capsys, "select 1 as a, 2 as a_3, 3 as a") == "a\ta_3\ta_2\n1\t2\t3\n"


def test_an_event_that_is_no_text_does_not_hide_the_others(capsys: Capture) -> None:
    query = "select cast(state as text) as event from (select x'ff61' as state union all select 'b')"
    assert asked(capsys, query) == "event\n\\xffa\nb\n"


def test_on_a_terminal_it_is_a_table_or_a_block_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(query: str) -> list[str]:
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((80, 24)))
        assert main(["sql", query]) == 0
        return screen.getvalue().splitlines()

    assert shown("select run_id, steps_total from runs where run_id < 'c' order by 1") == [
        "run_id  steps_total", "a                 2", "b                 1", "2 rows",
    ]  # fmt: skip
    block = shown("select * from runs where run_id = 'a'")
    assert block[0] == "row 1"
    assert block[1].split() == ["run_id", "a"]
    assert block[-1] == "1 row"
    many = "with recursive n(i) as (select 1 union all select i + 1 from n limit 1500) select i from n"
    assert shown(many)[-2:] == ["1000", "the first 1,000 rows: a pipe, --csv or --json gets all"]


def test_ctrl_c_ends_a_question_that_never_ends(capsys: Capture) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # what SIGINT does, at a known moment
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        assert asked(capsys, COUNT, code=130) == "refold: interrupted\n"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_it_cannot_read_is_said(capsys: Capture) -> None:
    assert main(["sql", "select 1", "--store", "other.db"]) == 3
    assert "no store at" in capsys.readouterr().err
    assert "either --json or --csv" in asked(capsys, "select 1", "--json", "--csv", code=2)


def test_where_nothing_may_be_written_it_asks_all_the_same(store: Path, capsys: Capture) -> None:
    for path in store.glob("refold.db?*"):
        path.unlink()
    views = "refold.projections.views_sqlite.SqliteViews.of"
    with pytest.MonkeyPatch.context() as patch:

        def refuse(url: str, **options: float) -> None:
            raise StoreReadOnly("simulated: a folder where nothing may be written")

        patch.setattr(views, refuse)
        assert asked(capsys, "select count(*) as n from runs join work using (run_id)") == "n\n3\n"
    assert not (store / "refold.db.views").exists()
