"""What an engine says to runs that go on: signals, votes, answers, and operators' acts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from msgspec import Raw

from ..events import codec, types as t
from ..events.clock import Clock
from ..events.errors import AppendRefused, ConfigurationError, InboxFull, RunEnded, RunNotFound, VoteRefused
from ..events.gate import Gate
from ..events.store import Store, Unit
from ..events.stream import INBOX
from ..events.types import Event
from ..events.work import Work
from . import acts, ballots, blocked, inbox, onward, rewind
from .live import LiveRun
from .names import check_name, check_text, run_to_find
from .settings import Settings
from .starting import Told
from .worker import Worker

NULL = Raw(b"null")
BRING_S = 2.0
"""How long an act waits for its run to be in memory; after that it goes through the inbox."""
TRIES = 500
"""How often a vote is checked anew when others write to the same inbox meanwhile."""


class Talking:
    """The verbs of an engine, and of a handle, for a run that has not ended.

    Each is durable when it returns; the owner acts on it at once, or when there is one.
    """

    clock: Clock
    settings: Settings
    _worker: Worker | None
    _append: Callable[[Unit], Any]
    _loop: asyncio.AbstractEventLoop | None

    @property
    def store(self) -> Store:
        raise NotImplementedError  # the engine's

    def check_loop(self) -> None:
        """Raises `ConfigurationError` on another event loop than the one it was opened on."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError(
                "the engine was opened on another event loop; call it there: from another thread, with "
                "asyncio.run_coroutine_threadsafe(…, loop)"
            )

    # ---- events

    async def signal(
        self, run_id: str, name: str, payload: Any = None, *, id: str | None = None, by: str = "user"
    ) -> None:
        """Send a run an event; durable when this returns. `wait_for_event(name)` receives it, also later.

        Args:
            payload: any JSON value.
            id: given twice, the event is delivered once.

        Raises `RunNotFound`, `RunEnded`, `InboxFull`, `ValueRefused`, `ConfigurationError` (a name),
        `StoreError`.
        """
        check_name(name, "event name")
        check_name(by, "by")
        if id is not None:
            check_name(id, "signal id")
        packed = codec.encode(payload, f"payload of event {name!r}")
        said: dict[str, Any] = {"name": name, "payload": packed, "signal_id": id or ""}

        async def here(live: LiveRun) -> None:
            if id and id in live.signal_ids:
                if live.undurable:  # the first may yet be refused: the inbox is not
                    await self._post(live.run_id, t.SignalSent(**said, **self._message(by)))
                return
            told = Told()
            live.deliver(t.SignalReceived(**said, **live.head("", by)), told=told)
            await told.durable()

        async def there(run_id: str) -> None:
            await self._post(run_id, t.SignalSent(**said, **self._message(by)))

        if self._worker is not None and self._worker.log.full:
            await self._worker.log.room()
        await self._reach(run_id, here, there, in_order=True)

    async def cancel(self, run_id: str, reason: str = "", *, by: str = "user") -> None:
        """Ask a run to stop: its handler sees `CancelledError` where it waits and may clean up.

        Its children are cancelled with it. Durable when this returns. Raises `RunNotFound`, `RunEnded`,
        `StoreError`.
        """
        check_text(reason, "reason")
        check_name(by, "by")

        async def here(live: LiveRun) -> None:
            told = Told()
            acts.cancel(live, t.RunCancelRequested(reason=reason, **live.head("", by)), told)
            await told.durable()

        async def there(run_id: str) -> None:
            await self._post(run_id, t.CancelSent(reason=reason, **self._message(by)))

        await self._reach(run_id, here, there)

    # ---- people

    async def approve(
        self,
        run_id: str,
        gate: str | int | None = None,
        *,
        selections: Sequence[str] = (),
        feedback: str = "",
        by: str = "user",
        digest: str = "",
    ) -> None:
        """Vote for it at a gate of a run; durable when this returns.

        Args:
            gate: its name (`approval#1`, or `approval` when only one is open), number or token; default: the
                only open one.
            selections: of the options offered.
            feedback: for whoever reads the decision.
            by: who votes.
            digest: of what the voter was shown; given, it must be the gate's.

        Raises `VoteRefused` with the reason (closed, too late, may not vote, voted already, not offered),
        `RunNotFound`, `RunEnded`, `StoreError`.
        """
        await self._vote(run_id, gate, "approve", by, tuple(selections), feedback, digest, NULL)

    async def reject(
        self,
        run_id: str,
        gate: str | int | None = None,
        *,
        feedback: str = "",
        by: str = "user",
        digest: str = "",
    ) -> None:
        """Vote against it: one rejection closes the gate. Arguments and errors as for `approve`."""
        await self._vote(run_id, gate, "reject", by, (), feedback, digest, NULL)

    async def answer(
        self, run_id: str, value: Any, gate: str | int | None = None, *, by: str = "user", feedback: str = ""
    ) -> None:
        """Answer a `wait_for_input`; an answer that does not fit its schema is refused, the wait stays open.

        Raises `VoteRefused`, `ValueRefused`, `RunNotFound`, `RunEnded`, `StoreError`.
        """
        await self._vote(run_id, gate, "answer", by, (), feedback, "", codec.encode(value, "the answer"))

    async def _vote(
        self, run_id: str, gate: str | int | None, vote: str, by: str, selections: tuple[str, ...],
        feedback: str, digest: str, answer: Raw,
    ) -> None:  # fmt: skip
        self.check_loop()
        check_name(by, "by")
        check_text(feedback, "feedback")
        said: dict[str, Any] = {
            "vote": vote, "selections": tuple(check_text(choice, "selection") for choice in selections),
            "feedback": feedback, "digest": digest, "answer": answer,
        }  # fmt: skip
        for _ in range(TRIES):
            self._open_work(run_id)
            live = self._live(run_id)
            try:
                if live is not None and not live.fold.paused:
                    await self._vote_here(live, gate, said, by)
                else:
                    await self._vote_there(run_id, gate, said, by)
                return
            except AppendRefused:  # somebody else was faster: look again
                continue
        raise VoteRefused(f"run {run_id}: others write to its inbox all the time; try again")

    async def _vote_here(self, live: LiveRun, gate: str | int | None, said: dict[str, Any], by: str) -> None:
        while live.host.drain_inbox(live):
            pass  # those that came before count before
        gates = {n: command.gate for n, command in live.run.gates.items() if command.gate is not None}
        try:
            wanted = ballots.choose(live.run_id, gates, gate)
        except VoteRefused:
            if gate is None:
                raise
            wanted = ballots.choose(
                live.run_id, {**ballots.fold_gates(self.store, live.run_id), **gates}, gate
            )
        message = t.VoteSent(gate=wanted.opened.gate, **said, **live.head("", by))
        _check(live.run_id, wanted, message)
        made, reason = ballots.judge(live, message, live.head("", by), 0)  # the type may ask for more
        if made is None:
            raise VoteRefused(f"run {live.run_id} gate {wanted.opened.name}: {reason}")
        told = Told()
        live.deliver(made, told=told)
        await told.durable()

    async def _vote_there(self, run_id: str, gate: str | int | None, said: dict[str, Any], by: str) -> None:
        work = self._open_work(run_id)
        gates, version = ballots.gates_in(self.store, run_id, work.seen)
        wanted = ballots.choose(run_id, gates, gate)
        message = t.VoteSent(gate=wanted.opened.gate, **said, **self._message(by))
        _check(run_id, wanted, message)
        await self._post(run_id, message, version)

    # ---- operators

    async def terminate(self, run_id: str, reason: str = "", *, by: str = "user") -> None:
        """End a run hard: its handler is not asked, its children are terminated too.

        Raises `RunNotFound`, `RunEnded`, `StoreError`.
        """
        await self._act(run_id, "terminate", by, reason=reason)

    async def pause(self, run_id: str, reason: str = "", *, by: str = "user") -> None:
        """Hold a run: nothing is delivered to its handler, nothing begins; what runs goes on to its end.

        Raises `ActRefused` when it is paused already, `RunNotFound`, `RunEnded`, `StoreError`.
        """
        await self._act(run_id, "pause", by, reason=reason)

    async def skip_step(
        self, run_id: str, key: str, result: Any = None, *, reason: str = "", by: str = "user"
    ) -> None:
        """Give an open step (`charge#1`) its result by hand; its body is told to stop.

        Raises `ActRefused` when no such step is open or the result does not fit, `ValueRefused`,
        `RunNotFound`, `RunEnded`, `StoreError`.
        """
        packed = codec.encode(result, f"result for step {key}")
        await self._act(run_id, "skip", by, key=key, value=packed, reason=reason)

    async def reset_step(self, run_id: str, key: str, *, reason: str = "", by: str = "user") -> None:
        """Go back to before the end of a step and run it again; what it led to is dropped.

        Raises `ActRefused` when it has not ended, or a step runs that may not be repeated.
        """
        await self._act(run_id, "reset", by, key=key, reason=reason)

    async def resolve_step(
        self, run_id: str, key: str, outcome: str, result: Any = None, *, reason: str = "", by: str = "user"
    ) -> None:
        """Say what became of a step in doubt (`on_unknown="ask"`).

        Args:
            outcome: `completed` (with its `result`), `failed` (with a `reason`), or `retry`.

        Raises `ActRefused` when the step is not in doubt or the result does not fit.
        """
        packed = codec.encode(result, f"result for step {key}")
        fields: dict[str, Any] = {"key": key, "outcome": outcome, "value": packed, "reason": reason}
        await self._act(run_id, "resolve", by, **fields)

    async def set_attributes(self, run_id: str, attributes: Mapping[str, Any], *, by: str = "user") -> None:
        """Change a run's searchable labels; None takes one away. Raises `ValueRefused` and as above."""
        if not isinstance(attributes, Mapping):
            raise ConfigurationError(f"set_attributes({attributes!r:.80}): expected names with JSON values")
        await self._act(run_id, "attributes", by, value=codec.encode(dict(attributes), "attributes"))

    async def _act(self, run_id: str, verb: str, by: str, **fields: Any) -> None:
        check_name(by, "by")
        check_text(fields.get("reason", ""), "reason")

        async def here(live: LiveRun) -> None:
            request = acts.request_of(verb, live.head("", by), **fields)
            told = Told()
            try:
                acts.act(live, request, told=told)
                await told.durable()
            except rewind.NotYet:
                await live.host.log.flush()
                await self._act(run_id, verb, by, **fields)
            except AppendRefused:  # the run is being built anew: ask through its inbox
                await there(live.run_id)

        async def there(run_id: str) -> None:
            await self._post(run_id, acts.request_of(verb, self._message(by), **fields))
            worker = self._worker
            if worker is not None and run_id in worker.blocked:
                blocked.take_requests(worker, run_id)
                await worker.log.flush()

        self.check_loop()
        await self._brought(run_id)
        await self._reach(run_id, here, there, follow=verb in onward.ABOUT_THE_RUN)

    async def _brought(self, run_id: str) -> None:
        """Have a run that is executed here in memory: what is not possible is then refused at once."""
        worker, work = self._worker, self.store.work(run_to_find(run_id))
        if worker is None or worker.closing or work is None or work.state in ("pending", "done"):
            return
        worker.recovery.enqueue(run_id)
        deadline = monotonic() + BRING_S
        while worker.recovery.holds(run_id) and monotonic() < deadline:  # noqa: ASYNC110 - the loader tells nobody
            await asyncio.sleep(0.001)

    # ---- how

    async def _reach(
        self, run_id: str, here: Callable[[LiveRun], Awaitable[None]],
        there: Callable[[str], Awaitable[None]], *, follow: bool = True, in_order: bool = False,
    ) -> None:  # fmt: skip
        """Speak to a run in memory or through its inbox; to the last of those that it went on as."""
        self.check_loop()
        while True:
            work = await self._current(run_id) if follow else self._open_work(run_id)
            if work.state == "done":
                raise RunEnded(work.run_id, work.status)
            run_id = work.run_id
            live = self._live(run_id)
            if live is None or (in_order and live.host.drain_inbox(live)):  # first what was sent before
                try:
                    await there(run_id)
                    return
                except RunEnded as ended:
                    if ended.status != "continued" or not follow:
                        raise
                    continue  # between two looks at it
            if not live.run.closed:
                await here(live)
                return
            await live.host.log.flush()  # its end is on its way

    async def _current(self, run_id: str) -> Work:
        """The run itself, or the one that it went on as; what was left behind is brought along first."""
        while True:
            if (work := self.store.work(run_to_find(run_id))) is None:
                raise RunNotFound(run_id)
            if work.status != "continued":
                return work
            unit = onward.left_behind(self.store, self.clock, work)
            if unit is not None:
                with contextlib.suppress(AppendRefused):  # somebody else has done it: look again
                    await self._append(unit)
                continue
            run_id = onward.next_run(self.store, run_id)
            if self._worker is not None:
                self._worker.mail_for(run_id)

    def _live(self, run_id: str) -> LiveRun | None:
        """The run, if it is in this process's memory and can be spoken to."""
        live = self._worker.live.get(run_id) if self._worker is not None else None
        return None if live is None or live.lost else live

    async def _post(self, run_id: str, message: Event, expected: int = -1) -> None:
        work = self._open_work(run_id)
        waiting = self.store.tail(run_id + INBOX).version - work.seen
        if waiting >= self.settings.max_inbox and isinstance(message, t.SignalSent | t.VoteSent):
            raise InboxFull(
                f"run {run_id} has {waiting:,} messages that it has not received yet, the limit is "
                f"{self.settings.max_inbox:,} (Settings.max_inbox): try again later"
            )
        if self._worker is None:
            inbox.post(self.store, run_id, message, expected)
        else:
            told, worker = Told(), self._worker
            worker.log.append(inbox.mail(run_id, message, expected), told, retry=False)
            await told.durable()
            worker.mail_for(run_id)
        await self._current(run_id)  # it may have gone on meanwhile, without this message

    def _message(self, by: str) -> dict[str, Any]:
        return inbox.message_head(self.clock, by)

    def _open_work(self, run_id: str) -> Work:
        work = self.store.work(run_to_find(run_id))
        if work is None:
            raise RunNotFound(run_id)
        if work.state == "done":
            raise RunEnded(run_id, work.status)
        return work


def _check(run_id: str, gate: Gate, message: t.VoteSent) -> None:
    reason = gate.refusal(ballots.ballot_of(message), message.at)
    if reason:
        raise VoteRefused(f"run {run_id} gate {gate.opened.name}: {reason}")
