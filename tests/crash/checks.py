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
from tests.crash.flows import BY_NAME
from tests.crash.scene import RUN, Scene

ASIDE = {"id", "at", "by", "cause", "trace", "due_at", "inbox", "attempt", "retry_at", "runtime", "seed"}
"""Fields that differ from run to run: times, ids, and what counts attempts."""
BODY_FACTS = (t.StepStarted, t.StepAttemptFailed, t.CostRecorded, t.DebugRecorded)


def events_of(store: Store, stream: str = RUN) -> list[Event]:
    return [row.event() for row in store.read(stream)]


def keys_of(events: list[Event]) -> dict[int, str]:
    """Keys by step number."""
    return {e.step: e.key for e in events if isinstance(e, t.StepScheduled)}


def begun(scene: Scene) -> Counter[str]:
    """How often the body of each step has begun, by step key."""
    return Counter(line[1].partition("/")[2] for line in scene.heard("effects") if line[0] == "began")


# ---- right after a death, and at the end ----------------------------------------------------------


def at_any_time(scene: Scene, store: Store) -> Iterator[str]:
    """True at every moment: the log is whole, `work` is its fold, and what was acknowledged is in it."""
    yield from verify(store).problems
    yield from _work_is_the_fold(store)
    yield from _acknowledged_is_stored(scene, store)
    yield from (line[0] for line in scene.heard("violations"))
    events = events_of(store)
    if any(later.at < earlier.at for earlier, later in itertools.pairwise(events)):
        yield "log time went back"
    ids = {e.id for e in events} | {e.id for e in events_of(store, RUN + INBOX)}
    yield from (f"{e.TAG} has an unknown cause {e.cause}" for e in events if e.cause and e.cause not in ids)


def take_snapshot(scene: Scene, store: Store) -> None:
    """Note which steps have ended for good, and how often their bodies had begun by then."""
    events = events_of(store)
    keys, counts = keys_of(events), begun(scene)
    ended = [keys[e.step] for e in events if isinstance(e, t.StepCompleted | t.StepFailed)]
    scene.say("snapshots", {key: counts[key] for key in ended})


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


def _acknowledged_is_stored(scene: Scene, store: Store) -> Iterator[str]:
    events = events_of(store)
    everything = events + events_of(store, RUN + INBOX)
    signals = {e.signal_id for e in everything if isinstance(e, t.SignalReceived | t.SignalSent)}
    ends = [e for e in events if isinstance(e, t.ENDS)]
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
        if what == "result" and ends and isinstance(ends[0], t.RunCompleted):
            stored = msgspec.json.decode(ends[0].result)
            yield from [f"the result given out was {rest[0]}, the log has {stored}"] * (stored != rest[0])


# ---- at the end -----------------------------------------------------------------------------------


def at_the_end(scene: Scene, store: Store, name: str, reference: Path | None) -> Iterator[str]:
    """The run has ended as one that nobody killed, and did nothing twice that it need not do twice."""
    yield from at_any_time(scene, store)
    events = events_of(store)
    if sum(isinstance(e, t.ENDS) for e in events) != 1:
        yield f"the run has {sum(isinstance(e, t.ENDS) for e in events)} ends"
        return
    if any(isinstance(e, t.RunAttention) and e.kind != "none" for e in events):
        yield "the run called for attention"
    received = Counter(e.signal_id for e in events if isinstance(e, t.SignalReceived))
    yield from (f"signal {id} was delivered {n} times" for id, n in received.items() if n > 1)
    yield from _nothing_ran_again(scene)
    yield from _attempts_are_accounted_for(scene, events)
    yield from _replays(store, name)
    results = [rest[0] for what, *rest in scene.heard("acks") if what == "result"]
    if not results or any(result != results[0] for result in results):
        yield f"results given out: {results}"
    if reference is not None:
        yield from _equal_to(reference, events)


def _nothing_ran_again(scene: Scene) -> Iterator[str]:
    """A step whose end was durable when a process died never ran again."""
    finally_begun = begun(scene)
    for (snapshot,) in scene.heard("snapshots"):
        for key, count in snapshot.items():
            if finally_begun[key] != count:
                yield f"{key} had ended for good, and its body began again"


def _attempts_are_accounted_for(scene: Scene, events: list[Event]) -> Iterator[str]:
    deaths = len(scene.heard("deaths")) + len(scene.heard("stops"))
    keys = keys_of(events)
    started = {(keys[e.step], e.attempt) for e in events if isinstance(e, t.StepStarted)}
    cut = Counter(keys[e.step] for e in events if isinstance(e, t.StepInterrupted | t.StepReleased))
    lines = [line[1:] for line in scene.heard("effects") if line[0] == "began"]
    seen: set[tuple[str, int]] = set()
    for idempotency_key, number, pure in lines:
        run_id, _, key = idempotency_key.partition("/")
        if run_id != RUN or key not in keys.values():
            yield f"a body had the idempotency key {idempotency_key!r}, which belongs to no step"
        if pure:
            continue
        if (key, number) in seen:
            yield f"attempt {number} of {key} began twice"
        if (key, number) not in started:
            yield f"attempt {number} of {key} began and is not in the log"
        seen.add((key, number))
    for key, number in seen:
        if key.startswith("charge#") and number > 1:
            yield f"{key} allows one attempt and had {number}"
    for key, count in cut.items():
        if count > deaths:
            yield f"{key} was cut off {count} times with {deaths} deaths"
    for key, count in Counter(k.partition("/")[2] for k, _, pure in lines if pure).items():
        if count > deaths + 1:
            yield f"{key}, which is pure, began {count} times with {deaths} deaths"


def _replays(store: Store, name: str) -> Iterator[str]:
    """A fresh handler, given the whole history, asks for exactly what is in it."""
    *_, history = read_history(store, RUN)
    run = Run(BY_NAME[name], RUN, history.started)
    try:
        run.replay(history.activations)
        if not run.closed:
            yield "replayed to its end, the handler still waits"
    except RefoldError as error:
        yield f"the final history does not replay: {error}"
    finally:
        run.evict()


def normal_form(events: list[Event]) -> dict[str, Any]:
    """What must be equal: causes and commands in order, and what each step went through.

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


def _equal_to(reference: Path, events: list[Event]) -> Iterator[str]:
    expected = json.loads(reference.read_text())
    found = json.loads(json.dumps(normal_form(events)))
    for number, (one, other) in enumerate(zip(expected["story"], found["story"], strict=False)):
        if one != other:
            yield f"event {number} of the story: {one} without a death, {other} with"
            return
    if len(expected["story"]) != len(found["story"]):
        yield f"the story has {len(found['story'])} events, without a death {len(expected['story'])}"
    for step in expected["steps"].keys() | found["steps"].keys():
        one, other = expected["steps"].get(step), found["steps"].get(step)
        if one != other:
            yield f"step {step}: {one} without a death, {other} with"
