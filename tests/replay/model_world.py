"""A random world with people, other runs, and operators who go back in history."""

import random
from collections.abc import Sequence
from typing import Any

from msgspec import Raw, structs

from refold.engine import rewind
from refold.engine.loader import History as Loaded
from refold.engine.pause import cause_in
from refold.engine.run import Run
from refold.engine.workflow import Workflow
from refold.events import types as t
from refold.events.errors import ActRefused
from refold.events.gate import Ballot
from refold.events.registry import decode_event, encode_event
from refold.events.types import Event

from .play import History, Stored, World


def loaded(rows: Sequence[Stored]) -> Loaded:
    """The history as an owner reads it."""
    history = Loaded("")
    for version, (tag, state) in enumerate(rows, 1):
        history._add(decode_event(tag, state), version)
    return history


class ModelWorld(World):
    """Votes, answers and ends of children come in any order; now and then somebody goes back."""

    def step(self) -> bool:
        run, rng = self.run, self.rng
        others = sorted([*run.gates, *run.children])
        if others and (rng.random() < 0.4 or not (run.steps or run.timers)):
            number = rng.choice(others)
            self.end_child(number) if number in run.children else self.vote(number)
            return True
        return super().step()

    def vote(self, number: int) -> None:
        gate = self.run.gates[number].gate
        assert gate is not None
        vote = "answer" if gate.opened.kind == "input" else self.rng.choice(["approve", "approve", "reject"])
        selections = tuple(self.rng.sample(["x", "y"], self.rng.randint(0, 2))) if vote == "approve" else ()
        answer = Raw(b"%d" % self.rng.randint(0, 9)) if vote == "answer" else Raw(b"null")
        by, head = self.rng.choice(["ana", "bob", "cleo"]), self.head()
        if gate.refusal(Ballot(vote=vote, by=by, selections=selections, answer=answer), head["at"]):
            return
        self.feed(
            t.GateVoted(
                gate=number, vote=vote, selections=selections, answer=answer, decides=gate.decides(vote),
                by=by, **head,
            )
        )  # fmt: skip

    def end_child(self, number: int) -> None:
        command = self.run.children[number]
        fine = self.rng.random() < 0.8
        self.feed(
            t.ChildEnded(
                child=number, run_id=command.run_id, status="completed" if fine else "failed",
                result=Raw(b"%d" % number) if fine else Raw(b"null"),
                error=None if fine else t.Failure(type="Oops", message="no"), **self.head(),
            )
        )  # fmt: skip

    # ---- going back

    def rewind(self) -> bool:
        """Go back to after any activation, or to the very beginning, and deliver what still counts.

        False: that is refused, for what was undone cannot count as done.
        """
        before = loaded(self.history.rows)
        kept, keep = self.rng.randint(0, len(before.activations) - 1), self.rng.random() < 0.8
        try:
            planned = rewind.plan(before, kept, keep=keep)
        except ActRefused:
            return False
        self.write(planned.events(self.head))
        self.run.evict()
        history = loaded(self.history.rows)
        self.run = Run(self.run.workflow, self.run.run_id, history.started)
        self.run.replay(history.activations)
        if history.floors is not None:
            self.run.raise_floors(history.floors)
        self.write([command.event(self.head()) for command in self.run.take()])
        for held in history.held.values():
            if not self.run.closed and (cause := self.again(cause_in(held), held)) is not None:
                self.feed(cause)
        return True

    def again(self, cause: Event, held: t.CauseHeld) -> Event | None:
        cause = structs.replace(cause, **self.head(), cause=held.id)
        if not isinstance(cause, t.GateVoted):
            return cause
        command = self.run.gates.get(cause.gate)
        if command is None or command.gate is None:
            return None
        return structs.replace(cause, decides=command.gate.decides(cause.vote))

    def write(self, events: Sequence[Event]) -> None:
        self.history.rows += [(event.TAG, encode_event(event)) for event in events]


def play_and_go_back(flow: Workflow[Any, Any], args: Sequence[Any], rng: random.Random) -> History:
    """A history in a random world, up to three times rewound and gone on with."""
    world = ModelWorld(flow, args, rng, rng.choice([0, 0, 0.05]))
    try:
        world.play(limit=rng.choice([400, 400, 30]))
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            # `play` has unwound the handler; a rewind builds it anew.
            for _ in range(rng.choice([400, 15]) if world.rewind() else 0):
                if world.run.closed or not world.step():
                    break
    finally:
        world.run.evict()
    return world.history


def used_twice(history: History) -> list[str]:
    """Numbers, keys and ids of children that two commands have."""
    seen: set[str] = set()
    twice: list[str] = []
    for tag, state in history.rows:
        for name in _names(decode_event(tag, state)):
            if name in seen:
                twice.append(name)
            seen.add(name)
    return twice


def _names(event: Event) -> list[str]:
    if isinstance(event, t.FanOutOpened):
        return [f"number {event.fan_out}"]
    number = 0 if getattr(event, "fan_out", 0) else rewind._given(event)  # an item's number is its place
    names = [f"number {number}"] if number else []
    if isinstance(event, t.StepScheduled | t.BranchSkipped):
        names.append(f"key {event.key}")
    elif isinstance(event, t.GateOpened):
        names += [f"gate {event.name}", f"token {event.token}"]
    elif isinstance(event, t.ChildStarted):
        names.append(f"run {event.run_id}")
    return names
