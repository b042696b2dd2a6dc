"""`refold run`: killed it goes on, changed it says so, and no mistake of a user ends in a traceback."""

import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from refold.cli import main
from tests.cli.shell import APP, Shell

ORDER = '[{"total": "12.50"}]'
WAITING = '[{"total": "12.50", "note": "wait"}]'


def test_the_result_is_printed_as_json(shell: Shell) -> None:
    assert shell("run", "app.py:checkout", "--input", ORDER) == '"parcel"\n'


def test_an_input_that_is_no_array_is_the_only_argument(shell: Shell) -> None:
    assert shell("run", "app.py:checkout", "--input", '{"total": "12.50"}') == '"parcel"\n'


def test_the_input_may_be_a_file(shell: Shell) -> None:
    (shell.folder / "order.json").write_text(ORDER)
    assert shell("run", "app.py:checkout", "--input", "@order.json") == '"parcel"\n'


def test_a_module_and_a_store_elsewhere_will_do(shell: Shell) -> None:
    shell("run", "app:many", "--input", "3", "--store", "sqlite:///other.db", "--id", "m")
    assert shell.json("show", "m", "--store", "other.db")["run"]["result"] == 3
    assert not (shell.folder / "refold.db").exists()


def test_the_store_may_come_from_the_environment(shell: Shell) -> None:
    shell("run", "app.py:many", "--input", "1", REFOLD_STORE="env.db")
    assert (shell.folder / "env.db").exists()


def test_with_json_the_outcome_is_one_object(shell: Shell) -> None:
    done = shell.json("run", "app.py:checkout", "--input", ORDER, "--id", "o1", "--label", "shop=Bern")
    assert done == {"run": "o1", "status": "completed", "result": "parcel"}
    assert shell.json("show", "o1")["run"]["attributes"] == {"shop": "Bern"}
    failed = shell.json("run", "app.py:fails", "--id", "f1", code=1)
    assert failed["status"] == "failed"
    assert failed["error"]["type"] == "StepFailed"


def test_a_failed_run_ends_with_1_and_names_the_error(shell: Shell) -> None:
    said = shell("run", "app.py:fails", "--id", "f1", code=1).splitlines()
    assert said == [
        "refold: run 'f1' failed: StepFailed: step refuse#1 failed: ValueError: no",
        "  once that is mended, bring it back, and give this command again",
        "    refold retry f1 --store refold.db",
    ]
    again = shell("run", "app.py:fails", "--id", "f1", code=1).splitlines()
    assert (again[0], again[2]) == (said[0], said[2])
    assert "it had ended before, and nothing was run now" in again[1]


# ---- kill -9 -------------------------------------------------------------------------------------


def kill_while_shipping(shell: Shell, store: str) -> None:
    shell.slow_down()
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", ORDER, "--store", store)
    shell.until(shell.shipping, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    shell.speed_up()


def test_killed_and_run_again_it_goes_on(shell: Shell) -> None:
    kill_while_shipping(shell, "refold.db")
    assert shell("run", "app.py:checkout", "--id", "o1", "--input", ORDER) == '"parcel"\n'
    assert shell.effects() == ["charge", "ship o1/ship#1", "ship o1/ship#1"]
    assert [row["status"] for row in shell.json("show", "o1")["steps"]] == [
        "completed",
        "interrupted",
        "completed",
    ]


def test_control_without_its_log_everything_runs_again(shell: Shell) -> None:
    kill_while_shipping(shell, "lost.db")
    shell("run", "app.py:checkout", "--id", "o1", "--input", ORDER)
    assert shell.effects().count("charge") == 2


def test_without_input_the_run_of_that_id_goes_on_with_its_own(shell: Shell) -> None:
    kill_while_shipping(shell, "refold.db")
    assert shell("run", "app.py:checkout", "--id", "o1") == '"parcel"\n'


def test_once_it_has_ended_the_result_is_just_printed(shell: Shell) -> None:
    for _ in range(2):
        assert shell("run", "app.py:checkout", "--id", "o1", "--input", ORDER) == '"parcel"\n'
    assert len(shell.effects()) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_signal_shuts_down_and_the_run_goes_on_later(shell: Shell, number: int, code: int) -> None:
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", WAITING)
    shell.until(lambda: shell.effects() == ["charge"], process)
    shell.until(lambda: shell.json("show", "o1")["run"]["status"] == "waiting", process)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "refold run app.py:checkout --id o1 --store refold.db" in said
    assert "Traceback" not in said
    shell("signal", "o1", "paid")
    assert shell("run", "app.py:checkout", "--id", "o1") == '"parcel"\n'
    assert shell.effects().count("charge") == 1


# ---- edit the code, run it again -------------------------------------------------------------------


def test_edited_code_shows_the_divergence_and_the_old_code_goes_on(shell: Shell) -> None:
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", WAITING)
    shell.until(lambda: shell.effects() == ["charge"], process)
    shell.until(lambda: shell.json("show", "o1")["run"]["status"] == "waiting", process)
    process.kill()
    process.wait()
    app = shell.folder / "app.py"
    app.write_text(APP.replace("    await charge(order)\n", "    await ship(order)\n"))
    said = shell("run", "app.py:checkout", "--id", "o1", code=1)
    assert "Traceback" not in said
    assert "log has  step 'charge'" in said
    assert "now asks step 'ship'" in said
    assert shell.json("run", "app.py:checkout", "--id", "o1", code=1)["status"] == "diverged"
    assert [run["run_id"] for run in shell.json("runs", "--attention", "diverged")["runs"]] == ["o1"]
    assert shell.effects() == ["charge"]
    app.write_text(APP)
    shell("signal", "o1", "paid")
    assert shell("run", "app.py:checkout", "--id", "o1") == '"parcel"\n'
    assert shell.json("runs", "--attention", "any")["runs"] == []


# ---- mistakes --------------------------------------------------------------------------------------


def test_a_second_executor_is_refused_and_told_who_is_there(shell: Shell) -> None:
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", WAITING)
    shell.until(lambda: shell.effects() == ["charge"], process)
    said = shell("run", "app.py:checkout", "--id", "o2", "--input", ORDER, code=3)
    assert f"pid {process.pid}" in said


def test_another_input_for_the_same_id_is_a_conflict(shell: Shell) -> None:
    shell("run", "app.py:checkout", "--id", "o1", "--input", ORDER)
    assert "exists" in shell("run", "app.py:checkout", "--id", "o1", "--input", '[{"total": "1"}]', code=3)


MISTAKES = [
    (("run", "app.py:nothing"), 2, "nothing is not there. Its workflows: app.py:checkout"),
    (("run", "app.py:charge"), 2, "charge is no @workflow"),
    (("run", "app.py"), 2, "which workflow?"),
    (("run", "none.py:checkout"), 2, "no file none.py"),
    (("run", "broken.py:checkout"), 2, "cannot load broken.py: SyntaxError"),
    (("run", "raises.py:checkout"), 2, "cannot load raises.py: raises.py:2: ZeroDivisionError"),
    (("run", "exits.py:checkout"), 2, "cannot load exits.py: exits.py:1: SystemExit"),
    (("run", "no.such.module:checkout"), 2, "cannot load no.such.module: ModuleNotFoundError"),
    (("run", "app.py:checkout", "--input", "{"), 2, "--input: not JSON"),
    (("run", "app.py:checkout", "--input", "@none.json"), 2, "No such file"),
    (("run", "app.py:checkout", "--input", '{"total": true}'), 2, "$.total"),
    (("run", "app.py:checkout"), 2, "missing a required argument"),
    (("run", "app.py:many", "--input", "1", "--id", "a/b"), 2, "no '/'"),
    (("run", "app.py:many", "--input", "1", "--label", "x"), 2, "expected NAME=VALUE"),
    (("run", "app.py:many", "--input", "1", "--store", "redis://x"), 2, "no store is called 'redis'"),
    (("run", "app.py:many", "--input", "1", "--store", "no/such/folder/x.db"), 3, "no/such/folder"),
    (("fly",), 2, "invalid choice: 'fly'"),
    (("runs", "--limit", "0"), 2, "expected 1 or more"),
    (("runs", "--status", "lost"), 2, "invalid choice: 'lost'"),
    ((), 2, "COMMAND"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app and broken files, for commands in this process: twenty starts of Python take a while."""
    Shell(tmp_path)
    (tmp_path / "broken.py").write_text("def checkout(:\n")
    (tmp_path / "raises.py").write_text("#\n1 / 0\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("app", "broken", "raises", "exits"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("args", "code", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_a_sentence(
    args: tuple[str, ...], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(args)
    except SystemExit as exit:
        ended = exit.code  # type: ignore[assignment]
    out, said = capsys.readouterr()
    assert ended == code
    assert text in said + out
    assert "Traceback" not in said + out


def test_a_read_only_folder_is_named(shell: Shell, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    shell("run", "app.py:many", "--input", "1", "--store", "closed/x.db", code=3)


def imported(shell: Shell, *args: str) -> set[str]:
    """What a command has loaded by its end."""
    said = shell.run(*args, PYTHONPROFILEIMPORTTIME="1").stderr
    return {line.rpartition("|")[2].strip() for line in said.splitlines()}


def test_help_loads_only_the_parser(shell: Shell) -> None:
    shell("run", "app.py:many", "--input", "1")
    heavy = {"rich", "eventsourcing", "refold.cli.timeline", "refold.cli.stores", "refold.demo"}
    assert not heavy & imported(shell, "runs", "--help")
    listing = imported(shell, "runs")
    assert {"refold.cli.stores", "refold.events.sqlite_reader"} <= listing  # control: it would be seen
    assert not {"rich", "eventsourcing"} & listing  # a pipe needs no colours, looking no recorders
