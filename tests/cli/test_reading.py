"""Looking at a store: beside the process that executes it, without any, and never by making one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.cli import main
from tests.cli.shell import Shell

WAITING = '[{"total": "12.50", "note": "wait"}]'


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A store with a completed, a failed and a larger run; nobody here changes it."""
    shell = Shell(tmp_path_factory.mktemp("filled"))
    shell("run", "app.py:checkout", "--id", "done", "--input", '[{"total": "1"}]')
    shell("run", "app.py:fails", "--id", "failed", code=1)
    shell("run", "app.py:many", "--id", "many", "--input", "40")
    yield shell
    shell.close()


def test_runs_are_listed_and_filtered(filled: Shell) -> None:
    def ids(*filters: str) -> list[str]:
        return [run["run_id"] for run in filled.json("runs", *filters)["runs"]]

    assert ids() == ["many", "failed", "done"]
    assert ids("--status", "failed") == ["failed"]
    assert ids("--workflow", "many") == ["many"]
    assert ids("--attention", "any") == []
    first = filled.json("runs", "--limit", "2")
    assert [run["run_id"] for run in first["runs"]] == ["many", "failed"]
    assert ids("--limit", "2", "--cursor", first["cursor"]) == ["done"]


def test_runs_are_a_table_for_people(filled: Shell) -> None:
    lines = filled("runs").splitlines()
    assert lines[0].split()[:3] == ["run", "workflow", "status"]
    assert lines[2].startswith("failed  fails     failed")
    assert "StepFailed: step refuse#1 failed: ValueError: no" in lines[2]
    assert "$10.00" in lines[1]
    assert filled("runs", "--status", "waiting").startswith("no runs with --status waiting in sqlite:///")


def test_show_tells_steps_attempts_cost_and_times(filled: Shell) -> None:
    said = filled("show", "failed")
    assert "1 step, 2 attempts, 1 retry" in said
    assert "2 (2 failed)" in said
    assert "refuse#1 attempt 1  ValueError: no  at app.py:" in said
    assert "in refuse\n" in said
    assert "failed with StepFailed  at app.py:" in said  # where the handler called it
    shown = filled.json("show", "done")
    assert shown["run"]["cost_usd"] == "0.25"
    assert [(row["key"], row["attempt"], row["status"]) for row in shown["steps"]] == [
        ("charge#1", 1, "completed"),
        ("ship#1", 1, "completed"),
    ]


def test_show_puts_many_steps_of_one_name_in_one_row_unless_asked(filled: Shell) -> None:
    assert "charge \N{MULTIPLICATION SIGN}40" in filled("show", "many")
    assert "charge#40" in filled("show", "many", "--all")


def test_events_are_the_history(filled: Shell) -> None:
    tags = [entry["tag"] for entry in filled.json("events", "done")]
    assert tags[0] == "run.started"
    assert tags[-1] == "run.completed"
    versions = [entry["version"] for entry in filled.json("events", "many")]
    assert versions == list(range(1, len(versions) + 1))
    assert [e["version"] for e in filled.json("events", "many", "--after", "10", "--limit", "2")] == [11, 12]
    assert filled.json("events", "done", "--after", "1000") == []
    lines = filled("events", "done").splitlines()
    assert len(lines) == len(tags)
    assert "step.scheduled" in lines[2]


def test_a_run_that_is_not_there_is_said_so(filled: Shell) -> None:
    for command in (
        ["show", "x"],
        ["events", "x"],
        ["signal", "x", "go"],
        ["cancel", "x"],
        ["show", "done/inbox"],
    ):
        assert "no run" in filled(*command, code=3)


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["show", "x"],
        ["show", "x", "--follow"],
        ["events", "x"],
        ["workers"],
        ["signal", "x", "go"],
        ["cancel", "x"],
        ["verify"],
        ["rebuild"],
    ],
    ids=" ".join,
)
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    assert main(command) == 3
    assert "no store at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*command, "--store", "memory://"]) == 2
    assert "memory" in capsys.readouterr().err


# ---- beside the process that executes --------------------------------------------------------------


def waiting(shell: Shell) -> Any:
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", WAITING)
    shell.until(lambda: shell.effects() == ["charge"], process)
    shell.until(lambda: shell.json("show", "o1")["run"]["status"] == "waiting", process)
    return process


def test_everything_can_be_read_while_another_process_executes(shell: Shell) -> None:
    process = waiting(shell)
    (run,) = shell.json("runs", "--status", "waiting")["runs"]
    assert run["blocked_on"] == {"type": "event", "wait": 2, "name": "paid"}
    assert "waits for event paid" in shell("show", "o1")
    assert shell.json("verify")["ok"]
    assert shell.json("rebuild", "--check")["equal"]
    shell("rebuild")
    assert process.poll() is None


def test_a_signal_reaches_it_once_per_id(shell: Shell) -> None:
    process = waiting(shell)
    for _ in range(2):
        said = shell("signal", "o1", "noted", "--payload", "[1]", "--id", "s1")
        assert "event noted is stored for run o1" in said
    shell("signal", "o1", "paid")
    assert process.communicate()[0] == '"parcel"\n'
    received, paid = [e for e in shell.json("events", "o1") if e["tag"] == "signal.received"]
    assert paid["event"]["name"] == "paid"
    assert received["event"]["payload"] == [1]
    assert received["event"]["by"].startswith("user")
    assert [e["tag"] for e in shell.json("events", "o1", "--inbox")] == ["signal.sent"] * 3
    assert "nothing can be sent" in shell("signal", "o1", "paid", code=3)


def test_a_cancel_stops_it_with_its_reason(shell: Shell) -> None:
    process = waiting(shell)
    assert shell.json("cancel", "o1", "--reason", "customer called")["cancel"] == "requested"
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "was cancelled: customer called" in said
    assert shell.json("runs", "--status", "cancelled")["runs"][0]["error_message"] == "customer called"


def test_a_payload_that_is_no_json_is_told_how(shell: Shell) -> None:
    shell("run", "app.py:many", "--id", "m", "--input", "1")
    assert "'\"like this\"'" in shell("signal", "m", "go", "--payload", "yes", code=2)


# ---- what is in the log cannot steer the terminal ---------------------------------------------------

EVIL = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202e\u2066 \x7f \n\r\t"


def harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def test_no_control_character_of_a_payload_reaches_the_terminal(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    name, store = "evil\u00e9", ["--store", str(shell.folder / "refold.db")]
    packed = json.dumps(EVIL)
    run = ("run", "app.py:fails", "--id", name)
    first = shell.run(*run, "--input", packed, "--label", f"title={EVIL}", "--json")
    assert first.returncode == 1
    outputs = [first.stdout, first.stderr, shell(*run, code=1)]
    for command in (
        ["runs"], ["runs", "--json"], ["show", name], ["show", name, "--follow"], ["events", name],
        ["events", name, "--json"], ["show", EVIL], ["runs", "--workflow", EVIL], ["runs", "--label", EVIL],
        ["runs", "--since", EVIL], ["signal", name, "x", "--payload", EVIL], ["show", name, "--json"],
    ):  # fmt: skip
        main([*command, *store])
        outputs += capsys.readouterr()
    assert EVIL in json.loads(outputs[-2])["run"]["attributes"]["title"]  # control: it is in there
    with pytest.raises(SystemExit):
        main(["fly" + EVIL])
    outputs += capsys.readouterr()
    for text in outputs:
        assert harmless(text), text
    assert not harmless(EVIL)


def test_an_ascii_terminal_gets_ascii(shell: Shell) -> None:
    shell("run", "app.py:checkout", "--id", "o1", "--input", '[{"total": "1", "note": "\u2713"}]')
    for command in (["runs"], ["show", "o1"], ["events", "o1"]):
        assert shell(*command, PYTHONIOENCODING="ascii").isascii()
