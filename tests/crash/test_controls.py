"""The checks notice: each promise is broken on purpose, and the very same checks must fail.

Without the sabotage they pass for the same kills: that is what `test_matrix.py` shows.
"""

from collections.abc import Iterable

from tests.crash.kit import Server


def noticed(server: Server, flow: str, cheat: str, kills: Iterable[int]) -> list[str]:
    return [p for kill in kills for p in server.play(flow, *[kill] * (kill > 0), cheat=cheat).problems]


def test_an_acknowledgement_before_the_commit_is_noticed(server: Server) -> None:
    problems = noticed(server, "idle", "acknowledges_before_the_commit", range(1, 4))
    assert "the start was acknowledged and is not in the log" in problems


def test_a_result_given_out_before_its_commit_is_noticed(server: Server) -> None:
    end = server.unkilled("listener").moments
    problems = noticed(server, "listener", "gives_results_out_before_the_commit", range(end - 7, end + 1))
    assert "the result was given out and is not in the log" in problems


def test_an_effect_before_what_comes_before_it_is_durable_is_noticed(server: Server) -> None:
    problems = noticed(server, "order", "begins_before_the_intent_is_durable", [0, *range(20, 28)])
    assert any("has begun before attempt" in p for p in problems)
    # … and it does harm: pure steps and the effectful one behind them are lost, its effect is not.
    assert any("began twice" in p for p in problems)


def test_old_commands_appended_after_a_refusal_are_noticed(server: Server) -> None:
    commits = server.unkilled("order").commits
    cheat = "appends_old_commands_after_a_refusal"
    outcomes = [server.play("order", stranger=n, cheat=cheat) for n in range(4, commits)]
    refused = [outcome for outcome in outcomes if outcome.refused]
    assert len(refused) > 5
    assert all(any("does not replay" in p for p in outcome.problems) for outcome in refused)


def test_a_dispatch_table_written_later_is_noticed(server: Server) -> None:
    problems = noticed(server, "order", "writes_work_in_a_transaction_of_its_own", range(9, 14))
    assert any("the log folds to" in p for p in problems)


def test_a_second_attempt_where_one_is_allowed_is_noticed(server: Server) -> None:
    problems = noticed(server, "careful", "repeats_what_it_must_not", range(3, 6))
    assert any("charge#1 allows one attempt and had 2" in p for p in problems)
