"""`refold verify` and `rebuild`: damage is found and named, and read models can be made anew."""

import sqlite3
import subprocess

import pytest

from tests.cli.shell import REFOLD, Shell


@pytest.fixture
def filled(shell: Shell) -> Shell:
    shell("run", "app.py:checkout", "--id", "o1", "--input", '[{"total": "1"}]')
    shell("run", "app.py:many", "--id", "m", "--input", "5")
    return shell


def change(shell: Shell, file: str, sql: str) -> None:
    with sqlite3.connect(shell.folder / file) as connection:
        assert connection.execute(sql).rowcount > 0
    connection.close()


def test_a_sound_store_is_verified_whole(filled: Shell) -> None:
    found = filled.json("verify")
    assert found["ok"]
    assert found["events"] == sum(len(filled.json("events", run)) for run in ("o1", "m"))
    assert found["read_models"] == "equal"
    said = filled("verify")
    assert "none changed, none missing" in said
    assert "read models equal the log: runs, steps, step_edges, costs" in said


def test_the_store_may_be_an_argument(filled: Shell) -> None:
    for arguments in (
        ["refold.db"],
        ["--store", "refold.db"],
        ["sqlite:///refold.db"],
        ["refold.db", "--store", "refold.db"],
    ):
        assert filled.json("verify", *arguments)["ok"]
    assert "two stores" in filled("verify", "refold.db", "--store", "other.db", code=2)
    assert "no store at" in filled("verify", "other.db", code=3)


@pytest.mark.parametrize("tag", ["run.started", "step.completed", "run.completed"])
def test_a_changed_event_is_found_and_named(filled: Shell, tag: str) -> None:
    change(
        filled,
        "refold.db",
        "UPDATE stored_events SET state = CAST(replace(CAST(state AS TEXT), '2026', '2025') || ' ' AS BLOB) "
        f"WHERE originator_id = 'o1' AND topic = '{tag}'",
    )
    found = filled.json("verify", code=1)
    assert not found["ok"]
    assert "'o1'" in found["problems"][0]
    assert found["read_models"] == "not checked"
    assert "the log is damaged: 1 problem" in filled("verify", code=1)


def test_a_file_that_is_no_store_is_said_so(shell: Shell) -> None:
    (shell.folder / "text.db").write_text("not a database, however long it may be\n" * 100)
    for command in (["verify"], ["runs"], ["show", "x"], ["rebuild"]):
        said = shell(*command, "--store", "text.db", code=3)
        assert "text.db" in said
        assert "Traceback" not in said


def test_a_file_that_can_hardly_be_opened_is_damaged(filled: Shell) -> None:
    filled("verify")
    with (filled.folder / "refold.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3_000)
    assert "the log is damaged" in filled("verify", code=1)
    assert not filled.json("verify", code=1)["ok"]
    assert "Traceback" not in filled("runs", code=3)


def test_a_damaged_file_of_read_models_is_named_and_may_be_deleted(filled: Shell) -> None:
    filled("runs")
    for path in filled.folder.glob("refold.db.views*"):
        path.unlink()
    damaged = filled.folder / "refold.db.views"
    damaged.write_bytes(b"no database" * 1_000)
    assert "refold.db.views" in filled("verify", code=1)
    assert "delete it" in filled("runs", code=3)
    damaged.unlink()
    assert filled.json("verify")["ok"]


def test_a_reader_that_has_seen_enough_is_no_error(filled: Shell) -> None:
    filled("run", "app.py:many", "--id", "long", "--input", "300")
    command = f"{' '.join(REFOLD)} events long | head -1"
    done = subprocess.run(
        ["sh", "-c", command], cwd=filled.folder, capture_output=True, text=True, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_a_changed_read_model_is_found_and_rebuilt(filled: Shell) -> None:
    filled("runs")
    change(filled, "refold.db.views", "UPDATE runs SET cost_usd = '9' WHERE run_id = 'o1'")
    checked = filled.json("rebuild", "--check", code=1)
    (difference,) = checked["differences"]
    assert (difference["column"], difference["live"], difference["log"]) == ("cost_usd", "9", "0.25")
    assert "runs o1: cost_usd is '9', the log says '0.25'" in filled("verify", code=1)
    assert filled.json("rebuild", "--check", "steps")["equal"]
    assert filled.json("rebuild", "runs")["rebuilt"] == ["runs"]
    assert filled.json("verify")["ok"]


def test_a_lost_file_of_read_models_comes_back(filled: Shell) -> None:
    before = filled("runs")
    for path in filled.folder.glob("refold.db.views*"):
        path.unlink()
    assert filled("runs") == before


def test_a_projection_that_does_not_exist_is_usage(filled: Shell) -> None:
    assert "there is no projection 'nothing'" in filled("rebuild", "nothing", code=2)
