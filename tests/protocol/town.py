"""A machine room whose runs have children, ask people, go on as new ones, and are repaired by outsiders."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from refold import Context, step, workflow
from refold.engine.loader import activations
from refold.engine.run import Run
from refold.engine.workflow import Workflow
from refold.events import types as t
from refold.events.errors import ChildFailed, GateRejected, WaitTimeout
from refold.events.stream import INBOX
from refold.events.types import Event
from refold.events.verify import verify
from refold.events.work import WorkFold
from tests.crash import promises
from tests.crash.promises import runs_in, streams_of

from .room import Ack, Room, _raw, effect, flaky, work

# ---- the work to be done


@step
async def breaks(name: str) -> str:
    """Fails for good; tried once more, it does not."""
    await work(0.1)
    if name not in FIXED:
        FIXED.add(name)
        raise ValueError("broken")
    return name


FIXED: set[str] = set()


@step
async def unwork(name: str) -> None:
    await work(0.1)


@step(compensate=unwork)
async def do(name: str) -> str:
    await work(0.15)
    return name


@workflow
async def helper(ctx: Context, seconds: float) -> str:
    return await effect("helper", seconds)


@workflow
async def asker(ctx: Context) -> list[str]:
    """Asks for two approvals, and works meanwhile."""
    task = asyncio.ensure_future(effect("beside", 0.7))
    try:
        decision = await ctx.approval("well?", approvers=2, timeout=4, on_timeout="continue")
        out = [decision.outcome, *decision.approvals]
    except GateRejected:
        out = ["rejected"]
    return [*out, await task]


@workflow
async def parent(ctx: Context) -> list[Any]:
    """Children of every kind: one, several at once, one that asks, one that nobody waits for."""
    out: list[Any] = [await ctx.child(helper, 0.3)]
    out += await ctx.map(helper, [0.1, 0.5, 0.2], limit=2)
    await ctx.child(helper, 0.4, wait=False)
    try:
        out.append(await ctx.child(asker))
    except ChildFailed as failed:
        out.append(failed.status)
    return out


@workflow
async def relay(ctx: Context, left: int = 2) -> int:
    """Takes what comes, and goes on as a new run."""
    with suppress(WaitTimeout):
        await ctx.wait_for_event("go", timeout=1)
    await effect("relay", 0.2)
    if left:
        ctx.continue_as_new(left - 1)
    return left


@workflow
async def brittle(ctx: Context) -> list[Any]:
    """Fails when it is asked for the first time, a child of it beside it."""
    first = await effect("first", 0.2)
    pair = await ctx.parallel([ctx.child(helper, 0.6), breaks(ctx.run_id), flaky("f")], fail_fast=False)
    return [first, *pair]


@workflow
async def saga(ctx: Context) -> None:
    """Is undone, whatever comes."""
    await do("one")
    await asyncio.gather(do("two"), ctx.child(helper, 0.2))
    await breaks(ctx.run_id)
    raise ValueError("after all")


TOWN: list[Workflow[Any, Any]] = [parent, asker, relay, brittle, saga, helper]
BY_NAME = {flow.name: flow for flow in TOWN}
ENDS_OF_STEPS = (t.StepCompleted, t.StepFailed, t.StepSkipped)


class Town(Room):
    """Adds what outsiders do."""

    flows = TOWN
    punctual = True
    """All clocks agree: no vote that was acknowledged may lose to a deadline."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        FIXED.clear()

    # ---- clients

    def act(self, process: str, verb: str, run_id: str, number: int) -> None:
        engine, reason = self.engines[process], str(number)

        async def request() -> None:
            if verb in ("skip_step", "reset_step"):
                await getattr(engine, verb)(run_id, "effect#1", reason=reason)
            elif verb == "retry":
                await engine.retry(run_id, reason=reason)
            else:
                await getattr(engine, verb)(run_id, reason)

        self.ask(process, f"{verb} {run_id}", request, Ack(verb, run_id, number, ""))

    def vote(self, process: str, run_id: str, number: int) -> None:
        """A vote by a voter of its own, at the gate of that run or of a child of it."""
        engine = self.engines[process]
        asking = sorted(
            w.run_id for w, _ in self.store.all_work()
            if w.workflow == "asker" and w.state != "done" and w.run_id.startswith(run_id)
        )  # fmt: skip
        if asking:
            say = engine.reject if number % 5 == 0 else engine.approve
            ack = Ack("vote", asking[0], number, "")
            self.ask(process, f"vote {number}", lambda: say(asking[0], by=f"v{number}"), ack)

    # ---- the end

    async def rule(self, owners: Sequence[Any], runs: dict[str, Workflow[Any, Any]]) -> None:
        """One owner after the other, each with its fate."""
        for number, owner in enumerate(owners):
            name = f"owner{number}"
            if number:
                before, fate = f"owner{number - 1}", owners[number - 1]
                if fate.fate == "killed":
                    self.kill(before)
                elif fate.fate == "frozen":
                    self.freeze(before)
                    self.loop.call_later(fate.frozen, self.thaw, before)
            options = {"threaded": owner.threaded, "skew": owner.skew, "unaware": owner.unaware}
            await self.open(name, owner.faults, **options)
            for run_id, flow in runs.items():
                self.start(name, flow, run_id)
            await asyncio.sleep(owner.at + 0.05)

    def unfinished(self, runs: dict[str, Workflow[Any, Any]]) -> list[str]:
        missing = [run_id for run_id in runs if self.store.work(run_id) is None]
        return missing + [w.run_id for w, _ in self.store.all_work() if w.state != "done"]

    def push(self, run_id: str, runs: dict[str, Workflow[Any, Any]], holder: str) -> None:
        super().push(run_id, runs, holder)
        if self.fold(run_id).paused:
            self.act("x", "resume", run_id, 0)

    def fold(self, run_id: str) -> WorkFold:
        fold = WorkFold(run_id)
        for event in self.events(run_id):
            fold.apply(event)
        return fold

    # ---- what must be true

    def check(self, runs: dict[str, Workflow[Any, Any]]) -> None:
        """Every promise of the protocol, of every run there is."""
        found = verify(self.store)
        assert not found.problems, found.problems
        streams = streams_of(self.store)
        problems = [*promises.at_any_time(streams), *promises.at_the_end(self.store, streams, [])]
        assert not problems, f"{problems}\n{self.describe()}"
        for run_id, events in runs_in(streams).items():
            check_life(run_id, events)
            self.check_inbox(run_id, events)
            self.check_work(run_id, events)
        for ack in self.acks:
            self.check_ack(ack)
        self.check_bodies()
        assert not self.loop.problems, self.loop.problems

    def check_inbox(self, run_id: str, events: list[Event]) -> None:
        """No message is taken twice."""
        held = {e.id for e in events if isinstance(e, t.CauseHeld)}
        taken = Counter(
            e.inbox for e in events  # type: ignore[attr-defined]
            if getattr(e, "inbox", 0) and e.cause not in held and not isinstance(e, t.RunContinued)
        )  # fmt: skip
        twice = [inbox for inbox, count in taken.items() if count > 1]
        assert not twice, f"{run_id}: messages {twice} were taken twice\n{self.describe()}"

    def check_ack(self, ack: Ack) -> None:
        line = [
            s
            for s in runs_in(streams_of(self.store))
            if s.partition("~r")[0] == ack.run_id.partition("~r")[0]
        ]
        events = [e for run_id in line for e in self.events(run_id)]
        mail = [e for run_id in line for e in self.events(run_id + INBOX)]
        if ack.kind == "signal":
            held = {e.id for e in events if isinstance(e, t.CauseHeld)}
            copies = [e for e in events if isinstance(e, t.SignalReceived) and e.payload == _raw(ack.payload)]
            assert sum(e.cause not in held for e in copies) <= 1, f"{ack} was delivered more than once"
            ended = [r for r in line if not isinstance(self.events(r)[-1], t.RunContinued | t.InboxSkipped)]
            unread = [m for run_id in ended for m in self.events(run_id + INBOX)]
            waits = any(isinstance(m, t.SignalSent) and m.payload == _raw(ack.payload) for m in unread)
            waits |= any(_body(e).get("payload") == ack.payload for e in events)
            assert copies or waits, f"{ack} was acknowledged and is lost\n{self.describe()}"
        elif ack.kind == "vote":
            self.check_vote(ack, events, mail)
        elif ack.kind not in ("start", "result"):
            said = [e for e in (*events, *mail) if getattr(e, "reason", "") == str(ack.payload)]
            said += [e for e in events if _body(e).get("reason") == str(ack.payload)]
            assert said, f"{ack} was acknowledged and is lost\n{self.describe()}"

    def check_vote(self, ack: Ack, events: list[Event], mail: list[Event]) -> None:
        by = f"v{ack.payload}"
        if any(isinstance(e, t.GateVoted) and e.by == by for e in events):
            return
        sent = [n for n, m in enumerate(mail, 1) if isinstance(m, t.VoteSent) and m.by == by]
        assert sent, f"{ack} was acknowledged and is lost\n{self.describe()}"
        reasons = [e.reason for e in events if isinstance(e, t.InboxSkipped) and e.inbox == sent[0]]
        late = [reason for reason in reasons if "timed out" in reason or "deadline" in reason]
        assert not (late and self.punctual), f"{ack} lost to a deadline: {late}\n{self.describe()}"


def _body(held: Event) -> dict[str, Any]:
    return msgspec.json.decode(held.body, type=dict[str, Any]) if isinstance(held, t.CauseHeld) else {}


def check_life(run_id: str, events: list[Event]) -> None:
    """One history: one end for each life, steps end once in it, nothing begins after its end; it replays."""
    lives = 1 + sum(isinstance(e, t.RunRewound | t.RunReopened) for e in events)
    ends = [e for e in events if isinstance(e, t.ENDS)]
    resets = sum(isinstance(e, t.RunRewound) and e.verb == "reset" for e in events)
    assert lives - resets <= len(ends) <= lives, f"{run_id}: {lives} lives, {resets} resets, ends {ends}"
    assert len({e.id for e in events}) == len(events), run_id
    generations = [e.generation for e in events if isinstance(e, t.RunClaimed)]
    assert generations == list(range(1, len(generations) + 1)), f"{run_id}: claims {generations}"
    over: set[int] = set()
    numbers: set[int] = set()
    for event in events:
        if isinstance(event, t.RunRewound):
            over -= set(event.steps)
        elif isinstance(event, t.StepScheduled):
            assert event.step not in numbers, f"{run_id}: number {event.step} twice"
            numbers.add(event.step)
        elif isinstance(event, t.StepStarted):
            assert event.step not in over, f"{run_id}: begun again after its end: {event}"
        elif isinstance(event, ENDS_OF_STEPS):
            assert event.step not in over, f"{run_id}: ended twice: {event}"
            over.add(event.step)
    started = events[0]
    assert isinstance(started, t.RunStarted)
    run = Run(BY_NAME[started.workflow], run_id, started)
    try:
        run.replay(activations(events))
        assert run.closed != isinstance(ends[-1], t.RunTerminated), run_id
    finally:
        run.evict()
