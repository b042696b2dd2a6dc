"""A run, as whoever started or found it holds it."""

import asyncio
from typing import Any, Generic, Protocol, TypeVar, cast

from ..events import codec, errors, types as t
from ..events.registry import Unknown
from ..events.types import Event
from ..projections.queries import Record
from .read_models import ReadModels
from .workflow import Workflow

R = TypeVar("R")


class Door(Protocol):
    """What a handle asks of its engine."""

    @property
    def projections(self) -> ReadModels: ...

    async def end_of(self, run_id: str) -> Event: ...

    def events(self, run_id: str) -> list[Event | Unknown]: ...

    async def signal(self, run_id: str, name: str, payload: Any, *, id: str | None, by: str) -> None: ...

    async def cancel(self, run_id: str, reason: str, *, by: str) -> None: ...


class Handle(Generic[R]):
    """A run: its result, how it stands, what happened, and the verbs to act on it."""

    def __init__(self, engine: Door, run_id: str, workflow: Workflow[Any, R] | None) -> None:
        self.engine, self.id, self._workflow = engine, run_id, workflow

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the handler's result (seconds; None: for ever).

        Raises `RunFailed`, `RunCancelled`, `TimeoutError`; `NonDeterminismError`, `HandlerStuck` or
        another `HandlerError` when the run cannot go on in this process.
        """
        async with asyncio.timeout(timeout):
            end = await self.engine.end_of(self.id)
        if isinstance(end, t.RunFailed):
            raise errors.RunFailed(self.id, end.error.type, end.error.message)
        if isinstance(end, t.RunCancelled):
            raise errors.RunCancelled(self.id, end.reason)
        result = cast(t.RunCompleted, end).result
        decode = self._workflow.decode_result if self._workflow is not None else codec.decoder(Any)
        value: R = decode(result, f"result of run {self.id}")
        return value

    def status(self) -> Record:
        """The run's row of `runs`, folded from its own stream: always up to date."""
        return self.engine.projections.fold_run(self.id)

    def steps(self) -> list[Record]:
        """The run's rows of `steps`, one per attempt, folded from its own stream."""
        return self.engine.projections.fold_steps(self.id)

    def events(self) -> list[Event | Unknown]:
        """The whole history."""
        return self.engine.events(self.id)

    async def signal(
        self, name: str, payload: Any = None, *, id: str | None = None, by: str = "user"
    ) -> None:
        """See `Engine.signal`."""
        await self.engine.signal(self.id, name, payload, id=id, by=by)

    async def cancel(self, reason: str = "", *, by: str = "user") -> None:
        """See `Engine.cancel`."""
        await self.engine.cancel(self.id, reason, by=by)
