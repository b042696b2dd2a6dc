"""Random handlers of the model, crashed after each activation, rewound anywhere: the same commands again."""

import random

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from refold.engine import data
from refold.engine.activation import Floors
from refold.engine.loader import floors_of
from refold.engine.run import Run
from refold.events import types as t
from refold.events.errors import NonDeterminismError

from .model_programs import before_the_patch, generate, model_program
from .model_world import play_and_go_back, used_twice
from .play import Difference, History, check

BLOCKS, SEEDS, CRASHES = 6, 20, 12
Record = object


def crashes(history: History, most: int = CRASHES) -> range:
    length = len(history.activations())
    return range(1, length + 1, max(1, length // most))


def one(seed: int) -> History:
    rng = random.Random(seed)
    return play_and_go_back(model_program, [generate(rng)], rng)


def soak(seeds: range, most: int = CRASHES) -> tuple[int, int]:
    """Check the programs of these seeds; returns how many replays and rewinds that were."""
    replays = rewinds = 0
    for seed in seeds:
        history = one(seed)
        assert used_twice(history) == [], seed
        replays += check(model_program, history, crashes(history, most))
        rewinds += sum(tag == t.RunRewound.TAG for tag, _ in history.rows)
    return replays, rewinds


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_crash_anywhere_and_going_back_anywhere_change_nothing(block: int) -> None:
    replays, rewinds = soak(range(block * SEEDS, block * SEEDS + SEEDS))
    assert replays > SEEDS
    assert rewinds > SEEDS // 3


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_soak(block: int) -> None:
    soak(range(100_000 + block * 250, 100_000 + block * 250 + 250), 1000)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_whatever_program_and_world_hypothesis_finds(rng: random.Random) -> None:
    history = play_and_go_back(model_program, [generate(rng)], rng)
    assert used_twice(history) == []
    check(model_program, history, crashes(history, 6))


def test_every_kind_of_command_is_among_them() -> None:
    tags = {tag for seed in range(80) for tag, _ in one(seed).rows}
    wanted = (
        t.GateOpened, t.GateVoted, t.GateClosed, t.ChildStarted, t.ChildEnded, t.ChildCancelled,
        t.FanOutOpened, t.FanOutClosed, t.ContextSet, t.CheckpointRecorded, t.AttributesSet,
        t.ConditionDecided, t.PatchApplied, t.BranchSkipped, t.RunRewound, t.CauseHeld,
    )  # fmt: skip
    assert not {kind.TAG for kind in wanted} - tags


# ---- patches


def replayed(flow: object, history: History) -> bool:
    """Whether a handler of this version stands where the history ends."""
    whole = history.activations()
    started = whole[0].cause
    assert isinstance(started, t.RunStarted)
    run = Run(flow, history.run_id, started)  # type: ignore[arg-type]
    try:
        run.replay(whole)
    except NonDeterminismError:
        return False
    finally:
        run.evict()
    return True


def test_runs_from_before_a_patch_replay_with_it() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        assert replayed(model_program, play_and_go_back(before_the_patch, [generate(rng)], rng)), seed


def test_runs_with_a_patch_do_not_replay_without_it() -> None:
    patched = 0
    for seed in range(60):
        history = one(seed)
        # One that was applied in the rewound part is of no consequence.
        has = any(isinstance(e, t.PatchApplied) for a in history.activations() for e in a.commands)
        assert replayed(before_the_patch, history) != has, seed
        patched += has
    assert patched > 10


# ---- controls


def differences(seeds: range) -> int:
    count = 0
    for seed in seeds:
        try:
            history = one(seed)
            check(model_program, history, crashes(history, 4))
            count += bool(used_twice(history))
        except (Difference, NonDeterminismError, AssertionError):
            count += 1
    return count


def test_control_without_floors_what_was_dropped_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert floors_of([]) == Floors()
    monkeypatch.setattr(Run, "raise_floors", lambda self, floors: None)
    assert differences(range(30)) > 5


def test_control_a_condition_computed_anew_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    condition = data.condition
    monkeypatch.setattr(Run, "recorded", lambda self, kind, **same: None)
    monkeypatch.setattr(
        data, "condition", lambda run, name, result, *rest: condition(run, name, chance.random() < 0.5, *rest)
    )
    assert differences(range(40)) > 3
