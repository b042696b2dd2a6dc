"""A stranger appends first, at every append: the run is rebuilt, and goes on with what it has in hand."""

import pytest

from tests.crash.kit import Server, reference_of

FLOWS = ("order", "branches", "tidied", "listener", "storm")


@pytest.mark.parametrize("kind", ["note", "twin"])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_refused_append_costs_nothing_but_time(server: Server, flow: str, kind: str) -> None:
    """`note`: the stranger wrote a fact; `twin`: the same activation, as another owner would have."""
    calm = server.unkilled(flow)
    refused = 0
    for commit in range(2, calm.commits + 1, 2):
        outcome = server.play(flow, stranger=commit, stranger_kind=kind, reference=reference_of(flow))
        assert outcome.problems == [], f"refused at commit {commit}"
        assert outcome.result == calm.result
        refused += outcome.refused
    assert refused >= calm.commits // 4


def test_a_kill_after_a_refusal_costs_nothing_either(server: Server) -> None:
    calm = server.unkilled("branches")
    for commit in range(2, calm.commits + 1, 2):
        for later in (3, 5):
            outcome = server.play(
                "branches",
                5 * commit + later,
                stranger=commit,
                stranger_kind="note",
                reference="branches.json",
            )
            assert outcome.problems == [], f"refused at commit {commit}, killed {outcome.deaths}"
            assert outcome.result == calm.result
