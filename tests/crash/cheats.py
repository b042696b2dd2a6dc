"""Sabotage: each breaks one promise on purpose, in the process it is called in; the checks must notice."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from refold.engine.commands import EndCommand
from refold.engine.live import LiveRun
from refold.engine.step import StepOptions
from refold.events import types as t
from refold.events.errors import AppendRefused, RefoldError
from refold.events.log import Log
from refold.events.sqlite import SQLiteStore
from refold.events.store import Refusal, Unit

BY_NAME: dict[str, Callable[[], None]] = {}


def cheat(fn: Callable[[], None]) -> Callable[[], None]:
    BY_NAME[fn.__name__] = fn
    return fn


def commits_take_time() -> None:
    """A commit is not over in the next turn of the loop: so it is on any slower disk."""
    schedule = Log._schedule
    Log._schedule = lambda self, delay: schedule(self, max(delay, 0.003))  # type: ignore[method-assign]


def by_name(rest: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `LiveRun.append` after the events."""
    places = ("commands", "starts", "told", "urgent", "along", "retry", "newborn")
    return {**dict(zip(places, rest, strict=False)), **named}


@cheat
def acknowledges_before_the_commit() -> None:
    """`start`, `signal` and `cancel` return when their append is queued."""
    append = LiveRun.append
    commits_take_time()

    def hasty(self: LiveRun, events: list[t.Event], *rest: Any, **named: Any) -> None:
        given = by_name(rest, named)
        if (told := given.pop("told", None)) is not None:
            told(None)
        append(self, events, **given)

    LiveRun.append = hasty  # type: ignore[method-assign]


@cheat
def gives_results_out_before_the_commit() -> None:
    """`result` returns when the append of the run's end is queued."""
    append = LiveRun.append
    commits_take_time()

    def hasty(self: LiveRun, events: list[t.Event], *rest: Any, **named: Any) -> None:
        append(self, events, *rest, **named)
        commands = by_name(rest, named).get("commands", ())
        if commands and isinstance(commands[-1], EndCommand):
            self._end(next(e for e in events if isinstance(e, t.ENDS)))

    LiveRun.append = hasty  # type: ignore[method-assign]


@cheat
def begins_before_the_intent_is_durable() -> None:
    """Every step is begun at once, as only a pure one may: what came before may still be lost."""
    append = LiveRun.append
    commits_take_time()

    def hasty(self: LiveRun, events: list[t.Event], *rest: Any, **named: Any) -> None:
        given = by_name(rest, named)
        starts = given.pop("starts", ())
        append(self, events, **given)
        for command, attempt in starts:
            self.flight.begin(command, attempt)

    LiveRun.append = hasty  # type: ignore[method-assign]


@cheat
def appends_old_commands_after_a_refusal() -> None:
    """A refused append is simply tried again behind what the stranger wrote."""
    give_up = LiveRun._not_stored

    def stubborn(self: LiveRun, entry: Any, error: RefoldError) -> None:
        if not isinstance(error, AppendRefused):
            give_up(self, entry, error)
            return
        if self.undurable == 0 or self.tail.version >= error.expected:
            self.tail = self.host.log.store.tail(self.run_id)
        self.append(entry.events, entry.commands, entry.starts, entry.told)

    LiveRun._not_stored = stubborn  # type: ignore[method-assign]


@cheat
def writes_work_in_a_transaction_of_its_own() -> None:
    """The dispatch table follows the events in a second commit."""
    commit = SQLiteStore.commit

    def twice(self: SQLiteStore, units: Sequence[Unit]) -> list[Refusal | None]:
        refusals = commit(self, [structs.replace(unit, works=()) for unit in units])
        stored = [unit for unit, refusal in zip(units, refusals, strict=True) if refusal is None]
        commit(self, [Unit(works=unit.works) for unit in stored if unit.works])
        return refusals

    SQLiteStore.commit = twice  # type: ignore[method-assign]


@cheat
def repeats_what_it_must_not() -> None:
    """A step that allows one attempt is begun again after a crash."""
    StepOptions.repeats_unknown = True  # type: ignore[assignment,method-assign]
