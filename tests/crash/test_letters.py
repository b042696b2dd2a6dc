"""Another process writes to the run at every moment: each letter is delivered once, and none is lost."""

import pytest

from tests.crash.kit import Server

PARTS = 2
LETTERS = [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("gap", [0, 3])
def test_a_letter_may_come_at_any_moment(server: Server, gap: int, part: int) -> None:
    """Each is sent twice under one id. `gap`: moments between the first letter and the second."""
    calm = server.unkilled("listener")
    for moment in range(1, calm.moments + 2)[part::PARTS]:
        outcome = server.play("listener", letters_at=(moment, moment + gap))
        assert outcome.problems == []
        assert outcome.result == LETTERS


@pytest.mark.parametrize("part", range(PARTS))
def test_a_letter_outlives_who_dies_the_moment_it_comes(server: Server, part: int) -> None:
    calm = server.unkilled("listener")
    deaths = 0
    for moment in range(1, calm.moments + 1)[part :: 2 * PARTS]:
        outcome = server.play("listener", moment, 1 + moment % 6, letters_at=(moment, moment + 1))
        assert outcome.problems == [], f"killed {outcome.deaths}"
        assert outcome.result == LETTERS
        deaths += len(outcome.deaths)
    assert deaths >= calm.moments // (2 * PARTS)
