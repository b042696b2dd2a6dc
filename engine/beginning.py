"""How runs are started: stored durably, once for each id and key, and begun where there is room."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from ..events import errors, types as t
from ..events.clock import Clock, new_run_id, to_datetime
from ..events.errors import ConfigurationError
from ..events.store import Post, Store, Unit
from ..events.stream import KEYS
from ..events.triggers import Trigger
from .family import Along
from .handle import Handle
from .locks import Locks, hold
from .names import check_name, check_run_id
from .placement import placement
from .queues import check_declared
from .settings import Settings
from .starting import (
    Registry,
    Told,
    existing_run,
    input_digest,
    key_append,
    start_of,
    start_unit,
    taken_by,
)
from .worker import Worker
from .workflow import Workflow

R = TypeVar("R")


class Beginning:
    """The verbs of an engine that make runs."""

    clock: Clock
    settings: Settings
    execute: bool
    workflows: Registry
    check_loop: Callable[[], None]
    _worker: Worker | None

    @property
    def store(self) -> Store:
        raise NotImplementedError  # the engine's

    async def start(
        self,
        workflow: Workflow[..., R],
        *args: Any,
        id: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        trace_id: str | None = None,
        timeout: float | None = None,
        queue: str | None = None,
        priority: int = 0,
        queue_key: str | None = None,
        start_at: datetime | None = None,
        delay: float | None = None,
        run_on: str | None = None,
        lock: str | None = None,
        trigger: str | Trigger = "manual",
        by: str = "user",
    ) -> Handle[R]:
        """Store a new run, durable when this returns, and begin it.

        The same `id` (or the same `key`) with the same workflow and input gives the run that exists.

        Args:
            args: what the handler gets after `ctx`, by position; checked before anything is written.
            id: the run's id; default: a UUIDv7.
            key: idempotency key; unlike `id` it does not become the run's name.
            attributes: labels to find the run by (JSON values).
            trace_id: W3C trace id to continue; default: a new one.
            timeout: seconds the run may take, restarts included; default: the workflow's.
            queue: the queue in which it waits for its place.
            priority: among those that wait in the queue: the lower the sooner.
            queue_key: whose run it is: queues have limits for each key, and keys take turns.
            start_at: not to begin before this moment, which has a time zone.
            delay: the same, in seconds from now.
            run_on: tag that a worker must have to execute it.
            lock: concurrency key: another run that has not ended may hold it, then this one is refused.
            trigger: what started it: a word, or a `Trigger` (`refold.triggers`) with what belongs to it.
            by: who started it.

        Raises:
            StartConflict: the id or key belongs to a run of another workflow or with other input.
            Locked: another run holds the concurrency key; the refusal is recorded.
            ValueRefused: an argument does not fit the handler's annotation, or has no JSON form.
            ConfigurationError: bad id, or not a workflow this engine has.
            StoreError: nothing was started.
        """
        placed = {
            "queue": queue, "priority": priority, "queue_key": queue_key, "start_at": start_at,
            "delay": delay, "run_on": run_on, "lock": lock,
        }  # fmt: skip
        said = {"attributes": attributes, "trace": trace_id, "timeout": timeout, "trigger": trigger, "by": by}
        return await self._start(workflow, args, id, key, placed, said)

    async def _start(
        self, workflow: Workflow[..., R], args: tuple[Any, ...], id: str | None, key: str | None,
        placed: dict[str, Any], said: dict[str, Any],
    ) -> Handle[R]:  # fmt: skip
        flow = self._registered(workflow)
        run_id = check_run_id(id) if id is not None else new_run_id()
        check_name(said["by"], "by")
        for value, what in ((key, "start key"), (said["trace"], "trace id")):
            if value is not None:
                check_name(value, what)
        packed = flow.encode_args(args)
        digest = input_digest(flow.name, packed)
        existing = existing_run(self.store, id, key, flow, digest)
        if existing is not None:
            if key is not None:
                await self._bind_key(key, existing, digest)
            return Handle(self, existing, flow)
        now = to_datetime(self.clock.now())
        place = placement(now, **placed)
        if place.queue:
            check_declared(self.store, place.queue)
        started = start_of(
            flow, packed, self.settings, now, key=key or "", clock=self.clock, place=place, **said
        )
        extra = key_append(key, run_id, digest, started.at, started.id) if key else Along()

        async def begin(posts: tuple[Post, ...] = ()) -> None:
            await self._store_start(flow, run_id, started, extra + Along(posts=posts))

        try:
            if started.lock:
                await hold(self.store, self._append, run_id, started, started, begin, named=id or "")
            else:
                await begin()
        except (errors.AppendRefused, errors.Locked) as refused:
            found = existing_run(self.store, id, key, flow, digest)
            if found is None:
                raise refused
            return Handle(self, found, flow)
        return Handle(self, run_id, flow)

    @property
    def locks(self) -> Locks:
        """Who holds which concurrency key: `engine.locks.holder("/srv/data")`."""
        return Locks(self)

    async def run(self, workflow: Workflow[..., R], *args: Any, **options: Any) -> R:
        """`start` and wait for the result."""
        handle: Handle[R] = await self.start(workflow, *args, **options)
        return await handle.result()

    async def _bind_key(self, key: str, run_id: str, digest: str) -> None:
        """The run was there under its id; from now on it is the key's, too."""
        if self.store.read(KEYS + key, 0, 1):
            return
        unit = Unit(key_append(key, run_id, digest, to_datetime(self.clock.now())).appends)
        try:
            await self._append(unit)
        except errors.AppendRefused:
            taken_by(self.store, key, run_id, digest)

    async def _append(self, unit: Unit) -> None:
        if self._worker is None:
            (refusal,) = self.store.commit([unit])
            if refusal is not None:
                raise errors.AppendRefused(refusal.stream, refusal.expected, refusal.found)
            return
        told = Told()
        self._worker.log.append(unit, told, retry=False)
        await told.durable()

    async def _store_start(
        self, flow: Workflow[Any, Any], run_id: str, started: t.RunStarted, extra: Along
    ) -> None:
        if self._worker is None:
            await self._append(start_unit(run_id, started, extra))
            return
        if self._worker.log.full:
            await self._worker.log.room()
        told = Told()
        self._worker.start_run(flow, run_id, started, extra, told)
        await told.durable()

    def _registered(self, workflow: Any) -> Workflow[Any, Any]:
        self.check_loop()
        if not isinstance(workflow, Workflow):
            raise ConfigurationError(f"start() expects a @workflow, got {workflow!r}")
        if self.execute and (workflow.name, workflow.version) not in self.workflows:
            raise errors.NotRegistered(
                f"workflow {workflow.name!r} version {workflow.version!r} is not registered: "
                f"Engine(…, workflows=[{workflow.name}])"
            )
        return workflow
