"""Sabotage: each breaks one promise on purpose, in the process it is called in; the checks must notice."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Raw, structs

from refold.engine import compensation, family, inbox, onward, pause
from refold.engine.commands import EndCommand
from refold.engine.family import NOTHING_ALONG
from refold.engine.live import LiveRun
from refold.engine.step import StepOptions
from refold.events import types as t
from refold.events.errors import AppendRefused, RefoldError
from refold.events.gate import Gate
from refold.events.log import Log
from refold.events.registry import encode_event
from refold.events.sqlite import SQLiteStore
from refold.events.store import Post, Refusal, Unit

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


# ---- runs that belong together, people, repairs and undoing


@cheat
def starts_children_in_a_commit_of_their_own() -> None:
    """The child's first event follows the parent's `child.started`."""
    append = LiveRun.append
    commits_take_time()

    def apart(self: LiveRun, events: list[t.Event], *rest: Any, **named: Any) -> None:
        given = by_name(rest, named)
        along, told = given.get("along", NOTHING_ALONG), given.get("told")
        if any(isinstance(event, t.ChildStarted) for event in events):
            given["along"] = NOTHING_ALONG

            def stored(error: RefoldError | None) -> None:
                self.host.log.append(Unit(along.appends, along.works, along.posts), lambda error: None)
                if told is not None:
                    told(error)

            given["told"] = stored
        append(self, events, **given)

    LiveRun.append = apart  # type: ignore[method-assign]


@cheat
def tells_of_an_end_in_a_commit_of_its_own() -> None:
    """The message to the parent follows the child's last append."""
    commits_take_time()
    told, ended = family.end_message, LiveRun._end
    messages: dict[str, tuple[Post, ...]] = {}

    def keep(run_id: str, *rest: Any) -> tuple[Post, ...]:
        messages[run_id] = told(run_id, *rest)
        return ()

    def arrived(self: LiveRun, run_id: str, error: RefoldError | None) -> None:
        self.host.mail_for(run_id)

    def tell(self: LiveRun, end: t.Event) -> None:
        ended(self, end)
        for post in messages.pop(self.run_id, ()):
            self.host.log.append(Unit(posts=(post,)), partial(arrived, self, post.run_id))

    family.end_message = keep  # type: ignore[assignment]
    LiveRun._end = tell  # type: ignore[method-assign]


@cheat
def acknowledges_messages_before_they_are_written() -> None:
    """Who posts a message to an inbox is told so, and it is never stored."""
    inbox.post = lambda *rest, **named: None


@cheat
def acknowledges_votes_before_the_commit() -> None:
    """Who votes in the executing process is told when the append is queued."""
    append = LiveRun.append
    commits_take_time()

    def hasty(self: LiveRun, events: list[t.Event], *rest: Any, **named: Any) -> None:
        given = by_name(rest, named)
        if isinstance(events[0], t.GateVoted) and (told := given.pop("told", None)) is not None:
            told(None)
        append(self, events, **given)

    LiveRun.append = hasty  # type: ignore[method-assign]


@cheat
def holds_causes_in_memory() -> None:
    """What a body comes to while the run is paused is not in the log."""
    resume, store = pause.resume, pause.hold
    waiting: dict[str, list[Any]] = {}

    def hold(live: LiveRun, cause: t.Event, told: Any) -> None:
        if isinstance(cause, t.StepCompleted):
            waiting.setdefault(live.run_id, []).append((cause, told))
        else:
            store(live, cause, told)

    def deliver(live: LiveRun) -> None:
        for cause, told in waiting.pop(live.run_id, []):
            live.deliver(cause, told=told)
        resume(live)

    pause.hold, pause.resume = hold, deliver


@cheat
def pauses_nothing() -> None:
    """A paused run goes on."""
    LiveRun.deliver = LiveRun.advance  # type: ignore[method-assign]


@cheat
def counts_every_vote() -> None:
    """Who has voted may vote again."""
    refusal = Gate.refusal

    def lenient(self: Gate, ballot: Any, now: Any) -> str:
        self.voted.clear()
        return refusal(self, ballot, now)

    Gate.refusal = lenient  # type: ignore[method-assign]


@cheat
def undoes_twice() -> None:
    """What is undone is not remembered."""
    left = compensation.left
    compensation.left = lambda run: [undo for undo in left(run) for _ in range(2)]


@cheat
def forgets_mail_when_it_goes_on() -> None:
    """Messages that a run has not received do not go along to the one that continues it."""
    onward.posts = lambda rows, next_run: ()


@cheat
def tells_all_costs_again() -> None:
    """A run that is repaired tells its parent once more what it has told already."""
    LiveRun.untold = property(lambda self: self.spent)  # type: ignore[method-assign,assignment]


@cheat
def lets_children_live() -> None:
    """Who terminates a run leaves its children alone."""
    family.terminate_message = lambda child, end: Post(  # type: ignore[assignment]
        child, t.SignalSent.TAG, encode_event(t.SignalSent(name="", payload=Raw(b"0"), id=end.id, at=end.at))
    )
