"""Runs that belong together, people, repairs and undoing: killed at every moment, as in `test_matrix.py`.

What is new to be true is in `promises.py`. Where others write to the run (`letters.py`), they do it from a
process of their own: when everything waits for them, or at the very moment at which somebody dies.
"""

import random
from typing import Any

import pytest

from tests.crash.case import Outcome
from tests.crash.kit import Server
from tests.crash.letters import LETTERS

IDLE = 1_000_000
"""A letter for this moment is sent when all wait for it."""
ALONE = {"family": 4, "saga": 2}
"""Workflows that nobody writes to, with one schedule only; and into how many tests each is cut."""
WRITTEN_TO = {
    "relay": 2, "board": 2, "steady": 3, "doomed": 1, "cancelled": 2, "mended": 4,
}  # fmt: skip
RESULTS = {
    "family": {
        "newer": True, "first": 7, "large": False, "pair": [3, 6, None], "items": [1, 2, 3, 4, 5],
        "children": [13, 15], "problem": "failed", "unattended": "run~5", "stage": "begun",
    },
    "saga": "compensated: run 'run' is compensated: StepFailed: step hopeless#1 failed: NonRetryable: never",
    "relay": [1, 2, 3],
    "board": {"approvals": ["ana", "bob"], "when": ["now"], "sum": 15},
    "steady": 12,
    "doomed": "terminated: run 'run' was terminated: enough",
    "cancelled": "cancelled: run 'run' was cancelled: enough",
    "mended": [2, 2, 9, 8, 6, 3],
}  # fmt: skip


def play(server: Server, case: str, *kills: int, first: int = IDLE, **more: Any) -> Outcome:
    """Play a case. `first`: moment of its first letter; the next one is for the next moment, and so on.

    But what is paused is resumed when everything else has come to a stop.
    """
    gap = IDLE if case == "steady" else 1
    letters = tuple(min(first + n * gap, IDLE) for n in range(len(LETTERS.get(case, ()))))
    flow = "doomed" if case == "cancelled" else case
    reference = f"{case}.json" if case in ALONE else ""
    script = case if case in LETTERS else ""
    return server.play(flow, *kills, script=script, letters_at=letters, reference=reference, **more)


def check(case: str, outcome: Outcome) -> None:
    assert outcome.problems == [], f"{case} killed {outcome.deaths}"
    result = outcome.result
    # Two letters on their way while a run goes on as another one may overtake each other.
    assert (sorted(result) if case == "relay" else result) == RESULTS[case]


def calm(server: Server, case: str) -> int:
    """How many moments the case has when nobody dies."""
    outcome = play(server, case)
    check(case, outcome)
    assert outcome.moments >= 3 * outcome.commits
    return outcome.moments


@pytest.mark.parametrize(("case", "part"), [(case, part) for case, n in ALONE.items() for part in range(n)])
def test_a_family_survives_a_kill_at_every_third_moment(server: Server, case: str, part: int) -> None:
    """And every twentieth one followed by four early deaths of those who take over."""
    moments, deaths, planned = calm(server, case), 0, 0
    kills: list[tuple[int, ...]] = [(moment,) for moment in range(1, moments + 1, 3)]
    kills += [(m, *(1 + m * k % (6 + k) for k in (1, 3, 5, 7))) for m in range(1, moments + 1, 20)]
    for some in kills[part :: ALONE[case]]:
        outcome = play(server, case, *some)
        check(case, outcome)
        deaths, planned = deaths + len(outcome.deaths), planned + len(some)
    assert deaths > 0.8 * planned


@pytest.mark.parametrize(
    ("case", "part"), [(case, part) for case, n in WRITTEN_TO.items() for part in range(n)]
)
def test_whoever_writes_to_a_run_may_do_so_whenever_somebody_dies(
    server: Server, case: str, part: int
) -> None:
    """Killed at every fourth moment, in turn with letters to those who wait and at that very moment."""
    moments, deaths = calm(server, case), 0
    some = range(1, moments + 1, 4)[part :: WRITTEN_TO[case]]
    for turn, moment in enumerate(some):
        if turn % 2:
            outcome = play(server, case, moment)
        else:
            outcome = play(server, case, moment, 1 + moment % 6, first=moment)
        check(case, outcome)
        deaths += len(outcome.deaths)
    assert deaths > 0.8 * len(some)


@pytest.mark.parametrize("case", ["relay", "board", "steady", "doomed", "cancelled"])
def test_whoever_writes_to_a_run_may_do_so_at_any_moment(server: Server, case: str) -> None:
    for moment in range(1, calm(server, case) + 2, 4):
        check(case, play(server, case, first=moment))


def test_votes_of_its_own_process_survive_as_well(server: Server) -> None:
    for moment in range(1, calm(server, "board") + 1, 3):
        outcome = server.play("board", moment)
        check("board", outcome)
        assert outcome.deaths


def test_many_at_once_survive_whatever_their_order(server: Server) -> None:
    unkilled = server.play("clan")
    assert unkilled.problems == []
    for moment in range(1, unkilled.moments + 1, 8):
        outcome = server.play("clan", moment, *(1 + moment * k % (6 + k) for k in (1, 3, 5, 7)))
        assert outcome.problems == [], f"killed {outcome.deaths}"
        assert outcome.result == unkilled.result


@pytest.mark.parametrize("kind", ["note", "twin"])
@pytest.mark.parametrize("case", ["family", "saga"])
def test_a_refused_append_costs_a_family_nothing_but_time(server: Server, case: str, kind: str) -> None:
    unkilled = play(server, case)
    for commit in range(2 + (kind == "twin"), unkilled.commits + 1, 2):
        check(case, play(server, case, stranger=commit, stranger_kind=kind))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*ALONE, *WRITTEN_TO])
def test_every_case_survives_many_kills_at_random_moments(server: Server, case: str) -> None:
    chance = random.Random(case)
    moments = calm(server, case)
    for _ in range(150):
        kills = [chance.randint(1, 1 + moments // 2) for _ in range(chance.randint(1, 8))]
        check(case, play(server, case, *kills, first=chance.choice([IDLE, chance.randint(1, moments)])))


@pytest.mark.slow
@pytest.mark.parametrize("case", ALONE)
def test_a_family_survives_five_kills_from_every_moment_on(server: Server, case: str) -> None:
    for moment in range(1, calm(server, case) + 1):
        check(case, play(server, case, moment))
        check(case, play(server, case, moment, *(1 + moment * k % (6 + k) for k in (1, 3, 5, 7))))


@pytest.mark.slow
@pytest.mark.parametrize("case", WRITTEN_TO)
def test_every_case_survives_letters_and_kills_at_every_moment(server: Server, case: str) -> None:
    moments = calm(server, case)
    for moment in range(1, moments + 1):
        for first in (1, moment - 2, moment, moment + 2, IDLE):
            check(case, play(server, case, moment, 1 + moment % 6, first=max(1, first)))
