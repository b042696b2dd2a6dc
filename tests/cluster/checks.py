"""What must be true of a log after a storm; each function returns sentences."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from refold import Engine
from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.store import Store
from refold.events.stream import INBOX, Row
from refold.events.types import Event
from refold.events.verify import verify
from refold.events.work import WorkFold
from tests.cluster import observer
from tests.cluster.flows import expected, run_id, steps
from tests.crash.scene import Scene

PAGE = 10_000

Streams = dict[str, list[Event]]


def whole_log(store: Store) -> list[Row]:
    rows: list[Row] = []
    while page := store.scan(rows[-1].position if rows else 0, PAGE):
        rows += page
    return rows


def after_a_storm(url: str, scene: Scene, numbers: Sequence[int]) -> list[str]:
    """Everything that has to hold once all runs have ended."""
    store = PostgresStore(url)
    try:
        rows = whole_log(store)
        streams: Streams = defaultdict(list)
        for row in rows:
            streams[row.stream].append(row.event())
        found = [line[0] for line in scene.heard("errors")]
        found += verify(store).problems
        found += positions(rows)
        found += no_event_twice(streams)
        found += work_is_the_fold(store, streams, rows)
        found += acknowledged_is_stored(scene, streams)
        found += observer.own_writes_reported_as_conflicts(scene, store)
        for number in numbers:
            found += completed(number, streams.get(run_id(number), []))
        found += bodies_began_as_intended(scene, streams)
        found += asyncio.run(read_models_are_not_the_log(url))
        return found
    finally:
        store.close()


def positions(rows: list[Row]) -> Iterator[str]:
    if [row.position for row in rows] != list(range(1, len(rows) + 1)):
        gaps = [b.position for a, b in itertools.pairwise(rows) if b.position != a.position + 1]
        yield f"positions are not dense from 1: see {gaps[:5]} of {len(rows)}"
    last: Counter[str] = Counter()
    for row in rows:
        if row.version != last[row.stream] + 1:
            yield f"{row.stream}: version {row.version} comes after {last[row.stream]} in the order of all"
        last[row.stream] = row.version


def no_event_twice(streams: Streams) -> Iterator[str]:
    ids = Counter(event.id for events in streams.values() for event in events)
    for stream, events in streams.items():
        yield from (f"{stream}: {e.TAG} {e.id} is stored twice" for e in events if ids[e.id] > 1)


def work_is_the_fold(store: Store, streams: Streams, rows: list[Row]) -> Iterator[str]:
    mail = {row.stream.removesuffix(INBOX): row.version for row in rows if row.stream.endswith(INBOX)}
    found = {work.run_id: (work, mail) for work, mail in store.all_work()}
    for stream, events in streams.items():
        if not stream.endswith(INBOX):
            fold = WorkFold(stream)
            for event in events:
                fold.apply(event)
            if found.pop(stream, None) != (fold.row(), mail.get(stream, 0)):
                yield f"`work` of {stream} is not what its log folds to"
    yield from (f"`work` has {run}, the log has not" for run in found)


def acknowledged_is_stored(scene: Scene, streams: Streams) -> Iterator[str]:
    for what, number in scene.heard("acks"):
        run = run_id(number)
        if what == "start" and run not in streams:
            yield f"the start of {run} was acknowledged and is not in the log"
        sent = [e.signal_id for e in streams.get(run + INBOX, []) if isinstance(e, t.SignalSent)]
        if what == "signal" and f"word-{number}" not in sent:
            yield f"the word to {run} was acknowledged and is not in the log"


def completed(number: int, events: list[Event]) -> Iterator[str]:
    """The run has ended once, as it must, and each step of it has completed once."""
    run, ends = run_id(number), [e for e in events if isinstance(e, t.ENDS)]
    if len(ends) != 1 or not isinstance(ends[0], t.RunCompleted):
        yield f"{run} has the ends {[e.TAG for e in ends]}"
    elif msgspec.json.decode(ends[0].result) != expected(number):
        yield f"{run} came to {msgspec.json.decode(ends[0].result)}, not {expected(number)}"
    done = Counter(e.step for e in events if isinstance(e, t.StepCompleted))
    if set(done.values()) - {1} or len(done) != steps(number):
        yield f"{run}: its steps completed so often: {dict(done)}, and it has {steps(number)}"
    words = [e for e in events if isinstance(e, t.SignalReceived)]
    if len(words) > 1:
        yield f"{run} received {len(words)} words"


def bodies_began_as_intended(scene: Scene, streams: Streams) -> Iterator[str]:
    """No attempt was made twice, and none that the log does not know."""
    began = Counter((run, key, attempt) for run, key, attempt in scene.heard("effects"))
    yield from (f"attempt {attempt} was made {n} times" for attempt, n in began.items() if n > 1)
    intended: set[tuple[str, str, int]] = set()
    for stream, events in streams.items():
        keys = {e.step: e.key for e in events if isinstance(e, t.StepScheduled)}
        intended.update((stream, keys[e.step], e.attempt) for e in events if isinstance(e, t.StepStarted))
    unknown = began.keys() - intended
    yield from (f"attempt {attempt} was made, and is not in the log" for attempt in unknown)


async def read_models_are_not_the_log(url: str) -> list[str]:
    """The tables that workers have kept up, and some of them died over."""
    async with Engine(url, execute=False) as engine:
        engine.projections.catch_up()
        return [str(difference) for difference in engine.projections.check()]
