"""What the demo proves, from two witnesses: the log, and the file in which step bodies note effects."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from ..engine.read_models import ReadModels
from ..events import types as t
from ..events.store import Store
from ..events.verify import verify
from ..projections.core import CORE
from . import effects
from .effects import Effect


class Proof(Struct, frozen=True):
    """One claim, whether it holds, and the figures."""

    claim: str
    holds: bool
    detail: str


class Evidence(Struct, frozen=True):
    """How things stood while no worker was alive: the log and the effects, at the kill."""

    completed: frozenset[str]
    """Keys of the steps whose completion was in the log."""
    in_flight: frozenset[str]
    """Keys of those that had begun (their intent was in the log) and had not ended."""
    intents: frozenset[tuple[str, int]]
    """Key and attempt of every `step.started`."""
    effects: tuple[Effect, ...]


class _Steps:
    """What the log says about the steps of a run."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.keys: dict[int, str] = {}
        self.intents: set[tuple[str, int]] = set()
        self.completions: Counter[str] = Counter()
        self.open: set[str] = set()
        for row in store.read(run_id):
            event = row.event()
            if isinstance(event, t.StepScheduled):
                self.keys[event.step] = event.key
            elif isinstance(event, t.StepStarted):
                self.intents.add((self.keys[event.step], event.attempt))
                self.open.add(self.keys[event.step])
            elif isinstance(event, t.StepCompleted):
                self.completions[self.keys[event.step]] += 1
                self.open.discard(self.keys[event.step])
            elif isinstance(event, t.StepFailed | t.StepAttemptFailed | t.StepCancelled):
                self.open.discard(self.keys[event.step])


def gather_evidence(store: Store, run_id: str, folder: Path) -> Evidence:
    """To be called after the worker's death and before the next one's birth."""
    steps = _Steps(store, run_id)
    return Evidence(
        frozenset(steps.completions),
        frozenset(steps.open),
        frozenset(steps.intents),
        tuple(effects.read(folder)),
    )


def prove(store: Store, run_id: str, folder: Path, kill: Evidence) -> list[Proof]:
    """All claims, at the end."""
    steps = _Steps(store, run_id)
    lines = effects.read(folder)
    return [
        _none_again(kill, lines),
        _cut_off_again(kill, steps, lines),
        _intent_first(kill, steps, lines),
        _once(steps),
        _chain(store),
        _read_models(store),
    ]


def begun(lines: Iterable[Effect]) -> Counter[str]:
    """How often the body of each step has begun."""
    return Counter(line.key for line in lines if line.what == "begin")


def _none_again(kill: Evidence, lines: Sequence[Effect]) -> Proof:
    before, after = begun(kill.effects), begun(lines)
    again = sorted(key for key in kill.completed if after[key] != before[key])
    count = len(kill.completed)
    detail = (
        f"{count} steps were durable at the kill, 0 of them ran again"
        if count
        else "no step was durable at the kill"
    )
    if again:
        detail = f"{len(again)} of {count} durable steps ran again: {', '.join(again[:5])}"
    return Proof("durable_steps_ran_once", bool(count) and not again, detail)


def _cut_off_again(kill: Evidence, steps: _Steps, lines: Sequence[Effect]) -> Proof:
    """Each step in flight was completed by a later attempt, under the same key."""
    first = len(kill.effects)
    later = begun(lines[first:])
    lost = sorted(key for key in kill.in_flight if steps.completions[key] != 1 or later[key] < 1)
    count = len(kill.in_flight)
    detail = f"{count} were in flight: cut off, run again with the same idempotency keys"
    if lost or not count:
        named = ", ".join(lost) or "none was in flight"
        detail = f"in flight at the kill and not completed by a later attempt: {named}"
    return Proof("steps_in_flight_ran_again", bool(count) and not lost, detail)


def _intent_first(kill: Evidence, steps: _Steps, lines: Sequence[Effect]) -> Proof:
    """No body has begun whose intent was not in the log: at the kill, when nobody could add it later, too."""
    early = [e for e in kill.effects if e.what == "begin" and (e.key, e.attempt) not in kill.intents]
    early += [e for e in lines if e.what == "begin" and (e.key, e.attempt) not in steps.intents]
    seen = Counter((line.key, line.attempt) for line in lines if line.what == "begin")
    twice = [key for (key, _), number in seen.items() if number > 1]
    total = sum(seen.values())
    detail = f"{total} effects counted in {effects.FILE}, each with its own intent in the log before it"
    if early or twice:
        detail = f"effects without an intent of their own: {', '.join([*(e.key for e in early), *twice][:5])}"
    return Proof("intent_before_effect", bool(total) and not early and not twice, detail)


def _once(steps: _Steps) -> Proof:
    missing = sorted(set(steps.keys.values()) - set(steps.completions))
    twice = [key for key, number in steps.completions.items() if number > 1]
    detail = f"{len(steps.completions)} steps, each completed exactly once"
    if missing or twice:
        detail = f"not completed exactly once: {', '.join([*missing, *twice][:5])}"
    return Proof("completed_once", not missing and not twice, detail)


def _chain(store: Store) -> Proof:
    found = verify(store)
    detail = f"hash chain verified: {found.events} events, none changed, none missing"
    return Proof("chain", not found.problems, found.problems[0] if found.problems else detail)


def _read_models(store: Store) -> Proof:
    models = ReadModels(store)
    try:
        models.catch_up()
        differences = models.check()
    finally:
        models.close()
    detail = f"read models equal the log: {', '.join(projection.name for projection in CORE)}"
    return Proof("read_models", not differences, str(differences[0]) if differences else detail)
