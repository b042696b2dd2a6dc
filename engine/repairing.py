"""What an engine does to runs that have ended, or are held: retry, resume, undo by hand, fork, dismiss.

Nobody owns a run that has ended, so whoever repairs it appends to its stream; of two at once one is refused.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from msgspec import structs

from ..events import types as t
from ..events.blobs import put_all_away
from ..events.clock import Clock, new_event_id, new_run_id, new_trace_id, to_datetime
from ..events.errors import ActRefused, AppendRefused, ConfigurationError, RunNotFound
from ..events.locks import look_at
from ..events.store import Append, Post, Store, Unit
from ..events.stream import INBOX, Tail, chain
from ..events.types import Event
from ..events.work import WorkFold
from . import rewind
from .loader import History, whole_history
from .locks import hold, locked
from .names import check_name, check_run_id, check_text, run_to_find
from .worker import Worker

RETRIABLE = ("failed", "cancelled", "terminated")


class Repairing:
    """The verbs of an engine, and of a handle, that bring a run back or make another one of it."""

    clock: Clock
    _worker: Worker | None
    _act: Callable[..., Any]
    _append: Callable[[Unit], Any]

    @property
    def store(self) -> Store:
        raise NotImplementedError  # the engine's

    async def resume(self, run_id: str, reason: str = "", *, by: str = "user") -> str:
        """Let a paused run go on (`resumed`), or retry one that failed (`retried`); says which.

        Raises `ActRefused` for a run that runs or has completed, `RunNotFound`, `StoreError`.
        """
        work = self.store.work(run_to_find(run_id))
        if work is None:
            raise RunNotFound(run_id)
        if work.state != "done" or work.status == "continued":  # then it is the run that it went on as
            await self._act(run_id, "resume", by, reason=reason)
            return "resumed"
        await self.retry(run_id, reason=reason, by=by)
        return "retried"

    async def resume_one(self, workflow: str, *, by: str = "user") -> str:
        """Resume the only paused or failed run of a workflow; returns its id.

        Raises `ActRefused`, naming the candidates, when there is none or more than one.
        """
        run_id = resumable(self.store, workflow)
        await self.resume(run_id, by=by)
        return run_id

    async def retry(
        self, run_id: str, *, at: int | None = None, keep: bool = True, reason: str = "", by: str = "user"
    ) -> None:
        """Bring back a run that failed, was cancelled or terminated; it goes on in the same history.

        Args:
            at: go back to this event (its version in the run's stream); default: to before what failed.
            keep: False: from the very beginning, or from `at`, without what steps came to after that.

        Of a run whose compensation failed, exactly what could not be undone is tried again.

        Raises `ActRefused` for a run that has not ended or ended otherwise, `Locked` when another run holds
        its concurrency key by now, `RunNotFound`, `StoreError`.
        """
        check_text(reason, "reason")
        history = self._ended_history(run_id)
        status = history.end.TAG.removeprefix("run.") if history.end is not None else ""
        if status == "compensation_failed" and at is None:
            await self._reopen(history, reason, by)
            return
        if status not in RETRIABLE:
            raise ActRefused(f"run {run_id} is {status}: only runs that are {_words(RETRIABLE)} are retried")
        if at is not None:
            kept, but = rewind.at_version(history, at), frozenset[int]()
        else:
            kept, but = rewind.before_failure(history) if keep else (0, frozenset())
        planned = rewind.plan(history, kept, keep=keep, but=but)
        # The children first: what they said at their end is then out of date.
        children = self._to_retry(history, planned)
        if children:
            self._check_lock(history)  # before any of them is brought back
        for child in children:
            await self.retry(child, reason=reason, by=by)
        said = {"verb": "retry", "reason": reason, "mail": self.store.tail(run_id + INBOX).version}
        await self._repair(history, planned.events(self._heads(history, by), **said))

    def _to_retry(self, history: History, planned: rewind.Plan) -> list[str]:
        """Children that failed and are waited for again. Raises `ActRefused` for one that is undone."""
        waited = set(planned.fields["children"])
        found: list[str] = []
        for activation in history.activations:
            for event in activation.commands:
                if not isinstance(event, t.ChildStarted) or event.child not in waited:
                    continue
                work = self.store.work(event.run_id)
                status = work.status if work is not None else ""
                if status == "compensated":
                    before = activation.cause
                    raise ActRefused(
                        f"run {history.run_id} waits for its child {event.run_id}, which is undone and "
                        f"cannot go on: retry with at= an event before it was started (by {before.TAG})"
                    )
                if status in (*RETRIABLE, "compensation_failed"):
                    found.append(event.run_id)
        return found

    async def compensate(self, run_id: str, *, reason: str = "", by: str = "user") -> None:
        """Undo by hand what a run did, in reverse order; a run that goes on is stopped for it.

        Raises `ActRefused` when there is nothing to undo, `Locked`, `RunNotFound`, `StoreError`.
        """
        work = self.store.work(run_to_find(run_id))
        if work is None:
            raise RunNotFound(run_id)
        if work.state != "done" or work.status == "continued":
            await self._act(run_id, "compensate", by, reason=reason)
            return
        history = self._ended_history(run_id)
        if work.status == "terminated":
            raise ActRefused(f"run {run_id} is terminated: retry it first, then compensate it")
        if work.status not in ("completed", "failed", "cancelled", "compensation_failed"):
            raise ActRefused(f"run {run_id} is {work.status}: there is nothing to undo")
        if not _has_something_to_undo(history):
            raise ActRefused(f"run {run_id} has nothing to undo: no step of it says how (`compensate=`)")
        await self._reopen(history, reason, by)

    async def _reopen(self, history: History, reason: str, by: str) -> None:
        check_text(reason, "reason")
        mail = self.store.tail(history.run_id + INBOX).version
        await self._repair(history, [t.RunReopened(reason=reason, mail=mail, **self._heads(history, by)())])

    async def dismiss(self, run_id: str, dismissed: bool = True, *, by: str = "user") -> None:
        """Leave a run that has ended out of lists (or no longer); nothing is deleted. Raises `ActRefused`."""
        history = self._ended_history(run_id)
        await self._repair(
            history, [t.RunDismissed(dismissed=dismissed, **self._heads(history, by)())], wake=False
        )

    async def fork(
        self, run_id: str, *, at: int | None = None, id: str | None = None, lock: str | None = None,
        by: str = "user",
    ) -> str:  # fmt: skip
        """Make a new run that shares this one's history up to event `at` (default: all of it but its end).

        Returns the new run's id. What the shared history completed is not done again. It holds no concurrency
        key but the one given as `lock`.

        Raises `ActRefused` when a child of it is still open there, or something done there has been undone,
        `ConfigurationError` for the id, `Locked` for the concurrency key, `RunNotFound`, `StoreError`.
        """
        key = "" if lock is None else check_name(lock, "lock")
        new_id = check_run_id(id) if id is not None else new_run_id()
        if self.store.work(new_id) is not None:
            raise ConfigurationError(f"run id {new_id!r} is taken: give the fork another one")
        history = self._history(run_id)
        if at is not None:
            kept = rewind.at_version(history, at)
        else:
            end = rewind.handler_end(history.activations)
            kept = len(history.activations) if end is None else end
        shared = history.activations[:kept] or [history.activations[0]._replace(commands=[])]
        if any(activation.floors is not None for activation in shared):
            raise ActRefused(
                f"run {run_id} was rewound before that event, which a fork cannot share yet: give `at` an "
                f"event up to {min(first for first, _ in history.dropped)}"
            )
        still = rewind.still_open(shared)
        if still.children:
            names = ", ".join(child.run_id for child in still.children.values())
            raise ActRefused(
                f"run {run_id} waits there for its child {names}, which is not forked: fork later"
            )
        if undone := rewind.undone_since(history, shared):
            raise ActRefused(
                f"run {run_id}: {', '.join(undone)} has been undone, and a fork would take it for done: "
                "fork it from an earlier event"
            )
        version = history.ends_at[kept - 1] if kept else 1
        made = _forked(history, shared, new_id, version, check_name(by, "by"), self.clock, key)
        if key:
            start = shared[0].cause
            assert isinstance(start, t.RunStarted)
            now = {"at": to_datetime(self.clock.now()), "by": by}
            started = structs.replace(start, lock=key, **now)
            await hold(
                self.store, self._append, new_id, started, started,
                lambda posts: self._append(structs.replace(made, posts=posts)), named=id or "",
            )  # fmt: skip
        else:
            await self._append(made)
        self._wake(new_id)
        return new_id

    # ---- how

    def _history(self, run_id: str) -> History:
        return whole_history(self.store, run_id)

    def _ended_history(self, run_id: str) -> History:
        work = self.store.work(run_to_find(run_id))
        if work is None:
            raise RunNotFound(run_id)
        if work.state != "done":
            raise ActRefused(f"run {run_id} has not ended: cancel or terminate it first")
        return self._history(run_id)

    def _heads(self, history: History, by: str) -> Callable[[], dict[str, Any]]:
        check_name(by, "by")

        def head() -> dict[str, Any]:
            at = max(to_datetime(self.clock.now()), history.last_at)
            return {"id": new_event_id(), "at": at, "by": by, "trace": history.started.trace}

        return head

    async def _repair(self, history: History, events: list[Event], *, wake: bool = True) -> None:
        """Append to a run that has ended. Raises `ActRefused` when somebody else has just done so."""
        run_id = history.run_id

        async def store(posts: tuple[Post, ...] = ()) -> None:
            await self._append(history.unit(events, posts))

        try:
            if wake and history.started.lock:
                await hold(self.store, self._append, run_id, history.started, events[0], store)
            else:
                await store()
        except AppendRefused:
            raise ActRefused(f"run {run_id}: somebody else has just repaired it; look at it again") from None
        if wake:
            self._wake(run_id)

    def _check_lock(self, history: History) -> None:
        if history.started.lock and (lock := look_at(self.store, history.started.lock)).holder:
            raise locked(lock)

    def _wake(self, run_id: str) -> None:
        if self._worker is not None:
            self._worker.recovery.enqueue(run_id)


def resumable(store: Store, workflow: str) -> str:
    """The only paused or failed run of a workflow. Raises `ActRefused`, naming the candidates."""
    candidates = [
        work.run_id
        for work, _ in store.all_work()
        if work.workflow == workflow
        and (work.status == "failed" or (work.state != "done" and whole_history(store, work.run_id).paused))
    ]
    if len(candidates) != 1:
        listed = ", ".join(candidates[:5]) or "none"
        raise ActRefused(
            f"workflow {workflow!r} has {len(candidates)} runs to resume ({listed}): resume one by its id"
        )
    return candidates[0]


def _has_something_to_undo(history: History) -> bool:
    completed = {a.cause.step for a in history.activations if isinstance(a.cause, t.StepCompleted)}
    for activation in history.activations:
        for event in activation.commands:
            if isinstance(event, t.CompensationRegistered):
                return True
            if isinstance(event, t.StepScheduled) and event.compensate and event.step in completed:
                return True
    return False


def _forked(
    history: History, shared: Iterable[Any], new_id: str, version: int, by: str, clock: Clock, lock: str
) -> Unit:
    """The unit that stores a fork: the shared causes and commands under the new run's name."""
    events: list[Event] = []
    trace = new_trace_id()
    for cause, commands, *_ in shared:
        for event in (cause, *commands):
            own = {"inbox": 0} if getattr(event, "inbox", 0) else {}  # its inbox is empty
            events.append(structs.replace(event, id=new_event_id(), trace=trace, **own))
    start = events[0]
    assert isinstance(start, t.RunStarted)
    events[0] = structs.replace(
        start, key="", ancestors=(), child=0, forked_from=history.run_id, forked_at=version, trigger="fork",
        triggered_by=None, lock=lock, by=by, start_at=_begun(history),
    )  # fmt: skip
    stored, blobs = put_all_away(events)
    rows, _ = chain(new_id, Tail(), stored)
    fold = WorkFold(new_id)
    for event in events:
        fold.apply(event)
    fold.state, fold.due = "pending", to_datetime(clock.now()).timestamp()
    return Unit((Append(new_id, 0, rows),), (fold.row(),), (), blobs)


def _begun(history: History) -> datetime | None:
    """From when the time of the handler counts, if not from the start: what is shared was asked for then."""
    began = history.activations[0].began
    return history.started.start_at if began is None else to_datetime(began)


def _words(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
