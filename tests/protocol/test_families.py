"""Children, gates, new runs and repairs, with zombies and a store that fails: nothing lost or doubled."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec import Struct

from refold.engine import family, onward, rewind
from refold.engine.workflow import Workflow
from refold.events import types as t
from refold.events.errors import RefoldError
from refold.events.log import Log
from refold.events.store import Unit

from .simulation import simulated
from .test_interleavings import CALM, FROZEN, LOSING, OWNERS, TENTHS, UNAWARE, Owner, owner
from .town import TOWN, Town

KINDS = [
    "signal", "signal", "vote", "vote", "vote", "result", "cancel", "pause", "resume", "terminate", "retry",
    "retry", "skip_step", "reset_step",
]  # fmt: skip


class Act(Struct, frozen=True):
    """What somebody outside does."""

    at: float
    run: int
    kind: str
    sender: int
    """Number of the owner it goes through; beyond the last one: a process of its own."""


class Scenario(Struct, frozen=True):
    owners: list[Owner]
    acts: list[Act]
    runs: list[int]
    choices: list[int]


ACTS = st.builds(Act, at=TENTHS, run=st.integers(0, 1), kind=st.sampled_from(KINDS), sender=st.integers(0, 3))
SCENARIOS = st.builds(
    Scenario,
    owners=st.lists(OWNERS, min_size=1, max_size=3),
    acts=st.lists(ACTS, max_size=10),
    runs=st.lists(st.integers(0, 4), min_size=1, max_size=2),
    choices=st.lists(st.integers(0, 2), max_size=60),
)


async def play(town: Town, scenario: Scenario) -> dict[str, Workflow[Any, Any]]:
    """Let it happen."""
    loop = town.loop
    runs = {f"run-{number}": TOWN[kind] for number, kind in enumerate(scenario.runs)}
    await town.open("x", execute=False)
    for number, act in enumerate(scenario.acts, start=1):
        loop.call_later(act.at, deliver, town, act, number, list(runs))
    await town.rule(scenario.owners, runs)
    await asyncio.sleep(max([0.0, *(act.at - loop.now for act in scenario.acts)]) + 0.5)
    await town.finish(runs, f"owner{len(scenario.owners) - 1}")
    return runs


def deliver(town: Town, act: Act, number: int, names: list[str]) -> None:
    run_id, sender = names[act.run % len(names)], f"owner{act.sender}"
    if sender not in town.engines or sender in town.killed:
        sender = "x"
    if act.kind == "vote":
        town.vote(sender, run_id, number)
    elif act.kind in ("signal", "cancel"):
        getattr(town, act.kind)(sender, run_id, number)
    elif act.kind == "result":
        town.result(sender, run_id)
    else:
        town.act(sender, act.kind, run_id, number)


def simulate(scenario: Scenario) -> Town:
    """Play a scenario to its end and check every promise."""
    with simulated(scenario.choices) as loop:
        town = Town(loop)
        town.punctual = not any(owner.skew for owner in scenario.owners)
        try:
            runs = loop.run_until_complete(play(town, scenario))
            town.check(runs)
        finally:
            loop.run_until_complete(town.clean_up())
        return town


CI = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
SOAK = settings(CI, max_examples=5_000)


@CI
@given(SCENARIOS)
def test_every_promise_holds_in_every_interleaving(scenario: Scenario) -> None:
    simulate(scenario)


@pytest.mark.slow
@SOAK
@given(SCENARIOS)
def test_soak(scenario: Scenario) -> None:
    simulate(scenario)


# ---- scenarios by hand, and what they do when a mechanism is broken

PARENT, ASKER, RELAY, BRITTLE, SAGA = range(5)
BY_HAND: dict[str, Scenario] = {
    "a zombie wakes while children run": Scenario([FROZEN, CALM], [], [PARENT], []),
    "a zombie believes that it holds the store": Scenario([UNAWARE, CALM], [], [PARENT, SAGA], []),
    "three owners who do not know of each other": Scenario(
        [owner(unaware=3.0)] * 3, [Act(1.2, 0, "vote", 0), Act(1.3, 0, "vote", 3)], [ASKER, BRITTLE], []
    ),
    "killed in the middle of undoing": Scenario(
        [owner(fate="killed", at=0.75), owner(fate="killed"), CALM], [], [SAGA], []
    ),
    "answers lost while people vote": Scenario(
        [owner(faults=LOSING)], [Act(t / 10, 0, "vote", t % 4) for t in range(1, 9)], [ASKER], []
    ),
    "answers lost among children": Scenario([owner(faults=LOSING)], [], [PARENT], []),
    "refused among children": Scenario([owner(faults=["ok", "overtaken"] * 6)], [], [PARENT, BRITTLE], []),
    "paused, taken over, resumed": Scenario(
        [owner(fate="killed", at=0.6), CALM],
        [Act(0.1, 0, "pause", 3), Act(2.0, 0, "resume", 3)], [BRITTLE], [],
    ),
    "retried while it is taken over": Scenario(
        [owner(fate="killed", at=1.5), owner(at=1.0)],
        [Act(1.4, 0, "retry", 3), Act(1.6, 0, "retry", 0), Act(2.4, 0, "retry", 3)], [BRITTLE], [],
    ),
    "terminated with its children": Scenario([CALM], [Act(0.7, 0, "terminate", 3)], [PARENT], []),
    "mail while it goes on as new ones": Scenario(
        [owner(faults=["ok", "overtaken", "ok", "lost answer"] * 4, at=3.0)],
        [Act(t / 10, 0, "signal", t % 4) for t in range(1, 18, 2)], [RELAY], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    simulate(BY_HAND[name])


def broken(names: list[str]) -> int:
    """How many of these scenarios break a promise."""
    count = 0
    for name in names:
        try:
            simulate(BY_HAND[name])
        except (AssertionError, RefoldError):
            count += 1
    return count


def test_control_an_end_that_nobody_is_told_leaves_the_parent_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(family, "end_message", lambda *rest: ())
    assert broken(["a zombie wakes while children run"]) == 1


def test_control_a_child_started_apart_from_its_parents_append_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follows = family.follows

    def apart(live: Any, command: Any, event: Any) -> Any:
        concerns = follows(live, command, event)
        return ([], family.NOTHING_ALONG) if isinstance(event, t.ChildStarted) else concerns

    monkeypatch.setattr(family, "follows", apart)
    assert broken(["refused among children"]) == 1


def test_control_mail_that_does_not_go_along_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onward, "posts", lambda rows, next_run: ())
    assert broken(["mail while it goes on as new ones"]) == 1


def test_control_votes_and_acts_told_before_they_are_stored_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Log.append

    def hasty(log: Log, unit: Unit, done: Any, **named: Any) -> None:
        append(log, unit, done, **named)
        done(None)

    monkeypatch.setattr(Log, "append", hasty)
    assert broken(["answers lost while people vote", "retried while it is taken over"]) >= 1


def test_control_a_pause_that_forgets_what_it_held_when_the_run_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = [Act(0.1, 0, "pause", 3), Act(1.2, 0, "cancel", 3), Act(2.6, 0, "retry", 3)]
    scenario = Scenario([CALM], calls, [PARENT], [])
    simulate(scenario)
    monkeypatch.setattr(rewind, "cause_in", lambda held: held)
    with pytest.raises(AssertionError, match="never end"):
        simulate(scenario)
