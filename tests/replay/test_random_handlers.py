"""Random handlers, crashed after each activation and played again: same commands, same result."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from refold.engine import _compat
from refold.engine.loop import Future, Task
from refold.events.errors import NonDeterminismError

from .play import Difference, History, check, play, replay
from .programs import Node, generate, program

BLOCKS, SEEDS = 8, 20
CRASHES = 12
"""Places at which a history is crashed, spread over it."""

Record = Any  # pytest's record_property


def crashes(history: History, most: int = CRASHES) -> range:
    length = len(history.activations())
    return range(1, length + 1, max(1, length // most))


def play_tree(tree: Node, rng: random.Random) -> History:
    return play(program, [tree], rng, rng.choice([0, 0, 0.08]))


def soak(seeds: range, most: int = CRASHES) -> tuple[int, int]:
    """Check the programs of these seeds; returns how many replays and events that were."""
    replays = events = 0
    for seed in seeds:
        rng = random.Random(seed)
        history = play_tree(generate(rng), rng)
        replays += check(program, history, crashes(history, most))
        events += len(history.rows)
    return replays, events


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_crash_anywhere_changes_nothing(block: int, record_property: Record) -> None:
    replays, events = soak(range(block * SEEDS, block * SEEDS + SEEDS))
    record_property("replays", replays)
    assert replays > SEEDS
    assert events > SEEDS * 10


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_soak(block: int, record_property: Record) -> None:
    record_property("replays", soak(range(100_000 + block * 250, 100_000 + block * 250 + 250), 1000)[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_whatever_program_and_world_hypothesis_finds(rng: random.Random) -> None:
    history = play_tree(generate(rng), rng)
    check(program, history, crashes(history, 6))


def differences(seeds: range) -> int:
    count = 0
    for seed in seeds:
        rng = random.Random(seed)
        history = play_tree(generate(rng), rng)
        try:
            check(program, history, crashes(history, 4))
        except (Difference, NonDeterminismError):
            count += 1
    return count


@pytest.fixture
def by_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks and futures hashed by address, as asyncio's are."""
    monkeypatch.setattr(Task, "__hash__", object.__hash__)
    monkeypatch.setattr(Future, "__hash__", object.__hash__)
    noise = [[object() for _ in range(number % 13)] for number in range(2_000)]
    yield
    del noise


def test_control_tasks_hashed_by_address_differ(by_address: None) -> None:
    assert differences(range(80)) > 0


def test_control_stock_cancel_scopes_differ(by_address: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "OrderedSet", set)
    assert differences(range(80)) > 0


def test_slices_of_any_size_replay_alike() -> None:
    rng = random.Random(3)
    history = play_tree(["gather", 1, ["loop", 3, ["step", 1]], ["loop", 3, ["asleep", 1]]], rng)
    for size in (1, 2, 500):
        replay(program, history, len(history.activations()), size).evict()


def test_values_are_those_of_the_log_also_before_a_crash() -> None:
    history = play_tree(
        ["seq", 0, ["pure", 1], ["set_and_dict", 2]], random.Random(1)
    )  # asserts types inside
    assert history.rows[-1][0] == "run.completed", history.rows[-1]
