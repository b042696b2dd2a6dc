"""`Engine`: the door to a store, for whoever executes its runs and for whoever only talks to them."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from ..events.clock import (
    Clock,
    SystemClock,
    new_owner,
    to_datetime,
)
from ..events.errors import ConfigurationError, RunNotFound, StoreCorrupt
from ..events.open import open_store
from ..events.registry import Unknown, look_at_event
from ..events.store import Store, read_rows
from ..events.stream import INBOX, check_chain
from ..events.types import Event
from ..events.verify import Verified, verify
from ..projections.core import CORE
from ..projections.projection import Projection
from .beginning import Beginning
from .bodies import StepWrapper
from .claims import Claims, claims_of
from .closing import to_its_end
from .ends import stored_end
from .executors import Executor, check_executors, check_place
from .handle import Handle
from .lookup import Runs
from .named import named_steps
from .names import run_to_find
from .placement import check_tags
from .queues import Queue, Queues, check_queues, declare
from .read_models import ReadModels
from .remote import check_not_loading_main
from .repairing import Repairing
from .schedule_plan import Schedule
from .schedules import Schedules
from .settings import Settings
from .starting import register
from .talking import Talking
from .worker import Worker
from .workflow import Workflow
from .wrapping import compose

R = TypeVar("R")

DEFAULT_STORE = "refold.db"
POLL_S = 0.02


class Engine(Beginning, Talking, Repairing):
    """Executes the runs of one store, inside your process and on your event loop.

        async with Engine("sqlite:///shop.db", workflows=[checkout]) as engine:
            handle = await engine.start(checkout, order, id="order-42")
            parcel = await handle.result()

    Args:
        store: a URL (`sqlite:///shop.db`, `memory://`), a path, or a `Store`; default: `$REFOLD_STORE`,
            else `./refold.db`.
        workflows: what this engine can execute, beside the children that these name in their code; several
            versions of one name are fine.
        execute: False: only talk to the store (start, signal, cancel, look), another process executes.
        settings: see `Settings`.
        clock: replace time in tests.
        tags: what this engine has that others may not, for runs with `run_on`; see also `only_tagged`.
        only_tagged: True: leave runs without `run_on` to others.
        queues: the limits that the code gives to queues (`refold.queues`), stored when they have changed.
        schedules: what starts runs by itself; made, or changed, on entering (`refold.schedules`).
        projections: read models of your own, kept up beside the ones that every store has.
        step_wrappers: `async def wrapper(info, call)` around the body of every step, the first outermost.
        executors: clusters by name, for the steps with `run_in="NAME"`; see `refold.executors`.

    Raises:
        StoreBusy: on entering: another process executes this store; the message names it.
        ConfigurationError: two workflows with the same name and version, or one that would run inside itself.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store | None = None,
        *,
        workflows: Iterable[Workflow[Any, Any]] = (),
        execute: bool = True,
        settings: Settings | None = None,
        clock: Clock | None = None,
        tags: Iterable[str] = (),
        only_tagged: bool = False,
        queues: Iterable[Queue] = (),
        schedules: Iterable[Schedule] = (),
        projections: Iterable[Projection] = (),
        step_wrappers: Iterable[StepWrapper] = (),
        executors: Mapping[str, Executor] | None = None,
    ) -> None:
        check_not_loading_main()
        _check_parts(store, settings, clock)
        self.settings = settings or Settings()
        self.clock = clock or SystemClock()
        self.execute = execute
        self.workflows = register(workflows, self.settings)
        self._executors = check_executors(executors or {})
        for flow in self.workflows.values() if execute else ():
            for step in named_steps(flow):
                check_place(step, self._executors)
        self._given = store if store is not None else os.environ.get("REFOLD_STORE", DEFAULT_STORE)
        self._store: Store | None = None
        self._holds = False
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.tags = check_tags(tags, only_tagged)
        self._queues = check_queues(queues)
        self._declared = tuple(schedules)
        self._projections = (*CORE, *projections)
        self._around = compose(step_wrappers)
        self._views: ReadModels | None = None

    # ---- life

    async def __aenter__(self) -> Self:
        if self._store is not None:
            raise ConfigurationError("this engine is already open; make a second Engine")
        given, self._loop = self._given, asyncio.get_running_loop()
        self._store = store = open_store(given) if isinstance(given, str | os.PathLike) else given
        try:
            declare(store, self.clock, self._queues)
            self.schedules.declare(store, self._declared)
            if self.execute:
                owner = new_owner()
                claims = self._claims(store, owner)
                claims.join()
                self._holds = True
                self._worker = Worker(store, self.workflows, self.clock, owner, self.settings, claims)
                self._worker.bodies.around = self._around
                self._worker.bodies.elsewhere.executors = self._executors
                self._worker.start()
            if self.settings.projections and self.execute:
                self._views = ReadModels(store, self._projections)
                self._views.follow()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Shut down gracefully: nothing new starts, bodies get `settings.grace` seconds, all is stored."""
        worker, self._worker = self._worker, None
        try:
            if worker is not None:
                worker.closing = True  # at once: nothing that is stored from here on begins
                await to_its_end(worker.close(self.settings.grace))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        views, self._views = self._views, None
        store, self._store = self._store, None
        try:
            if views is not None:
                views.close()
        finally:
            if store is not None and isinstance(self._given, str | os.PathLike):
                store.close()
            elif store is not None and self._holds:  # else it is another engine that holds it
                store.release()
            self._holds = False

    @property
    def store(self) -> Store:
        """The open store. Raises `ConfigurationError` outside `async with`."""
        if self._store is None:
            raise ConfigurationError("the engine is not open: use `async with Engine(…) as engine:`")
        return self._store

    @property
    def projections(self) -> ReadModels:
        """The read models: `rebuild`, `check`, `wait`, and queries."""
        if self._views is None:
            self._views = ReadModels(self.store, self._projections)
        return self._views

    @property
    def worker(self) -> Worker:
        """The executing half. Raises `ConfigurationError` when this engine does not execute."""
        if self._worker is None:
            raise ConfigurationError("this engine does not execute: make it with Engine(…, execute=True)")
        return self._worker

    def _claims(self, store: Store, owner: str) -> Claims:
        return claims_of(store, owner, self.settings.lease_ttl, self.settings.lease_refresh, self.tags)

    @property
    def queues(self) -> Queues:
        """Limits of queues, and how full they are: `set`, `list`, `get`."""
        return Queues(self)

    @property
    def schedules(self) -> Schedules:
        """What starts runs by itself: `create`, `list`, `next`, `pause` …"""
        return Schedules(self)

    # ---- talking to runs

    async def get(self, run_id: str) -> "Handle[Any]":
        """A handle of an existing run. Raises `RunNotFound`."""
        work = self.store.work(run_to_find(run_id))
        if work is None:
            raise RunNotFound(run_id)
        return Handle(self, run_id, self.workflows.get((work.workflow, work.version)))

    # ---- looking

    @property
    def runs(self) -> Runs:
        """Lists, counts and rows of the read models: `engine.runs.list(status="waiting")`, `.gates()` …"""
        return Runs(self.projections)

    async def end_of(self, run_id: str) -> Event:
        """Wait for a run's end and return the event."""
        self.check_loop()
        worker = self._worker
        if worker is not None and run_id in worker.live and not worker.closing:
            return await worker.end_of(run_id)  # no need to ask the store
        while (end := self._stored_end(run_id)) is None:
            if self._worker is not None and not self._worker.closing:
                work = self.store.work(run_id)
                if work is not None and (work.workflow, work.version) not in self.workflows:
                    self._worker.recovery.enqueue(run_id)  # it is found out, noted and told at once
                return await self._worker.end_of(run_id)
            await asyncio.sleep(POLL_S)
        return end

    def _stored_end(self, run_id: str) -> Event | None:
        work = self.store.work(run_to_find(run_id))
        if work is None:
            raise RunNotFound(run_id)
        return stored_end(self.store, run_id) if work.state == "done" else None

    def why(self, run_id: str) -> Any:
        """How a run stands and why, as `refold why` tells it: `print(engine.why("order-42"))`.

        A `Why(standing, said, commands)`: the same as data, its sentences, what one could type. Raises
        `RunNotFound`.
        """
        from ..projections.why_of import why

        return why(self.store, run_to_find(run_id), to_datetime(self.clock.now()))

    def events(self, run_id: str) -> list[Event | Unknown]:
        """A run's whole history, decoded. Raises `RunNotFound`."""
        rows = read_rows(self.store, run_to_find(run_id))
        if not rows:
            raise RunNotFound(run_id)
        return [look_at_event(row.tag, row.state, row) for row in rows]

    def export(
        self, run_id: str | None = None, format: str = "jsonl", *, family: bool = False
    ) -> Iterator[str]:
        """A run, or the whole store, as lines with their line feeds: `file.writelines(engine.export())`.

        Args:
            run_id: of the run; None: everything there is.
            format: `jsonl` (the log byte for byte, for `refold.events.transfer.import_log`), `cloudevents`,
                `trace` (for Perfetto), `mermaid` or `dot`.
            family: the runs that it started, too, and the one that it went on as.

        Raises `RunNotFound`; `ConfigurationError` for another format; `StoreCorrupt` when the log is damaged.
        """
        from .exporting import export

        runs = None if run_id is None else [run_to_find(run_id)]
        return export(self.store, runs, format, family=family)

    def verify(self, run_id: str | None = None) -> Verified:
        """Check every hash of one run (its inbox included) or of the whole log, and that nothing is missing.

        Raises `RunNotFound`; `StoreCorrupt` when the log cannot even be read.
        """
        if run_id is None:
            return verify(self.store)
        rows, mail = self.store.read(run_to_find(run_id)), self.store.read(run_id + INBOX)
        if not rows:
            raise RunNotFound(run_id)
        problems: list[str] = []
        for stream in (rows, mail):
            try:
                check_chain(stream)
            except StoreCorrupt as error:
                problems.append(str(error))
        return Verified(len(rows) + len(mail), 2 if mail else 1, tuple(problems))


def _check_parts(store: object, settings: object, clock: object) -> None:
    """What is given in the place of something else is found out here, and not when it is first used."""
    place = store is None or isinstance(store, str | os.PathLike)
    if not (place or callable(getattr(store, "commit", None))):
        raise ConfigurationError(f"Engine({store!r:.80}): expected a URL, a path or an open store first")
    if not (settings is None or isinstance(settings, Settings)):
        raise ConfigurationError(f"settings={settings!r:.80}: expected Settings(…)")
    if not (clock is None or callable(getattr(clock, "now", None))):
        raise ConfigurationError(f"clock={clock!r:.80}: expected a clock, which has now()")
