"""What happens in a simulated machine room, and what must be true of the log afterwards."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import anyio
from msgspec import Raw, Struct

from refold import Context, Engine, Retry, step, workflow
from refold.engine.bodies import current_step
from refold.engine.loader import activations
from refold.engine.run import Run
from refold.engine.settings import Settings
from refold.engine.workflow import Workflow
from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.errors import RefoldError, StepFailed, WaitTimeout
from refold.events.memory import MemoryStore
from refold.events.registry import encode_event
from refold.events.store import Append, Post, Unit
from refold.events.stream import INBOX, chain
from refold.events.types import Event
from refold.events.verify import verify
from refold.events.work import WorkFold

from .simulation import PROCESS, Door, SimClock, SimLoop

FAULTS = ["ok", "failed", "lost answer", "blind", "overtaken"]


class Began(Struct, frozen=True):
    """A body began: where, and whether its intent was in the log."""

    process: str
    run_id: str
    key: str
    attempt: int
    intended: bool
    pure: bool


ROOM: ContextVar["Room"] = ContextVar("room")

# ---- the work to be done


async def work(seconds: float, *, pure: bool = False) -> None:
    ROOM.get().began(pure)
    await asyncio.sleep(seconds)


@step
async def effect(name: str, seconds: float) -> str:
    await work(seconds)
    return name


@step(pure=True)
async def look(name: str) -> tuple[str, int]:
    await work(0.05, pure=True)
    return name, 1


@step(execution="at_most_once", on_unknown="fail")
async def once(name: str) -> str:
    await work(0.4)
    return name


@step(retry=Retry(max_attempts=3, initial_interval=0.3, jitter=0))
async def flaky(name: str) -> str:
    await work(0.1)
    if current_step().attempt == 1:
        raise OSError("not yet")
    return name


@workflow
async def busy(ctx: Context) -> list[Any]:
    """Steps of every kind, one after the other and beside each other."""

    async def carefully() -> str:
        try:
            return await once("once")
        except StepFailed as error:
            return error.type

    out: list[Any] = [await effect(f"e{number}", 0.19 * number) for number in range(3)]
    out += [await look(f"l{number}") for number in range(3)]
    out += await asyncio.gather(effect("slow", 1.0), flaky("flaky"), carefully(), look("beside"))
    return out


@workflow
async def patient(ctx: Context) -> list[Any]:
    """Messages with deadlines, an effect after each."""
    out: list[Any] = []
    for _ in range(3):
        try:
            out.append(await ctx.wait_for_event("go", timeout=3))
        except WaitTimeout:
            out.append("late")
        out.append(await effect("thanks", 0.3))
    return out


@workflow
async def sleeper(ctx: Context) -> str:
    """A deadline around sleep and steps, and a cleanup that no cancellation stops."""
    try:
        with anyio.move_on_after(5):
            await ctx.sleep(1.5)
            await effect("awake", 0.5)
            return str(await ctx.wait_for_event("go"))
        return "late"
    finally:
        with anyio.CancelScope(shield=True):
            await effect("clean", 0.3)


FLOWS: list[Workflow[Any, Any]] = [busy, patient, sleeper]


class Ack(Struct, frozen=True):
    """Somebody was told OK."""

    kind: str
    run_id: str
    payload: int
    signal_id: str


class Room:
    """Store, processes, and a record of what was promised and done."""

    flows = FLOWS

    def __init__(self, loop: SimLoop, store: MemoryStore | None = None) -> None:
        self.loop, self.store = loop, store or MemoryStore()
        self.engines: dict[str, Engine] = {}
        self.doors: dict[str, Door] = {}
        self.killed: set[str] = set()
        self.bodies: list[Began] = []
        self.acks: list[Ack] = []
        self.clients: list[tuple[str, str, asyncio.Task[Any]]] = []
        ROOM.set(self)

    # ---- processes

    async def open(
        self,
        name: str,
        faults: Sequence[str] = (),
        *,
        threaded: bool = False,
        skew: float = 0.0,
        unaware: float = 0.0,
        execute: bool = True,
    ) -> Engine:
        """A process. One that executes takes the store over from whoever held it."""
        door = self.doors[name] = Door(self.store, self.loop, name, faults)
        door.intrude, door.unaware = self.intrude, unaware
        settings = Settings(projections=False, determinism="off", grace=0.5)
        clock = SimClock(self.loop, skew)
        engine = Engine(door, workflows=self.flows, settings=settings, clock=clock, execute=execute)
        await self.loop.spawn(name, engine.__aenter__())
        if threaded:
            engine.worker.log._mean_s = 1.0
        self.engines[name] = engine
        return engine

    def freeze(self, name: str) -> None:
        self.loop.frozen.add(name)

    def thaw(self, name: str) -> None:
        if name not in self.killed:
            self.loop.frozen.discard(name)

    def kill(self, name: str) -> None:
        self.killed.add(name)
        self.loop.frozen.add(name)

    def intrude(self, stream: str) -> None:
        """Somebody else appends a harmless note to the stream just before us."""
        tail = self.store.tail(stream)
        work = self.store.work(stream.removesuffix(INBOX))
        if tail.version == 0 or stream.startswith("key/") or (work is not None and work.state == "done"):
            return
        at = self.store.read(stream, tail.version - 1)[0].event().at
        if stream.endswith(INBOX):
            note: Event = t.SignalSent(name="other", payload=_raw(0), id=new_event_id(), at=at)
        else:
            note = t.RunAttention(kind="none", id=new_event_id(), at=at)
        if stream.endswith(INBOX):
            unit = Unit(posts=(Post(stream.removesuffix(INBOX), note.TAG, encode_event(note)),))
        else:
            rows, _ = chain(stream, tail, [note])
            unit = Unit((Append(stream, tail.version, rows, tail.hash),))
        assert self.store.commit([unit]) == [None]

    # ---- clients

    def ask(self, process: str, what: str, request: Callable[[], Coroutine[Any, Any, Any]], ack: Ack) -> None:
        """A client in a process asks for something and remembers when it was told OK."""

        async def client() -> None:
            try:
                await request()
            except RefoldError:
                return
            self.acks.append(ack)

        self.clients.append((process, what, self.loop.spawn(process, client())))

    def start(self, process: str, flow: Workflow[Any, Any], run_id: str) -> None:
        engine = self.engines[process]
        self.ask(
            process, f"start {run_id}", lambda: engine.start(flow, id=run_id), Ack("start", run_id, 0, "")
        )

    def signal(self, process: str, run_id: str, payload: int, signal_id: str = "") -> None:
        engine, ack = self.engines[process], Ack("signal", run_id, payload, signal_id)
        request = lambda: engine.signal(run_id, "go", payload, id=signal_id or None)  # noqa: E731
        self.ask(process, f"signal {payload} to {run_id}", request, ack)

    def cancel(self, process: str, run_id: str, number: int) -> None:
        engine, ack = self.engines[process], Ack("cancel", run_id, number, "")
        request = lambda: engine.cancel(run_id, str(number))  # noqa: E731
        self.ask(process, f"cancel {number} of {run_id}", request, ack)

    def result(self, process: str, run_id: str) -> None:
        engine = self.engines[process]

        async def request() -> None:
            await (await engine.get(run_id)).result()

        self.ask(process, f"result of {run_id}", request, Ack("result", run_id, 0, ""))

    def began(self, pure: bool) -> None:
        info = current_step()
        body = info._body
        intended = any(
            isinstance(e, t.StepStarted) and e.id == body.started_id for e in self.events(info.run_id)
        )
        self.bodies.append(Began(PROCESS.get(), info.run_id, info.key, info.attempt, intended, pure))

    # ---- the end

    async def finish(self, runs: dict[str, Workflow[Any, Any]], holder: str) -> None:
        """Everybody wakes up; the holder brings every run to its end; all processes close."""
        for name in list(self.loop.frozen):
            self.thaw(name)
        deadline = self.loop.now + 120
        while unfinished := self.unfinished(runs):
            assert self.loop.now < deadline, f"these runs never end: {unfinished}\n{self.describe()}"
            for run_id in unfinished:
                self.push(run_id, runs, holder)
            await asyncio.sleep(0.5)
        await asyncio.sleep(3)
        waiting: list[tuple[str, str]] = []
        for _ in range(60):
            waiting = [
                (p, what) for p, what, task in self.clients if not task.done() and p not in self.killed
            ]
            if not waiting:
                break
            await asyncio.sleep(0.5)
        assert not waiting, f"these clients were never answered: {waiting}\n{self.describe()}"
        for name, engine in self.engines.items():
            if name not in self.killed:
                await self.loop.spawn(name, engine.close())

    def unfinished(self, runs: dict[str, Workflow[Any, Any]]) -> list[str]:
        return [run for run in runs if (w := self.store.work(run)) is None or w.state != "done"]

    def push(self, run_id: str, runs: dict[str, Workflow[Any, Any]], holder: str) -> None:
        """Do what nobody has done for a run that has not ended."""
        if self.store.work(run_id) is None:  # whoever started it was told that this had failed
            self.start(holder, runs[run_id], run_id)

    async def clean_up(self) -> None:
        """Let go of what the killed processes left in this one's memory."""
        for name in self.killed:
            self.doors[name].dead = True
        self.loop.frozen.clear()
        for name in self.killed:
            await self.loop.spawn(name, self.engines[name].close())
        for _, _, task in self.clients:
            task.cancel()
        await asyncio.gather(*[task for _, _, task in self.clients], return_exceptions=True)

    # ---- what must be true

    def events(self, stream: str) -> list[Event]:
        return [row.event() for row in self.store.read(stream)]

    def describe(self) -> str:
        lines = [
            f"{row.position:4} {row.stream}@{row.version} {row.tag} {row.state.decode()[:180]}"
            for row in self.store.scan()
        ]
        return "\n".join(lines)

    def check(self, runs: dict[str, Workflow[Any, Any]]) -> None:
        """Every promise of the protocol, read from the log."""
        found = verify(self.store)
        assert not found.problems, found.problems
        for run_id, flow in runs.items():
            events = self.events(run_id)
            check_history(run_id, flow, events)
            self.check_messages(run_id, events)
            self.check_work(run_id, events)
        self.check_bodies()
        assert not self.loop.problems, self.loop.problems

    def check_messages(self, run_id: str, events: list[Event]) -> None:
        """What was acknowledged is in the history, or in the inbox of a run that ended before it was read."""
        mail = self.events(run_id + INBOX)
        consumed = [e.inbox for e in events if getattr(e, "inbox", 0)]  # type: ignore[attr-defined]
        assert consumed == list(range(1, len(consumed) + 1)), f"{run_id}: inbox read as {consumed}"
        received = [e for e in events if isinstance(e, t.SignalReceived) and e.name == "go"]
        payloads = Counter(bytes(e.payload) for e in received)
        assert not [p for p, count in payloads.items() if count > 1], f"delivered twice: {payloads}"
        unread = mail[len(consumed) :]
        for ack in self.acks:
            if ack.run_id != run_id or ack.kind not in ("signal", "cancel"):
                continue
            if ack.kind == "signal":
                there = any(e.payload == _raw(ack.payload) for e in received)
                unseen = any(isinstance(m, t.SignalSent) and m.payload == _raw(ack.payload) for m in unread)
            else:
                reason = str(ack.payload)
                there = any(isinstance(e, t.RunCancelRequested) and e.reason == reason for e in events)
                unseen = any(isinstance(m, t.CancelSent) and m.reason == reason for m in unread)
            assert there or unseen, f"{ack} was acknowledged and is lost"

    def check_work(self, run_id: str, events: list[Event]) -> None:
        fold = WorkFold(run_id)
        for event in events:
            fold.apply(event)
        rows = {work.run_id: (work, mail) for work, mail in self.store.all_work()}
        assert rows[run_id] == (fold.row(), self.store.tail(run_id + INBOX).version), rows[run_id]

    def check_bodies(self) -> None:
        """Intent before effect, one body for an attempt, one attempt for those who promise that."""
        for body in self.bodies:
            assert body.pure or body.intended, f"began before its intent was stored: {body}"
        effects = Counter((b.run_id, b.key, b.attempt) for b in self.bodies if not b.pure)
        assert max(effects.values(), default=1) == 1, effects.most_common(3)
        single = Counter((b.run_id, b.key) for b in self.bodies if b.key.startswith("once"))
        assert max(single.values(), default=1) == 1, single


def _raw(number: int) -> Raw:
    return Raw(b"%d" % number)


def _what(event: Event) -> tuple[str, int]:
    if isinstance(event, t.TimerFired | t.TimerCancelled):
        return ("timer", event.timer)
    return ("step", getattr(event, "step", 0))


def check_history(run_id: str, flow: Workflow[Any, Any], events: list[Event]) -> None:
    """One history: it ends once, its steps end once, nothing begins after its end, and it replays."""
    last = [e for e in events if not isinstance(e, t.StepLate | t.CostRecorded | t.DebugRecorded)][-1]
    assert isinstance(last, t.ENDS), f"{run_id} ends with {last}"
    assert sum(isinstance(e, t.ENDS) for e in events) == 1, run_id
    assert all(a.at <= b.at for a, b in pairwise(events)), f"{run_id}: log time went back"
    assert len({e.id for e in events}) == len(events), run_id
    generations = [e.generation for e in events if isinstance(e, t.RunClaimed)]
    assert generations == list(range(1, len(generations) + 1)), f"{run_id}: claims {generations}"
    over: set[tuple[str, int]] = set()
    attempts: dict[int, int] = {}
    for event in events:
        if isinstance(event, t.StepStarted):
            assert ("step", event.step) not in over, f"{run_id}: begun again after its end: {event}"
            assert event.attempt == attempts.get(event.step, 0) + 1, f"{run_id}: {event}"
            attempts[event.step] = event.attempt
        if isinstance(
            event, t.StepCompleted | t.StepFailed | t.StepCancelled | t.TimerFired | t.TimerCancelled
        ):
            what = _what(event)
            assert what not in over, f"{run_id}: ended twice: {event}"
            over.add(what)
    ids = [e.signal_id for e in events if isinstance(e, t.SignalReceived) and e.signal_id]
    assert len(set(ids)) == len(ids), f"{run_id}: a signal id twice: {ids}"
    started = events[0]
    assert isinstance(started, t.RunStarted)
    run = Run(flow, run_id, started)
    try:
        run.replay(activations(events))
        assert run.closed, run_id
    finally:
        run.evict()
