"""The checks of `test_model.py` notice: each promise is broken on purpose, and they must fail."""

import pytest

from tests.crash.kit import Server
from tests.crash.test_model import IDLE, play

HANGS = "a process that was to die at 0: failed"
CONTROLS = {
    "starts_children_in_a_commit_of_their_own": (
        "family",
        4,
        IDLE,
        "was started by run/1 and does not exist",
    ),
    "tells_of_an_end_in_a_commit_of_its_own": ("board", 39, IDLE, "and its parent was told 0 times"),
    "acknowledges_messages_before_they_are_written": ("board", 0, IDLE, "was acknowledged and is not in"),
    "holds_causes_in_memory": ("steady", 0, 17, "has ended, nothing is in flight, and the log does not know"),
    "pauses_nothing": ("steady", 0, 17, "while it was paused"),
    "counts_every_vote": ("board", 0, IDLE, "ana has 2 votes at gate 1"),
    "undoes_twice": ("saga", 0, IDLE, "make#1 was undone 2 times"),
    "tells_all_costs_again": ("mended", 0, IDLE, "$, its parent was told"),
    "forgets_mail_when_it_goes_on": ("relay", 0, 12, HANGS),
    "lets_children_live": ("doomed", 0, IDLE, HANGS),
}
"""By sabotage: the case, when it is killed (0: never), when the first letter is sent, and the finding."""


@pytest.mark.parametrize("cheat", CONTROLS)
def test_a_broken_promise_is_noticed(server: Server, cheat: str) -> None:
    case, kill, first, finding = CONTROLS[cheat]
    kills = [k for k in (kill, kill - 1, kill + 1, kill + 2, kill - 2) if k > 0] if kill else [0]
    problems: list[str] = []
    for some in kills:
        problems += play(
            server, case, *[some] * bool(some), first=first, cheat=cheat, patience_s=1.0
        ).problems
        if any(finding in problem for problem in problems):
            return
    raise AssertionError(problems)


def test_a_vote_that_is_acknowledged_before_its_commit_is_noticed(server: Server) -> None:
    """One that a person in the executing process gives."""
    cheat = "acknowledges_votes_before_the_commit"
    problems: list[str] = []
    for moment in range(20, 34):
        problems += server.play("board", moment, cheat=cheat, patience_s=1.0).problems
        if "the vote of ana was acknowledged and is not in the log" in problems:
            return
    raise AssertionError(problems)
