"""What must be true of a scene, right after a death and at the end; each function returns sentences."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from refold.engine.loader import read_history
from refold.engine.run import Run
from refold.events import types as t
from refold.events.errors import RefoldError
from refold.events.registry import encode_event
from refold.events.store import Store
from refold.events.stream import INBOX
from refold.events.types import Event
from refold.events.verify import verify
from refold.events.work import WorkFold
from tests.crash import promises
from tests.crash.model import BY_NAME, MENDED
from tests.crash.promises import Streams, runs_in, streams_of
from tests.crash.scene import RUN, Scene

ASIDE = {
    "id", "at", "by", "cause", "trace", "due_at", "inbox", "attempt", "retry_at", "runtime", "seed", "spent",
}  # fmt: skip
"""Fields that differ from run to run: times, ids, and what counts attempts."""
BODY_FACTS = (t.StepStarted, t.StepAttemptFailed, t.CostRecorded, t.DebugRecorded)


def keys_of(run_id: str, events: list[Event]) -> dict[int, str]:
    """Idempotency keys by step number."""
    return {e.step: f"{run_id}/{e.key}" for e in events if isinstance(e, t.StepScheduled)}


def begun(scene: Scene) -> Counter[str]:
    """How often the body of each step has begun, by idempotency key."""
    return Counter(line[1] for line in scene.heard("effects") if line[0] == "began")


# ---- right after a death, and at the end ----------------------------------------------------------


def at_any_time(scene: Scene, store: Store) -> Iterator[str]:
    """True at every moment: the log is whole, `work` is its fold, and what was acknowledged is in it."""
    streams = streams_of(store)
    yield from verify(store).problems
    yield from _work_is_the_fold(store)
    yield from _acknowledged_is_stored(scene, streams)
    yield from promises.acknowledged(streams, scene.heard("acks"))
    yield from promises.at_any_time(streams)
    yield from (line[0] for line in scene.heard("violations"))
    ids = {e.id for events in streams.values() for e in events}
    for events in runs_in(streams).values():
        if any(later.at < earlier.at for earlier, later in itertools.pairwise(events)):
            yield "log time went back"
        unknown = [e for e in events if e.cause and e.cause not in ids]
        yield from (f"{e.TAG} has an unknown cause {e.cause}" for e in unknown)


def take_snapshot(scene: Scene, store: Store) -> None:
    """Note which steps have ended for good, and how often their bodies had begun by then."""
    counts, ended = begun(scene), dict[str, tuple[int, bool]]()
    for run_id, events in runs_in(streams_of(store)).items():
        keys = keys_of(run_id, events)
        open_again = {n for e in events if isinstance(e, t.RunRewound) for n in e.steps}
        for event in events:
            failed = isinstance(event, t.StepFailed) and event.step not in open_again
            if failed or isinstance(event, t.StepCompleted):
                key = keys[event.step]  # type: ignore[attr-defined]
            elif isinstance(event, t.CauseHeld) and event.tag == t.StepCompleted.TAG:
                key = keys[msgspec.json.decode(event.body)["step"]]
            else:
                continue
            ended[key] = (counts[key], failed)
    scene.say("snapshots", ended)


def _work_is_the_fold(store: Store) -> Iterator[str]:
    folds: dict[str, WorkFold] = {}
    mail: Counter[str] = Counter()
    for row in store.scan(0, 100_000):
        if row.stream.endswith(INBOX):
            mail[row.stream.removesuffix(INBOX)] = row.version
        elif not row.stream.startswith("key/"):
            folds.setdefault(row.stream, WorkFold(row.stream)).apply(row.event())
    expected = [(fold.row(), mail[run_id]) for run_id, fold in sorted(folds.items())]
    if store.all_work() != expected:
        yield f"`work` is {store.all_work()}, and the log folds to {expected}"


def _acknowledged_is_stored(scene: Scene, streams: Streams) -> Iterator[str]:
    events = streams.get(RUN, [])
    everything = [e for stream in streams.values() for e in stream]
    signals = {e.signal_id for e in everything if isinstance(e, t.SignalReceived | t.SignalSent | t.Carried)}
    ends = [e for e in last_of(streams) if isinstance(e, t.ENDS)]
    for what, *rest in scene.heard("acks"):
        if what == "start" and not events:
            yield "the start was acknowledged and is not in the log"
        if what == "signal" and rest[1] not in signals:
            yield f"signal {rest[1]} was acknowledged and is not in the log"
        if what == "cancel" and not any(
            isinstance(e, t.RunCancelRequested | t.CancelSent) for e in everything
        ):
            yield "the request to cancel was acknowledged and is not in the log"
        if what == "result" and not ends:
            yield "the result was given out and is not in the log"
        if what == "result" and ends and isinstance(ends[-1], t.RunCompleted):
            stored = msgspec.json.decode(ends[-1].result)
            yield from [f"the result given out was {rest[0]}, the log has {stored}"] * (stored != rest[0])


def last_of(streams: Streams) -> list[Event]:
    """The run under test, or the one that goes on for it."""
    events = streams.get(RUN, [])
    while events and isinstance(events[-1], t.RunContinued):
        events = streams.get(events[-1].next_run, [])
    return events


# ---- at the end -----------------------------------------------------------------------------------


def at_the_end(scene: Scene, store: Store, reference: Path | None) -> Iterator[str]:
    """The run has ended as one that nobody killed, and did nothing twice that it need not do twice."""
    yield from at_any_time(scene, store)
    streams = streams_of(store)
    for run_id, events in runs_in(streams).items():
        lives = 1 + sum(isinstance(e, t.RunRewound | t.RunReopened) for e in events)
        if sum(isinstance(e, t.ENDS) for e in events) != lives:
            yield f"{run_id} was to end {lives} times: {[e.TAG for e in events if isinstance(e, t.ENDS)]}"
            return
        if any(isinstance(e, t.RunAttention) and e.kind != "none" for e in events):
            yield f"{run_id} called for attention"
        yield from _replays(store, run_id)
    received = Counter(
        e.signal_id for events in runs_in(streams).values() for e in events if isinstance(e, t.SignalReceived)
    )
    yield from (f"signal {id} was delivered {n} times" for id, n in received.items() if n > 1)
    yield from _nothing_ran_again(scene)
    yield from _attempts_are_accounted_for(scene, runs_in(streams))
    yield from promises.at_the_end(store, streams, scene.heard("acks"))
    results = [rest[0] for what, *rest in scene.heard("acks") if what == "result"]
    if not results or any(result != results[0] for result in results):
        yield f"results given out: {results}"
    if reference is not None:
        yield from _equal_to(reference, normal_form(store))


def _nothing_ran_again(scene: Scene) -> Iterator[str]:
    """A step whose end was durable when a process died never ran again, unless it failed and was retried."""
    finally_begun = begun(scene)
    retried = bool(scene.heard(MENDED))
    for (snapshot,) in scene.heard("snapshots"):
        for key, (count, failed) in snapshot.items():
            if finally_begun[key] != count and not (failed and retried):
                yield f"{key} had ended for good, and its body began again"


def _attempts_are_accounted_for(scene: Scene, runs: Streams) -> Iterator[str]:
    deaths = len(scene.heard("deaths")) + len(scene.heard("stops"))
    keys = {run_id: keys_of(run_id, events) for run_id, events in runs.items()}
    known = {key for numbers in keys.values() for key in numbers.values()}
    every = [(keys[run_id], event) for run_id, events in runs.items() for event in events]
    started = {(by[e.step], e.attempt) for by, e in every if isinstance(e, t.StepStarted)}
    cut = Counter(by[e.step] for by, e in every if isinstance(e, t.StepInterrupted | t.StepReleased))
    lines = [line[1:] for line in scene.heard("effects") if line[0] == "began"]
    seen: set[tuple[str, int]] = set()
    for key, number, pure in lines:
        if key not in known:
            yield f"a body had the idempotency key {key!r}, which belongs to no step"
        if pure:
            continue
        if (key, number) in seen:
            yield f"attempt {number} of {key} began twice"
        if (key, number) not in started:
            yield f"attempt {number} of {key} began and is not in the log"
        seen.add((key, number))
    for key, number in seen:
        if "/charge#" in key and number > 1:
            yield f"{key} allows one attempt and had {number}"
    for key, count in cut.items():
        if count > deaths:
            yield f"{key} was cut off {count} times with {deaths} deaths"
    for key, count in Counter(key for key, _, pure in lines if pure).items():
        if count > deaths + 1:
            yield f"{key}, which is pure, began {count} times with {deaths} deaths"


def _replays(store: Store, run_id: str) -> Iterator[str]:
    """A fresh handler, given the whole history, asks for exactly what is in it."""
    *_, history = read_history(store, run_id)
    run = Run(BY_NAME[history.started.workflow], run_id, history.started)
    try:
        run.replay(history.activations)
        if run.closed == isinstance(history.end, t.RunTerminated):
            yield f"{run_id}: replayed to its end, the handler {'has ended' if run.closed else 'waits'}"
    except RefoldError as error:
        yield f"the final history of {run_id} does not replay: {error}"
    finally:
        run.evict()


def normal_form(store: Store) -> dict[str, Any]:
    """What must be equal, by run."""
    return {run_id: _normal_form(events) for run_id, events in runs_in(streams_of(store)).items()}


def _normal_form(events: list[Event]) -> dict[str, Any]:
    """Causes and commands in order, and what each step went through.

    Attempts that were cut off are left out, with everything about them, and so are claims.
    """
    story = [_plain(e) for e in events if isinstance(e, t.CAUSES + t.COMMANDS)]
    cut = {(e.step, e.attempt) for e in events if isinstance(e, t.StepInterrupted | t.StepReleased)}
    steps: dict[str, list[Any]] = defaultdict(list)
    for event in events:
        if isinstance(event, BODY_FACTS) and (event.step, event.attempt) not in cut:
            steps[str(event.step)].append(_plain(event))
    return {"story": story, "steps": dict(sorted(steps.items()))}


def _plain(event: Event) -> list[Any]:
    fields = {k: v for k, v in json.loads(encode_event(event)).items() if k not in ASIDE}
    if "error" in fields:
        fields["error"] = [fields["error"]["type"], fields["error"].get("error_class")]
    return [event.TAG, fields]


def _equal_to(reference: Path, found: dict[str, Any]) -> Iterator[str]:
    expected = json.loads(reference.read_text())
    found = json.loads(json.dumps(found))
    if expected.keys() != found.keys():
        yield f"there are the runs {sorted(found)}, without a death {sorted(expected)}"
        return
    for run_id in found:
        yield from _equal_run(run_id, expected[run_id], found[run_id])


def _equal_run(run_id: str, expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for number, (one, other) in enumerate(zip(expected["story"], found["story"], strict=False)):
        if one != other:
            yield f"event {number} of {run_id}: {one} without a death, {other} with"
            return
    if len(expected["story"]) != len(found["story"]):
        yield f"{run_id} has {len(found['story'])} events, without a death {len(expected['story'])}"
    for step in expected["steps"].keys() | found["steps"].keys():
        one, other = expected["steps"].get(step), found["steps"].get(step)
        if one != other:
            yield f"{run_id} step {step}: {one} without a death, {other} with"
