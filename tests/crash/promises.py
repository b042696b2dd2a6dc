"""What must be true of runs that belong together, of votes, pauses and undoing, as sentences.

`streams`: the decoded events of every stream, by its name.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from refold.events import types as t
from refold.events.store import Store
from refold.events.stream import INBOX
from refold.events.types import Event
from refold.projections import own
from tests.crash.scene import RUN, Scene

Streams = dict[str, list[Event]]


def streams_of(store: Store) -> Streams:
    """Everything there is."""
    streams: Streams = defaultdict(list)
    for row in store.scan(0, 100_000):
        streams[row.stream].append(row.event())
    return dict(streams)


def runs_in(streams: Streams) -> Streams:
    """The runs' own streams."""
    return {name: e for name, e in streams.items() if not (name.endswith(INBOX) or name.startswith("key/"))}


def parent_of(events: list[Event]) -> str:
    """The run that waits for this one; empty: none."""
    started = events[0]
    assert isinstance(started, t.RunStarted)
    return started.ancestors[-1].run_id if started.ancestors and not started.detached else ""


# ---- right after a death, and at the end


def at_any_time(streams: Streams) -> Iterator[str]:
    """True at every moment, whoever has died."""
    runs = runs_in(streams)
    yield from _every_run_was_started_once(runs)
    for run_id, events in runs.items():
        yield from _its_end_was_told_once(run_id, events, streams)
        yield from _votes_count_once(run_id, events)
        yield from _nothing_happens_while_paused(run_id, events)
        yield from _undone_once_in_order(run_id, events)


def _every_run_was_started_once(runs: Streams) -> Iterator[str]:
    origins: dict[str, list[str]] = defaultdict(list)
    for run_id, events in runs.items():
        for event in events:
            if isinstance(event, t.ChildStarted):
                origins[event.run_id].append(f"{run_id}/{event.child}")
            elif isinstance(event, t.RunContinued):
                origins[event.next_run].append(run_id)
    for run_id, found in origins.items():
        if len(found) > 1:
            yield f"run {run_id} was started {len(found)} times"
        if run_id not in runs:
            yield f"run {run_id} was started by {found[0]} and does not exist"
    for run_id, events in runs.items():
        started = events[0]
        assert isinstance(started, t.RunStarted)
        above = started.continued_from or (
            f"{started.ancestors[-1].run_id}/{started.child}" if started.ancestors else ""
        )
        if above not in origins.get(run_id, [""]):
            yield f"run {run_id} says that {above or 'nobody'} started it, the log {origins.get(run_id)}"


def _its_end_was_told_once(run_id: str, events: list[Event], streams: Streams) -> Iterator[str]:
    parent = parent_of(events)
    if not parent:
        return
    ends = sum(isinstance(e, t.ENDS) and not isinstance(e, t.RunContinued) for e in events)
    told = [e for e in streams.get(parent + INBOX, []) if isinstance(e, t.ChildEndSent)]
    count = sum(e.run_id == run_id for e in told)
    if count != ends:
        yield f"run {run_id} has ended {ends} times, and its parent was told {count} times"


def _votes_count_once(run_id: str, events: list[Event]) -> Iterator[str]:
    votes: Counter[tuple[int, str]] = Counter()
    for event in events:
        if isinstance(event, t.GateVoted):
            votes[event.gate, event.by] += 1
        elif isinstance(event, t.RunRewound):  # what counts of them is delivered anew
            votes.clear()
        if isinstance(event, t.GateVoted) and votes[event.gate, event.by] == 2:
            yield f"run {run_id}: {event.by} has 2 votes at gate {event.gate}"


def _nothing_happens_while_paused(run_id: str, events: list[Event]) -> Iterator[str]:
    paused = False
    for event in events:
        if isinstance(event, t.RunPaused):
            paused = True
        elif isinstance(event, t.RunResumed | t.RunTerminated | t.RunRewound):
            paused = False
        elif paused and isinstance(event, (*t.CAUSES, *t.COMMANDS, t.StepStarted)):
            yield f"run {run_id}: {event.TAG} while it was paused"


def _undone_once_in_order(run_id: str, events: list[Event]) -> Iterator[str]:
    calls = {e.step: e for e in events if isinstance(e, t.StepScheduled) and e.undoes}
    done = [calls[e.step].undoes for e in events if isinstance(e, t.StepCompleted) and e.step in calls]
    yield from (f"run {run_id}: {key} was undone {n} times" for key, n in Counter(done).items() if n > 1)
    planned = [key for e in events if isinstance(e, t.CompensationStarted) for key in e.steps]
    if done != planned[: len(done)]:
        yield f"run {run_id}: undone in the order {done}, planned {planned}"


# ---- what was acknowledged


def acknowledged(streams: Streams, acks: list[list[Any]]) -> Iterator[str]:
    """Votes and acts that somebody was told are stored: they are."""
    for what, *rest in acks:
        if what == "vote":
            run_id, by = rest
            stored = (*streams.get(run_id, ()), *streams.get(run_id + INBOX, ()))
            if not any(isinstance(e, t.GateVoted | t.VoteSent) and e.by == by for e in stored):
                yield f"the vote of {by} was acknowledged and is not in the log"
        if what == "act":
            stored = (*streams.get(RUN, ()), *streams.get(RUN + INBOX, ()))
            if not any(_is_act(e, rest[0]) for e in stored):
                yield f"the request to {rest[0]} was acknowledged and is not in the log"


_ACTS: dict[str, type[Event]] = {
    "pause": t.RunPaused, "resume": t.RunResumed, "terminate": t.RunTerminated, "retry": t.RunRewound,
    "cancel": t.RunCancelRequested,
}  # fmt: skip


def _is_act(event: Event, verb: str) -> bool:
    if isinstance(event, t.RequestSent):
        return event.verb == verb
    return isinstance(event, _ACTS[verb]) or (verb == "cancel" and isinstance(event, t.CancelSent))


# ---- when nothing is under way


def ended_bodies(scene: Scene) -> set[tuple[str, int]]:
    """Bodies that have come to their end, by idempotency key and attempt; pure ones may be forgotten."""
    lines = scene.heard("effects")
    pure = {line[1] for line in lines if line[0] == "began" and line[3]}
    return {(line[1], line[2]) for line in lines if line[0] == "ended" and line[1] not in pure}


def cut_loose(store: Store, ended: set[tuple[str, int]]) -> Iterator[str]:
    """Nothing is in flight: what every body came to must be in the log, and not only in somebody's memory."""
    runs = runs_in(streams_of(store))
    last: dict[str, int] = {}
    for key, attempt in ended:
        last[key] = max(attempt, last.get(key, 0))
    for idempotency_key in sorted(last):
        run_id, _, key = idempotency_key.partition("/")
        events = runs[run_id]
        step = next((e.step for e in events if isinstance(e, t.StepScheduled) and e.key == key), 0)
        if not any(_tells_of(e, step) for e in events):
            yield f"{idempotency_key} has ended, nothing is in flight, and the log does not know"


def _tells_of(event: Event, step: int) -> bool:
    if isinstance(event, t.CauseHeld):
        return bool(msgspec.json.decode(event.body).get("step") == step)
    ends = t.StepCompleted | t.StepFailed | t.StepCancelled | t.StepLate | t.StepInterrupted
    return (isinstance(event, ends) and event.step == step) or isinstance(event, t.RunTerminated)


# ---- at the end


def at_the_end(store: Store, streams: Streams, acks: list[list[Any]]) -> Iterator[str]:
    """All runs have ended: everything that was said has arrived, and everything is paid for once."""
    runs = runs_in(streams)
    for run_id, events in runs.items():
        yield from _every_child_was_heard(run_id, events, streams)
        yield from _costs_are_counted_once(store, run_id, runs, streams)
    for what, *rest in acks:
        if what == "vote":
            run_id, by = rest
            votes = [e for e in runs[run_id] if isinstance(e, t.GateVoted) and e.by == by]
            if len(votes) != 1:
                yield f"the vote of {by} was acknowledged and counted {len(votes)} times"


def _every_child_was_heard(run_id: str, events: list[Event], streams: Streams) -> Iterator[str]:
    given_up = {e.child for e in events if isinstance(e, t.ChildCancelled)}
    if any(isinstance(e, t.RunTerminated) for e in events):
        return
    copies = Counter(e.inbox for e in events if isinstance(e, t.ChildEnded) and e.inbox)
    for version, message in enumerate(streams.get(run_id + INBOX, ()), 1):
        if isinstance(message, t.ChildEndSent):
            if copies[version] > 1:
                yield f"run {run_id} heard of the end of {message.run_id} {copies[version]} times"
            if not copies[version] and message.child not in given_up:
                yield f"run {run_id} never heard of the end of {message.run_id}"


def _costs_are_counted_once(store: Store, run_id: str, runs: Streams, streams: Streams) -> Iterator[str]:
    whole = _spent(run_id, runs, streams)
    events = runs[run_id]
    shown = Decimal(own.fold_run(store.read(run_id))["total_usd"])
    before = next((e.spent_before.usd for e in events if isinstance(e, t.RunStarted)), Decimal(0))
    if shown not in (whole, whole - before):
        yield f"run {run_id} and its children spent {whole} $, the read model says {shown}"
    parent = parent_of(events)
    told = [
        e.spent.usd
        for e in streams.get(parent + INBOX, ())
        if isinstance(e, t.ChildEndSent) and e.run_id == run_id
    ]
    if told and sum(told, Decimal(0)) != whole:  # each end tells what the ones before it did not
        yield f"run {run_id} and its children spent {whole} $, its parent was told {told}"


def _spent(run_id: str, runs: Streams, streams: Streams) -> Decimal:
    """By a run, its children as far as it has heard of them, and the runs that it continues."""
    events = runs[run_id]
    started = events[0]
    assert isinstance(started, t.RunStarted)
    total = sum((e.usd for e in events if isinstance(e, t.CostRecorded)), Decimal(0))
    heard = {e.run_id for e in events if isinstance(e, t.ChildEnded)}
    total += sum((_spent(child, runs, streams) for child in heard), Decimal(0))
    if started.continued_from:
        total += _spent(started.continued_from, runs, streams)
    return total
