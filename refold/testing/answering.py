"""Answers of a `TestEngine`: what it says to runs that wait for people or for events."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..engine.engine import Engine
from ..events.errors import RunEnded, VoteRefused
from ..events.gate import Gate
from .answers import GateReply, Replies, Reply, SignalReply
from .clock import VirtualClock
from .passing import Passing


class Answering(Engine):
    """The part of a `TestEngine` that plays whoever a run waits for."""

    time: VirtualClock
    _replies: Replies
    _passing: Passing

    def approve_when_asked(
        self,
        gate: str | None = None,
        *,
        by: str | Sequence[str] | None = None,
        selections: Sequence[str] = (),
        feedback: str = "",
        after: float = 0.0,
        times: int | None = None,
    ) -> Reply:
        """Approve gates as they open.

        Args:
            gate: `approval`, `approval#2`, or a pattern with `*`; default: any.
            by: who votes; default: as many of those that may as it takes.
            selections: of the options offered.
            feedback: for whoever reads the decision.
            after: virtual seconds later.
            times: so many gates at most.
        """

        async def vote(run_id: str, number: int, voter: str) -> None:
            await self.approve(run_id, number, by=voter, selections=selections, feedback=feedback)

        return self._rule(GateReply(gate, ("approval",), after, times, by, vote))

    def reject_when_asked(
        self, gate: str | None = None, *, by: str | None = None, feedback: str = "", after: float = 0.0,
        times: int | None = None,
    ) -> Reply:  # fmt: skip
        """Reject gates as they open; see `approve_when_asked`."""

        async def vote(run_id: str, number: int, voter: str) -> None:
            await self.reject(run_id, number, by=voter, feedback=feedback)

        return self._rule(GateReply(gate, ("approval",), after, times, by, vote))

    def answer_when_asked(
        self, value: Any, gate: str | None = None, *, by: str | None = None, after: float = 0.0,
        times: int | None = None,
    ) -> Reply:  # fmt: skip
        """Answer `wait_for_input` as it asks; see `approve_when_asked`."""

        async def reply(run_id: str, number: int, voter: str) -> None:
            await self.answer(run_id, value, number, by=voter)

        return self._rule(GateReply(gate, ("input",), after, times, by, reply))

    def signal_when_waited_for(
        self, name: str, payload: Any = None, *, after: float = 0.0, times: int | None = None
    ) -> Reply:
        """Send a run the event whenever it waits for one of that name."""
        return self._rule(SignalReply(name, payload, after, times))

    def _rule(self, rule: Any) -> Reply:
        self._replies.rules.append(rule)
        made: Reply = rule
        return made

    def reply_to_new(self) -> bool:
        """Answer what has been asked since; whether there was anything."""
        if not self._replies.rules:
            return False
        found = [new for live in list(self.worker.live.values()) for new in self._new(live)]
        for rule, asked, number, run_id in found:
            self._reply_later(rule, asked, number, run_id)
        self.time.move_to(self.time.now())  # those that wait for nothing reply at once
        return bool(found)

    def _reply_later(self, rule: Reply, asked: Gate | str, number: int, run_id: str) -> None:
        self.time.call_later(rule.after, self._passing.begin, self._reply, rule, asked, number, run_id)

    def _new(self, live: Any) -> list[tuple[Reply, Gate | str, int, str]]:
        if live.lost or live.run.closed or live.fold.paused:
            return []
        return [(*new, live.run_id) for new in self._replies.new(live)]

    async def _reply(self, rule: Reply, asked: Gate | str, number: int, run_id: str) -> None:
        with suppress(RunEnded):  # nobody asks any more
            if isinstance(rule, SignalReply):
                await self.signal(run_id, rule.name or "", rule.payload, id=f"test-{run_id}-{number}")
            elif isinstance(rule, GateReply) and isinstance(asked, Gate):
                for voter in rule.voters(asked):
                    if not asked.closed:
                        await self._vote_as(rule, run_id, number, voter)

    async def _vote_as(self, rule: GateReply, run_id: str, number: int, voter: str) -> None:
        try:
            await rule.act(run_id, number, voter)
        except VoteRefused:
            live = self.worker.live.get(run_id)
            if live is not None and number in live.run.gates:
                raise  # else it was closed meanwhile
