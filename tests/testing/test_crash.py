"""`durable_crash`: what is durable passes, and every kind of workflow that is not is told why."""

import re
from pathlib import Path
from typing import Any

import pytest

from refold import ConfigurationError, Context, workflow
from refold.testing import CrashDifference, TestEngine, durable_crash
from refold.testing.crash import _differences, _points
from refold.testing.crash_case import Outcome

from . import crashable
from .crashable import (
    charges,
    circles,
    counts_in_a_global,
    differs_each_time,
    durable,
    ledger,
    never_ends,
    prepare,
    reads_what_a_body_left,
    reservations,
    reset_first,
    writes_in_the_handler,
)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    crashable.STATE.clear()
    crashable.reset()


@pytest.mark.parametrize("kill", [False, True])
def test_a_durable_workflow_is_the_same_after_every_crash(kill: bool, tmp_path: Path) -> None:
    """Steps at once, retries, a day, a child, a decision, chance, idempotent files."""
    report = durable_crash(
        durable, ["cup", "pot"], prepare=prepare, observe=reservations, kill=kill, folder=tmp_path
    )
    assert report.crashes >= 12
    assert report.events > 20


def test_each_crash_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    """Control: before and after every commit, and the run really goes on from a file."""
    report = durable_crash(charges, folder=tmp_path)
    (folder,) = tmp_path.iterdir()
    cases = sorted((case for case in folder.iterdir()), key=lambda case: int(case.name))
    assert len(cases) == report.crashes + 2
    begun = [len((case / "begun").read_text().splitlines()) for case in cases]
    assert sorted(set(begun)) == [1, 2]  # cut off in the body, or just after: it began again
    assert all((case / "run.db").exists() for case in cases)


@pytest.mark.parametrize(
    ("flow", "observe", "message"),
    [
        (counts_in_a_global, None, r"replay diverged at step notify#1(.|\n)*usual causes: state kept out"),
        (writes_in_the_handler, ledger, r"after event 4 .*\n.*`observe` sees \['charged'\] without a crash"),
        (charges, ledger, r"before event 5 \(step.completed\):\n.*sees .* without a crash, \[.5., .5.\]"),
    ],
)  # fmt: skip
def test_a_broken_workflow_is_told_where_a_crash_makes_a_difference(
    flow: Any, observe: Any, message: str
) -> None:
    with pytest.raises(CrashDifference, match=message):
        durable_crash(flow, prepare=reset_first, observe=observe)


def test_what_only_a_real_death_shows() -> None:
    """A module's state survives an engine that is abandoned in this process, and no SIGKILL."""
    durable_crash(reads_what_a_body_left)
    with pytest.raises(CrashDifference, match=r"args \[7\].* without a crash, args \[0\]"):
        durable_crash(reads_what_a_body_left, kill=True)


@pytest.mark.anyio
async def test_it_works_on_a_running_loop() -> None:
    assert durable_crash(charges).crashes == 4


def test_what_cannot_be_compared_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CrashDifference, match="even without a crash"):
        durable_crash(differs_each_time)
    with pytest.raises(CrashDifference, match="does not come to an end"):
        durable_crash(never_ends)
    with pytest.raises(ConfigurationError, match="1 or more"):
        durable_crash(charges, limit=0)
    monkeypatch.setattr("refold.testing.crash.HANGS_S", 0.2)
    with pytest.raises(CrashDifference, match=r"circles does not come to an end in 0\.2 s, even without"):
        durable_crash(circles)

    @workflow
    async def local(ctx: Context) -> int:
        return 1

    with pytest.raises(ConfigurationError, match="top of a module"):
        durable_crash(local, kill=True)
    assert durable_crash(local).crashes > 1


def outcome_with(**fields: Any) -> Outcome:
    nothing: dict[str, Any] = {
        "runs": [], "steps": {}, "seen": None, "begun": [], "ended": [], "problems": [], "events": 0,
        "tags": [], "crashed": False, "commits": [],
    }  # fmt: skip
    return Outcome(**nothing | fields)


@pytest.mark.parametrize(
    ("begun", "ended", "message"),
    [
        ([(0, "run", 1, "a#1"), (1, "run", 1, "a#1")], [("run", 1)], "step a#1 of run was over before"),
        ([(0, "run", 1, "a#1"), (1, "run", 1, "a#2")], [], "began again as a#2: another idempotency key"),
        ([(n > 0, "run", 1, "a#1") for n in range(3)], [], "step a#1 of run began 3 times, 1 without"),
        ([(0, "run", 1, "a#1"), (1, "run", 1, "a#1")], [], ""),
    ],
)
def test_bodies_that_begin_wrongly_are_told(begun: Any, ended: Any, message: str) -> None:
    reference = outcome_with(begun=[(0, "run", 1, "a#1")])
    told = list(_differences(reference, outcome_with(begun=begun, ended=ended, crashed=True)))
    assert len(told) == bool(message)
    assert message in "".join(told)


def test_runs_that_end_otherwise_are_told() -> None:
    def run(id: str, status: str, result: Any, *error: str) -> list[Any]:
        return [id, "shop", status, result, *(error or (None, None))]

    reference = outcome_with(
        runs=[run("same", "completed", 1), run("run", "completed", 5), run("b", "failed", 0)]
    )
    found = [
        run("same", "completed", 1),
        run("run", "failed", None, "ValueError", "no"),
        run("c", "completed", 2),
    ]
    assert sorted(_differences(reference, outcome_with(runs=found))) == [
        "run b: failed with 0 without a crash, not started with it",
        "run c: not started without a crash, completed with 2 with it",
        "run run: completed with 5 without a crash, failed with ValueError: no with it",
    ]


def test_a_limit_spreads_the_crashes_evenly() -> None:
    outcome = outcome_with(commits=[10, 20, 30, 40])
    assert [tuple(point) for point in _points(outcome, 4)] == [(1, 0), (11, 0), (21, 0), (31, 0)]
    assert len(_points(outcome, 200)) == 8


def test_a_body_that_begins_again_although_it_was_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: an engine that forgets what was completed."""

    def forget(self: TestEngine, *_: Any) -> None:
        self.ended = [("run", 1)]  # type: ignore[attr-defined]

    monkeypatch.setattr("refold.testing.crash_case.CrashEngine.look_at_what_is_left", forget)
    with pytest.raises(CrashDifference, match=re.escape("was over before the crash, and its body ran again")):
        durable_crash(charges)
