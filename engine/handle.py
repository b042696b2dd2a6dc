"""A run, as whoever started or found it holds it."""

import asyncio
from typing import Any, Generic, TypeVar, cast

from ..events import codec, errors, types as t
from ..events.clock import to_datetime
from ..events.registry import Unknown
from ..events.types import Event
from ..projections.queries import Record
from .outages import through_outages
from .workflow import Workflow

R = TypeVar("R")


class Handle(Generic[R]):
    """A run: its result, how it stands, what happened, and the engine's verbs to act on it.

    `signal`, `cancel`, `approve`, `reject`, `answer`, `terminate`, `pause`, `resume`, `retry`, `skip_step`,
    `reset_step`, `resolve_step`, `compensate`, `set_attributes`, `dismiss` and `fork` are those of `Engine`,
    without the run's id.
    """

    def __init__(self, engine: Any, run_id: str, workflow: Workflow[Any, R] | None) -> None:
        self.engine: Any = engine
        self.id, self._workflow = run_id, workflow

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the handler's result (seconds; None: for ever).

        Of a run that went on as a new one, that one's. Raises `RunFailed` (also of a run that was undone),
        `RunCancelled` (also of one that was terminated), `TimeoutError`; `NonDeterminismError`,
        `HandlerStuck` or another `HandlerError` when the run cannot go on in this process.
        """
        run_id = self.id
        async with asyncio.timeout(timeout):
            while isinstance(end := await self._end_of(run_id), t.RunContinued):
                run_id = end.next_run
        if isinstance(end, t.RunFailed | t.RunCompensated | t.RunCompensationFailed):
            error, status = end.error or t.Failure(type="", message=""), end.TAG.removeprefix("run.")
            raise errors.RunFailed(run_id, error.type, error.message, status)
        if isinstance(end, t.RunCancelled | t.RunTerminated):
            raise errors.RunCancelled(run_id, end.reason, end.TAG.removeprefix("run."))
        result = cast(t.RunCompleted, end).result
        decode = self._workflow.decode_result if self._workflow is not None else codec.decoder(Any)
        value: R = decode(result, f"result of run {run_id}")
        return value

    async def _end_of(self, run_id: str) -> Event:
        end: Event = await through_outages(lambda: self.engine.end_of(run_id))
        return end

    def _repr_html_(self) -> str:
        """Its timeline, as a notebook shows it: up to now, while it goes on."""
        from ..projections import picture

        try:
            found = picture.timeline_of(self.engine.store.read(self.id))
        except (errors.RefoldError, ValueError) as error:
            return f"<div>{picture.safe(self)}: {picture.safe(error)}</div>"
        return picture.picture(found, to_datetime(self.engine.clock.now()))

    def status(self) -> Record:
        """The run's row of `runs`, folded from its own stream: always up to date."""
        row: Record = self.engine.projections.fold_run(self.id)
        return row

    def why(self) -> Any:
        """How it stands and why; see `Engine.why`."""
        return self.engine.why(self.id)

    def steps(self) -> list[Record]:
        """The run's rows of `steps`, one per attempt, folded from its own stream."""
        rows: list[Record] = self.engine.projections.fold_steps(self.id)
        return rows

    def events(self) -> list[Event | Unknown]:
        """The whole history."""
        history: list[Event | Unknown] = self.engine.events(self.id)
        return history

    async def signal(
        self, name: str, payload: Any = None, *, id: str | None = None, by: str = "user"
    ) -> None:
        """See `Engine.signal`."""
        await self.engine.signal(self.id, name, payload, id=id, by=by)

    async def cancel(self, reason: str = "", *, by: str = "user") -> None:
        """See `Engine.cancel`."""
        await self.engine.cancel(self.id, reason, by=by)

    async def approve(self, gate: str | int | None = None, **options: Any) -> None:
        """See `Engine.approve`."""
        await self.engine.approve(self.id, gate, **options)

    async def reject(self, gate: str | int | None = None, **options: Any) -> None:
        """See `Engine.reject`."""
        await self.engine.reject(self.id, gate, **options)

    async def answer(self, value: Any, gate: str | int | None = None, **options: Any) -> None:
        """See `Engine.answer`."""
        await self.engine.answer(self.id, value, gate, **options)

    async def terminate(self, reason: str = "", *, by: str = "user") -> None:
        """See `Engine.terminate`."""
        await self.engine.terminate(self.id, reason, by=by)

    async def pause(self, reason: str = "", *, by: str = "user") -> None:
        """See `Engine.pause`."""
        await self.engine.pause(self.id, reason, by=by)

    async def resume(self, reason: str = "", *, by: str = "user") -> str:
        """See `Engine.resume`."""
        did: str = await self.engine.resume(self.id, reason, by=by)
        return did

    async def retry(self, **options: Any) -> None:
        """See `Engine.retry`."""
        await self.engine.retry(self.id, **options)

    async def skip_step(self, key: str, result: Any = None, **options: Any) -> None:
        """See `Engine.skip_step`."""
        await self.engine.skip_step(self.id, key, result, **options)

    async def reset_step(self, key: str, **options: Any) -> None:
        """See `Engine.reset_step`."""
        await self.engine.reset_step(self.id, key, **options)

    async def resolve_step(self, key: str, outcome: str, result: Any = None, **options: Any) -> None:
        """See `Engine.resolve_step`."""
        await self.engine.resolve_step(self.id, key, outcome, result, **options)

    async def compensate(self, **options: Any) -> None:
        """See `Engine.compensate`."""
        await self.engine.compensate(self.id, **options)

    async def set_attributes(self, attributes: dict[str, Any], *, by: str = "user") -> None:
        """See `Engine.set_attributes`."""
        await self.engine.set_attributes(self.id, attributes, by=by)

    async def dismiss(self, dismissed: bool = True, *, by: str = "user") -> None:
        """See `Engine.dismiss`."""
        await self.engine.dismiss(self.id, dismissed, by=by)

    async def fork(self, **options: Any) -> "Handle[R]":
        """See `Engine.fork`; a handle of the new run."""
        return Handle(self.engine, await self.engine.fork(self.id, **options), self._workflow)
