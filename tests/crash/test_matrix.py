"""Killed before, inside and after every append, and in every body: the run ends as if nothing had happened.

What is checked after each death and at the end is in `checks.py`; `test_controls.py` shows that it
notices what it should.
"""

import itertools
import random

import pytest

from tests.crash.kit import Server, reference_of

PARTS = {"order": 6, "branches": 4, "tidied": 2, "careful": 1, "listener": 2, "storm": 5, "idle": 1}
"""Workflows, and into how many tests each is cut, so that they spread over the processes of a test run."""
RESULTS = {
    "tidied": "cancelled: run 'run' was cancelled: enough",
    "listener": [{"number": 1}, {"number": 2}],
    "idle": 7,
}


def kills(flow: str, moments: int) -> list[tuple[int, ...]]:
    """Each moment alone, and every twelfth one followed by four early deaths of those who take over.

    `storm` has half as many moments as all others together, and goes without the first kind.
    """
    alone = [] if flow == "storm" else [(n,) for n in range(1, moments + 1)]
    return [*alone, *(chain(n) for n in range(1, moments + 1, 12))]


def chain(moment: int) -> tuple[int, ...]:
    """A death at this moment, and four early ones of those who take over."""
    return (moment, *(1 + moment * k % (6 + k) for k in (1, 3, 5, 7)))


@pytest.mark.parametrize(
    ("flow", "part"), [(flow, part) for flow, parts in PARTS.items() for part in range(parts)]
)
def test_a_run_survives_a_kill_at_every_moment(server: Server, flow: str, part: int) -> None:
    calm = server.unkilled(flow)
    deaths = planned = 0
    for case in kills(flow, calm.moments)[part :: PARTS[flow]]:
        outcome = server.play(flow, *case, reference=reference_of(flow))
        assert outcome.problems == [], f"killed {outcome.deaths}"
        assert flow == "careful" or outcome.result == calm.result
        planned, deaths = planned + len(case), deaths + len(outcome.deaths)
    # Those who take over near the end, and from the first moment on in `idle`, are through before they die.
    assert deaths >= (1 if flow == "idle" else 0.6 * planned)


def test_the_matrix_has_hundreds_of_kills_of_every_kind(server: Server) -> None:
    calm = {flow: server.unkilled(flow) for flow in PARTS}
    assert sum(len(case) for flow in PARTS for case in kills(flow, calm[flow].moments)) > 300
    for flow, outcome in calm.items():
        assert outcome.moments >= 3 * outcome.commits, flow  # before, inside and after each
    for flow, result in RESULTS.items():
        assert calm[flow].result == result


def test_a_step_that_allows_one_attempt_is_unknown_after_a_kill_in_it(server: Server) -> None:
    said: set[str] = set()
    for moment in range(1, server.unkilled("careful").moments + 1):
        outcome = server.play("careful", moment)
        assert outcome.problems == []
        said |= set(outcome.result["said"])
    assert said == {"charged 1", "unknown 1", "charged 2", "unknown 2"}


@pytest.mark.slow
@pytest.mark.parametrize("flow", PARTS)
def test_a_run_survives_five_kills_from_every_moment_on(server: Server, flow: str) -> None:
    for moment in range(1, server.unkilled(flow).moments + 1):
        outcome = server.play(flow, *chain(moment), reference=reference_of(flow))
        assert outcome.problems == [], f"killed {outcome.deaths}"


@pytest.mark.slow
@pytest.mark.parametrize("flow", PARTS)
def test_a_run_survives_many_kills_at_random_moments(server: Server, flow: str) -> None:
    chance = random.Random(flow)
    calm = server.unkilled(flow)
    for _ in range(300):
        case = [chance.randint(1, 1 + calm.moments // 3) for _ in range(chance.randint(1, 8))]
        outcome = server.play(flow, *case, reference=reference_of(flow))
        assert outcome.problems == [], f"killed at {case}: {outcome.deaths}"


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["tidied", "listener", "careful"])
def test_a_run_survives_every_pair_of_kills(server: Server, flow: str) -> None:
    calm = server.unkilled(flow)
    for first, second in itertools.product(range(1, calm.moments + 1), range(1, calm.moments + 1)):
        outcome = server.play(flow, first, second, reference=reference_of(flow))
        assert outcome.problems == [], f"killed {outcome.deaths}"
