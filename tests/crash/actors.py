"""The process that executes the run under test: a mortal store, an engine, and whoever writes to the run."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from msgspec import structs

from refold import Engine, RunCancelled, RunEnded, RunFailed, Settings
from refold.engine.handle import Handle
from refold.engine.live import LiveRun
from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import File
from refold.events.store import Append, Refusal, Unit
from refold.events.stream import chain
from refold.events.work import WorkFold
from tests.crash.case import Case
from tests.crash.letters import LETTERS
from tests.crash.model import ALL, ARGS, BY_NAME
from tests.crash.promises import cut_loose, ended_bodies
from tests.crash.scene import RUN, Scene

SETTINGS = Settings(projections=False, grace=0.0, determinism="off")
"""Scanning two dozen handlers anew would be half of what a process has to do."""
SEED = 20_260_101
"""All runs have it, so that runs of one workflow can be compared."""


class QuickFile(File):
    """Not synced to the disk: a killed process leaves its writes with the kernel, and only a power cut
    (tests/events/power) or a fresh process (test_sigkill.py, synced) shows the difference."""

    synchronous = "OFF"


class MortalStore(SQLiteStore):
    """Passes a moment before each commit, between its writes and its COMMIT, and right after it.

    `stranger`: number of the commit before which somebody else appends to the run's stream, so that it is
    refused: a copy of the very activation we are about to append (`twin`), or a fact (`note`).
    """

    file_class: type[File] = QuickFile
    _changed = False

    def __init__(self, scene: Scene, stranger: int = 0, kind: str = "twin") -> None:
        super().__init__(scene.store_path)
        self.scene, self.stranger, self.kind = scene, stranger, kind
        self.opened: Counter[str] = Counter()
        """Waits that are durable, by name."""
        self.requested = False
        """Whether a request to cancel the run is durable."""
        self.commits = 0
        self.refused = 0
        self._what = ""
        self._learn([row.event() for row in self.read(RUN)])

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        self.commits += 1
        if self.commits == self.stranger and self._intrude(units):
            self.refused = 1
        appended = [row.tag for unit in units for append in unit.appends for row in append.rows]
        self._what = ", ".join(appended + [post.tag for unit in units for post in unit.posts])
        self.scene.moment(f"before the commit of {self._what}")
        with self._file.lock:
            self._file.writer().set_trace_callback(self._trace)
        try:
            refusals = super().commit(units)
        finally:
            with self._file.lock:
                self._file.writer().set_trace_callback(None)
        stored = [u for u, refusal in zip(units, refusals, strict=True) if refusal is None]
        self._learn([r.event() for u in stored for a in u.appends if a.stream == RUN for r in a.rows])
        self.scene.moment(f"after the commit of {self._what}")
        return refusals

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self.scene.moment(f"inside the commit of {self._what}")

    def _learn(self, events: Sequence[t.Event]) -> None:
        for event in events:
            if isinstance(event, t.WaitOpened):
                self.opened[event.name] += 1
            elif isinstance(event, t.RunCancelRequested):
                self.requested = True

    # ---- a stranger

    def _intrude(self, units: Sequence[Unit]) -> bool:
        append = next((a for u in units for a in u.appends if a.stream == RUN and a.expected), None)
        if append is None:
            return False
        events = [row.event() for row in append.rows]
        names: dict[str, str] = {}
        if self.kind == "note":
            foreign: list[t.Event] = [t.RunAttention(kind="none", id=new_event_id(), at=events[0].at)]
        elif isinstance(events[0], t.CAUSES) and not isinstance(events[0], t.RunCancelRequested):
            names = {event.id: new_event_id() for event in events}
            foreign = [
                structs.replace(event, id=names[event.id], cause=names.get(event.cause, event.cause))
                for event in events
            ]
        else:  # no twin: facts; and a second request to cancel is delivered, too, and rightly so
            return False
        rows, _ = chain(RUN, self.tail(RUN), foreign)
        fold = WorkFold(RUN)
        for event in [row.event() for row in self.read(RUN)] + foreign:
            fold.apply(event)
        theirs = Unit((Append(RUN, append.expected, rows),), (fold.row(),))
        if foreign[0].TAG == events[0].TAG:  # what a twin says to others, and whom it starts
            theirs = self._with_company(theirs, next(u for u in units if append in u.appends), names)
        assert super().commit([theirs]) == [None]
        self._changed = True
        self._learn(foreign)
        self.scene.say("stops", "a stranger appended", rows[0].tag)
        return True

    def _with_company(self, theirs: Unit, ours: Unit, names: dict[str, str]) -> Unit:
        appends = list(theirs.appends)
        for append in ours.appends[1:]:
            events = [row.event() for row in append.rows]
            copies = [
                structs.replace(e, id=new_event_id(), cause=names.get(e.cause, e.cause)) for e in events
            ]
            rows, _ = chain(append.stream, self.tail(append.stream), copies)
            appends.append(Append(append.stream, append.expected, rows))
        works = [work for work in ours.works if work.run_id != RUN]
        return Unit(tuple(appends), (*theirs.works, *works), ours.posts)

    def changed(self) -> bool:
        """The stranger is in this process, and would not be noticed."""
        changed, self._changed = self._changed or super().changed(), False
        return changed


class Mailbag(Protocol):
    """Somebody who writes to the run when told to."""

    async def send_next(self) -> bool:
        """Have the next letter sent, and wait for the receipt, or hear that it is too early for it.

        False: there is none left.
        """
        ...


class Hand:
    """The executing process itself writes to its run."""

    def __init__(self, engine: Engine, scene: Scene, script: str) -> None:
        self._engine, self._scene, self._letters = engine, scene, LETTERS[script]

    async def send_next(self) -> bool:
        sent = len(self._scene.heard("sent"))
        if sent == len(self._letters):
            return False
        if await self._letters[sent](self._engine, self._scene):
            self._scene.say("sent", sent + 1)
        return True


class SyncedStore(MortalStore):
    """The same in a file as it is outside of tests: every commit waits for the disk."""

    file_class = File


async def execute(
    scene: Scene,
    case: Case,
    store: MortalStore,
    bag: Mailbag | None = None,
    opened: Callable[[], None] = lambda: None,
) -> None:
    """Start the run, or find it, bring it to its end, and note everything that was acknowledged.

    `bag`: who writes to the run what it waits for, when there is nothing else to do; None: we do.
    `opened`: called when the engine executes.
    """
    name = case.flow
    flow = BY_NAME[name]
    if name == "order":  # stored by one process, executed by another
        async with Engine(store, execute=False) as client:
            handle = await client.start(flow, *ARGS[name], id=RUN)
            scene.say("acks", "start")
            with suppress(RunEnded):
                await send(scene, handle, "early", 1)
    async with Engine(store, workflows=ALL, settings=SETTINGS) as engine:
        opened()
        handle = await engine.start(flow, *ARGS.get(name, ()), id=RUN)
        scene.say("acks", "start")
        if bag is None and (case.script or name) in LETTERS and name not in HAND_WRITTEN:
            bag = Hand(engine, scene, case.script or name)
        writer = asyncio.create_task(
            write_letters(scene, name, store, handle)
            if bag is None
            else write_when_idle(scene, engine, store, bag)
        )
        async with asyncio.timeout(case.patience_s):
            scene.say("acks", "result", await outcome(handle))
            while any(work.state != "done" for work, _ in store.all_work()):  # noqa: ASYNC110 - a commit may be in another thread
                await asyncio.sleep(0.001)
        writer.cancel()


async def outcome(handle: Handle[Any]) -> Any:
    """What the run comes to; one that is retried when it has failed is waited for until it has completed."""
    while True:
        try:
            return await handle.result()
        except RunCancelled as cancelled:
            return f"{cancelled.status}: {cancelled}"
        except RunFailed as failed:
            if failed.status != "failed":
                return f"{failed.status}: {failed}"
            await asyncio.sleep(0.002)


async def write_when_idle(scene: Scene, engine: Engine, store: MortalStore, bag: Mailbag) -> None:
    """Have a letter sent whenever the runs wait for nothing else, in memory or only in the log."""
    while True:
        if idle(engine, store):
            for problem in cut_loose(store, ended_bodies(scene)):
                scene.say("violations", problem)
            if not await bag.send_next():
                return
        await asyncio.sleep(0.001)


def idle(engine: Engine, store: MortalStore) -> bool:
    """Whether nothing will happen by itself; a run may also have ended, and wait to be repaired."""
    lives, works = engine.worker.live, store.all_work()
    if not works or any(busy(live) for live in lives.values()):
        return False
    return all(
        work.state == "done"
        or (work.seen == mail and (work.run_id in lives or (work.state == "waiting" and work.due_at is None)))
        for work, mail in works
    )


def busy(live: LiveRun) -> bool:
    """Whether something of it is under way that has an end."""
    bodies = (body.command.step.name for body in live.flight.bodies.values())
    alarms = live.alarms.numbers()
    return bool(live.undurable or live.lost or live.run.closed or alarms or set(bodies) - {"forever"})


HAND_WRITTEN = ("order", "listener", "tidied")
"""Workflows whose letters `write_letters` sends."""


async def write_letters(scene: Scene, name: str, store: MortalStore, handle: Handle[Any]) -> None:
    """Send what the run waits for, each when it waits and nothing else is under way."""
    with suppress(RunEnded):
        if name == "order":
            for number in (1, 2):
                await until(store, "late", number)
                await send(scene, handle, "late", number)
        if name == "listener":
            for number in (1, 2):
                await until(store, "word", number)
                await send(scene, handle, "word", number)
        if name == "tidied":
            await until(store, "never", 1)
            if not store.requested and not store.read(f"{RUN}/inbox"):
                await handle.cancel("enough")
                scene.say("acks", "cancel")


async def until(store: MortalStore, name: str, number: int) -> None:
    """Wait until the run has asked so many times for events of this name."""
    while store.opened[name] < number:  # noqa: ASYNC110 - a slow commit is in another thread
        await asyncio.sleep(0.001)


async def send(scene: Scene, handle: Handle[Any], name: str, number: int) -> None:
    """Send an event under an id of its own, as often as one likes, and note that it was acknowledged."""
    await handle.signal(name, {"number": number}, id=f"{name}-{number}")
    scene.say("acks", "signal", name, f"{name}-{number}")
