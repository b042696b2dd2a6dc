"""The demo: what it claims is true, and it would not claim it of a worker that breaks a promise."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from refold.cli.screen import Screen
from refold.cli.stores import existing, list_runs
from refold.demo.director import Demo, Stopped
from refold.events import types as t
from refold.events.open import open_store

REFOLD = (sys.executable, "-m", "refold")
PATIENCE_S = 90


def play(folder: Path, *args: str, input: str | None = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REFOLD, "demo", *args],
        cwd=folder,
        input=input,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo was given once, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    done = play(folder, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_it_tells_the_story_on_one_screen(played: tuple[Path, str]) -> None:
    _, said = played
    lines = said.splitlines()
    assert len(lines) < 45
    assert "killed itself with SIGKILL" in said
    assert "took the run up from the log" in said
    assert "▼ kill -9" in said
    assert sum(line.startswith("  ✓ ") for line in lines) == 6
    assert "✗" not in said
    for name in (
        "list_sources",
        "stage",
        "byte_compile",
        "reserve_version",
        "sleep",
        "build_archive",
        "publish",
    ):
        assert name in said


def test_everything_is_in_its_folder(played: tuple[Path, str]) -> None:
    folder, _ = played
    assert [path.name for path in folder.iterdir()] == ["refold-demo"]
    released = [*folder.glob("refold-demo/release-1/released/refold-*.zip")]
    assert len(released) == 1


def test_the_commands_it_prints_work_as_printed(played: tuple[Path, str]) -> None:
    folder, said = played
    commands = [line.split("   ")[0].strip() for line in said.splitlines() if " --store " in line]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_log_agrees_with_what_it_said(played: tuple[Path, str]) -> None:
    folder, said = played
    store = open_store(folder / "refold-demo" / "demo.db", create=False)
    events: list[Any] = [row.event() for row in store.read("release-1")]
    store.close()
    owners = [event for event in events if isinstance(event, t.RunClaimed)]
    assert len(owners) == 2
    second = events.index(owners[1])
    completed = {e.step for e in events[:second] if isinstance(e, t.StepCompleted)}
    started_later = {e.step for e in events[second:] if isinstance(e, t.StepStarted)}
    assert completed
    assert not completed & started_later
    assert f"{len(completed)} steps completed" in said
    failures = [e for e in events if isinstance(e, t.StepAttemptFailed)]
    assert [e.error.type for e in failures] == ["ConnectionError"] * 2
    assert any(isinstance(e, t.TimerFired) for e in events)
    assert any(isinstance(e, t.StepInterrupted) for e in events)
    (signalled,) = [e for e in events if isinstance(e, t.SignalReceived)]
    assert signalled.inbox  # it came from another process


def test_again_in_the_same_folder(played: tuple[Path, str]) -> None:
    folder, _ = played
    done = play(folder, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["run"] == "release-2"
    assert outcome["ok"]
    assert outcome["kill"]["completed"] >= 1
    assert outcome["kill"]["in_flight"] >= 1
    assert {proof["claim"] for proof in outcome["proofs"] if proof["holds"]} == {
        "durable_steps_ran_once",
        "steps_in_flight_ran_again",
        "intent_before_effect",
        "completed_once",
        "chain",
        "read_models",
    }


# ---- the approval ---------------------------------------------------------------------------------


def test_no_means_no(tmp_path: Path) -> None:
    done = play(tmp_path, "--folder", "here", input="n\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not released" in done.stdout
    assert [*tmp_path.glob("here/release-1/released/*")] == []


def test_when_nobody_is_there_the_run_is_cancelled_and_it_says_how_to_answer(tmp_path: Path) -> None:
    done = play(tmp_path, input="")
    assert done.returncode == 1
    assert "nobody is there to approve" in done.stdout
    assert "demo --yes" in done.stdout
    store = open_store(tmp_path / "refold-demo" / "demo.db", create=False)
    work = store.work("release-1")
    store.close()
    assert work is not None
    assert work.status == "cancelled"


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that waits for an answer nobody gives here."""
    process = subprocess.Popen(
        [*REFOLD, "demo"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = monotonic() + PATIENCE_S
        while not any(run["blocked_on"] for run in runs(tmp_path, "waiting")):
            assert monotonic() < deadline
            assert process.poll() is None, process.communicate()
            sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


def runs(folder: Path, status: str) -> list[dict[str, Any]]:
    if not (folder / "refold-demo" / "demo.db").exists():
        return []
    with existing(str(folder / "refold-demo" / "demo.db")) as store:
        found = list_runs(store, {"status": status}).runs
    return [
        run for run in found if (run["blocked_on"] or {}).get("name", "") == "approve" or status != "waiting"
    ]


def test_a_second_demo_waits_for_its_turn_and_the_answer_may_come_from_another_terminal(
    asking: subprocess.Popen[str], tmp_path: Path
) -> None:
    done = play(tmp_path, "--yes")
    assert done.returncode == 3
    assert "is held by" in done.stderr
    assert asking.poll() is None
    assert len(runs(tmp_path, "waiting")) == 1
    answer = ("--payload", '{"approved": true, "by": "ana"}', "--store", "refold-demo/demo.db")
    command = [*REFOLD, "signal", "release-1", "approve", *answer]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert asking.wait(PATIENCE_S) == 0
    (run,) = runs(tmp_path, "completed")
    assert run["signals"] == 1


def test_ctrl_c_leaves_no_process_and_the_next_demo_clears_up(
    asking: subprocess.Popen[str], tmp_path: Path
) -> None:
    os.killpg(asking.pid, signal.SIGINT)
    assert asking.wait(PATIENCE_S) == 130
    _, said = asking.communicate()
    assert "Traceback" not in said
    done = play(tmp_path, input="y\n")
    assert done.returncode == 0
    assert len([*tmp_path.glob("refold-demo/release-2/released/*")]) == 1
    assert [run["run_id"] for run in runs(tmp_path, "cancelled")] == ["release-1"]


# ---- controls -------------------------------------------------------------------------------------


def sabotaged(folder: Path, how: str) -> tuple[Demo, str]:
    """The demo, given with a worker that breaks a promise."""
    script = Path(__file__).with_name("sabotaged_worker.py")
    out = io.StringIO()
    demo = Demo(folder / "demo", Screen(out), yes=True, worker=[sys.executable, str(script), how])
    try:
        assert not demo.play()
    finally:
        demo.close()
    return demo, out.getvalue()


def failed(demo: Demo) -> list[str]:
    return [proof.claim for proof in demo.proofs if not proof.holds]


def test_a_worker_that_runs_a_durable_step_again_is_found_out(tmp_path: Path) -> None:
    demo, said = sabotaged(tmp_path, "again")
    assert "durable_steps_ran_once" in failed(demo)
    assert "✗ 1 of" in said
    assert "ran again: stage#" in said


def test_a_worker_whose_effects_have_no_intent_is_found_out(tmp_path: Path) -> None:
    demo, said = sabotaged(tmp_path, "silent")
    assert "intent_before_effect" in failed(demo)
    assert "effects without an intent" in said


def test_a_worker_that_does_not_die_stops_the_demo(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="was to die of SIGKILL"):
        sabotaged(tmp_path, "alive")
