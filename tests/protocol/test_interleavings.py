"""Owners, zombies, kills, messages and a store that fails: one history, nothing lost, nothing doubled."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec import Raw, Struct, structs

from refold.engine.live import LiveRun
from refold.engine.workflow import Workflow
from refold.events import types as t
from refold.events.errors import RefoldError
from refold.events.log import Log
from refold.events.memory import MemoryStore
from refold.events.store import Refusal, Unit
from refold.events.stream import INBOX

from .room import FAULTS, FLOWS, Room
from .simulation import simulated

TENTHS = st.integers(0, 80).map(lambda tenths: tenths / 10)


class Owner(Struct, frozen=True):
    """One executing process, and what becomes of it when the next one takes over."""

    at: float
    """Seconds after the one before it."""
    fate: str
    """`alive`: goes on unaware; `frozen`: stopped just before the next one comes; `killed`."""
    frozen: float
    """For how long; its last moments before the next comes are lost, too."""
    faults: list[str]
    threaded: bool
    skew: float
    unaware: float = 0.0
    """For how long it still believes that it holds the store."""


class Message(Struct, frozen=True):
    at: float
    run: int
    kind: str
    sender: int
    """Number of the owner it goes through; beyond the last one: a process of its own."""
    repeat: bool


class Scenario(Struct, frozen=True):
    owners: list[Owner]
    messages: list[Message]
    runs: list[int]
    choices: list[int]
    twice: bool = False
    """Every run is started by two clients at once."""


OWNERS = st.builds(
    Owner,
    at=TENTHS,
    fate=st.sampled_from(["frozen", "killed", "alive"]),
    frozen=TENTHS,
    faults=st.lists(st.sampled_from(FAULTS), max_size=12),
    threaded=st.booleans(),
    skew=st.sampled_from([0.0, 0.5, -0.5]),
    unaware=st.sampled_from([0.0, 0.0, 0.5, 3.0]),
)
MESSAGES = st.builds(
    Message, at=TENTHS, run=st.integers(0, 2), kind=st.sampled_from(["signal", "signal", "result", "cancel"]),
    sender=st.integers(0, 3), repeat=st.booleans(),
)  # fmt: skip
SCENARIOS = st.builds(
    Scenario,
    owners=st.lists(OWNERS, min_size=1, max_size=3),
    messages=st.lists(MESSAGES, max_size=8),
    runs=st.lists(st.integers(0, 2), min_size=1, max_size=3),
    choices=st.lists(st.integers(0, 2), max_size=60),
    twice=st.booleans(),
)


async def play(room: Room, scenario: Scenario) -> dict[str, Workflow[Any, Any]]:
    """Let it happen."""
    loop = room.loop
    runs = {f"run-{number}": FLOWS[kind] for number, kind in enumerate(scenario.runs)}
    names = list(runs)
    await room.open("x", execute=False)
    for number, message in enumerate(scenario.messages, start=1):
        loop.call_later(message.at, deliver, room, scenario, message, number, names)
    for number, owner in enumerate(scenario.owners):
        name = f"owner{number}"
        if number:
            before, fate = f"owner{number - 1}", scenario.owners[number - 1]
            if fate.fate == "killed":
                room.kill(before)
            elif fate.fate == "frozen":
                room.freeze(before)
                loop.call_later(fate.frozen, room.thaw, before)
        await room.open(name, owner.faults, threaded=owner.threaded, skew=owner.skew, unaware=owner.unaware)
        for run_id, flow in runs.items():
            for _ in range(1 + scenario.twice):
                room.start(name, flow, run_id)
        await asyncio.sleep(owner.at + 0.05)
    await room.finish(runs, f"owner{len(scenario.owners) - 1}")
    return runs


def deliver(room: Room, scenario: Scenario, message: Message, number: int, names: list[str]) -> None:
    run_id = names[message.run % len(names)]
    sender = f"owner{message.sender}"
    if sender not in room.engines or sender in room.killed:
        sender = "x"
    if message.kind == "signal":
        signal_id = f"signal-{number}" if message.repeat else ""
        for _ in range(1 + message.repeat):
            room.signal(sender, run_id, number, signal_id)
    elif message.kind == "cancel":
        room.cancel(sender, run_id, number)
    else:
        room.result(sender, run_id)


def simulate(scenario: Scenario, store: MemoryStore | None = None) -> Room:
    """Play a scenario to its end and check every promise."""
    with simulated(scenario.choices) as loop:
        room = Room(loop, store)
        try:
            runs = loop.run_until_complete(play(room, scenario))
            room.check(runs)
        finally:
            loop.run_until_complete(room.clean_up())
        return room


CI = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
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

CALM = Owner(at=0.3, fate="alive", frozen=0.0, faults=[], threaded=False, skew=0.0)


def owner(**changes: Any) -> Owner:
    return structs.replace(CALM, **changes)


def message(at: float, kind: str = "signal", sender: int = 0, repeat: bool = False) -> Message:
    return Message(at=at, run=0, kind=kind, sender=sender, repeat=repeat)


FROZEN = owner(fate="frozen", frozen=1.0, at=0.51)
UNAWARE = owner(fate="frozen", frozen=1.0, at=0.51, unaware=2.0)
LOSING = ["ok", "lost answer"] * 6

BY_HAND: dict[str, Scenario] = {
    "a zombie wakes in the middle of a step": Scenario([FROZEN, CALM], [], [0], []),
    "a zombie wakes and believes that it holds the store": Scenario([UNAWARE, CALM], [], [0], []),
    "a zombie wakes to a timer": Scenario(
        [structs.replace(UNAWARE, frozen=4.0, unaware=9.0), CALM], [], [1, 2], []
    ),
    "three owners who do not know of each other": Scenario([owner(unaware=3.0)] * 3, [], [0, 1], []),
    "killed twice": Scenario([owner(fate="killed"), owner(fate="killed", at=1.0), CALM], [], [0, 1, 2], []),
    "a signal through a zombie, twice": Scenario(
        [UNAWARE, CALM],
        [message(0.54, repeat=True), message(0.6, "cancel"), message(0.6, "result")],
        [1],
        [],
    ),
    "a zombie ends a run for which somebody waits elsewhere": Scenario(
        [owner(at=2.0, unaware=9.0), owner(at=3.0)],
        [Message(2.8, 0, "result", 1, False), Message(3.1, 0, "cancel", 3, False)],
        [2],
        [],
    ),
    "answers lost while signals come": Scenario(
        [owner(faults=LOSING)], [message(tenth / 10) for tenth in range(1, 9)], [1], []
    ),
    "answers lost and nobody can look": Scenario(
        [owner(faults=["ok", "blind"] * 3)], [message(0.1), message(0.4)], [1], []
    ),
    "refused again and again": Scenario([owner(faults=["ok", "overtaken"] * 6)], [message(0.2)], [0, 1], []),
    "commits in a thread": Scenario(
        [owner(threaded=True, faults=["ok", "lost answer", "overtaken", "failed"])],
        [message(0.2, repeat=True), message(0.3, sender=3)],
        [0, 1],
        [],
        twice=True,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    simulate(BY_HAND[name])


def test_a_zombies_result_is_kept_as_evidence() -> None:
    zombie = owner(fate="frozen", frozen=1.0, at=0.585, threaded=True)  # its commit is on its way
    room = simulate(Scenario([zombie, CALM], [], [0], []))
    mail = room.events("run-0" + INBOX)
    evidence = [message.result for message in mail if isinstance(message, t.StepLate)]
    assert evidence[0] == Raw(b'"e2"')
    copied = [event.result for event in room.events("run-0") if isinstance(event, t.StepLate)]
    assert copied == evidence


def broken(scenarios: list[str], store: Callable[[], MemoryStore] = MemoryStore) -> int:
    """How many of these scenarios break a promise."""
    count = 0
    for name in scenarios:
        try:
            simulate(BY_HAND[name], store())
        except (AssertionError, RefoldError):
            count += 1
    return count


class Unchecked(MemoryStore):
    """Stores whatever it is given: neither version nor hash is checked."""

    def _commit_one(self, unit: Unit) -> Refusal | None:
        appends = tuple(
            structs.replace(a, expected=self.tail(a.stream).version, after=b"") for a in unit.appends
        )
        return super()._commit_one(structs.replace(unit, appends=appends))


def test_control_without_the_check_of_versions_histories_break() -> None:
    assert broken(["three owners who do not know of each other"], Unchecked) == 1


def test_control_appending_again_without_looking_delivers_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "_stored", lambda self, unit, inboxes: False)
    assert broken(["answers lost while signals come"]) == 1


def test_control_refused_commands_appended_again_do_not_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(live: LiveRun, entry: Any, error: RefoldError) -> None:
        live.tail = live.host.log.store.tail(live.run_id)
        live.append(entry.events, entry.commands, entry.starts, entry.told)

    monkeypatch.setattr(LiveRun, "_not_stored", again)
    assert broken(["a zombie wakes and believes that it holds the store"]) == 1


def test_control_effects_before_their_intent_is_stored_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    append = LiveRun.append

    def eager(
        live: LiveRun, events: Any, commands: Any = (), starts: Any = (), *rest: Any, **named: Any
    ) -> None:
        append(live, events, commands, (), *rest, **named)
        for command, attempt in starts:
            live.flight.begin(command, attempt)

    monkeypatch.setattr(LiveRun, "append", eager)
    assert broken(["commits in a thread"]) == 1


def test_control_told_before_it_is_stored_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Log.append

    def hasty(log: Log, unit: Unit, done: Any, **named: Any) -> None:
        append(log, unit, done, **named)
        done(None)

    monkeypatch.setattr(Log, "append", hasty)
    assert broken(["a signal through a zombie, twice", "killed twice"]) >= 1
