"""What the body of a step may know of its attempt, and what it may put on record."""

import contextvars
import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

from ..events import codec, types as t
from ..events.blobs import Contents
from ..events.clock import step_trace_id
from ..events.errors import ConfigurationError
from . import artifacts
from .names import check_text


class Owner(Protocol):
    """What an attempt needs of the run that it belongs to."""

    @property
    def files(self) -> str:
        """Folder under which the run has its own; empty: none."""
        ...

    @property
    def workflow(self) -> str:
        """Name of the run's workflow."""
        ...

    @property
    def trace(self) -> str:
        """The run's W3C trace id."""
        ...

    def record(self, body: Any, kind: type[t.Event], fields: dict[str, Any], contents: Contents = ()) -> None:
        """Append a fact about the attempt, and store what it names; from any thread."""


class Attempt(Protocol):
    """An attempt whose body runs here, wherever the run is."""

    run_id: str
    attempt: int
    started_id: str
    """Of the event that says that it began; empty: that is known only where its run is."""

    @property
    def key(self) -> str: ...
    @property
    def step_name(self) -> str: ...
    @property
    def owner(self) -> Owner: ...


class StepInfo:
    """The attempt that the current body is: `run_id`, `key` of the step (`charge#1`), `attempt` from 1."""

    __slots__ = ("_body", "attempt", "key", "run_id")

    def __init__(self, body: Attempt) -> None:
        self._body = body
        self.run_id, self.key, self.attempt = body.run_id, body.key, body.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, in every process: give it to the service you call."""
        return f"{self.run_id}/{self.key}"

    @property
    def name(self) -> str:
        """The step's name, `charge`."""
        return self._body.step_name

    @property
    def workflow(self) -> str:
        """Name of the run's workflow."""
        return self._body.owner.workflow

    @property
    def trace_id(self) -> str:
        """UUIDv5 of run and step key."""
        return step_trace_id(self.run_id, self.key)

    @property
    def run_trace_id(self) -> str:
        """The run's W3C trace id: what `start(trace_id=…)` was given, or one made then."""
        return self._body.owner.trace

    @property
    def artifacts_dir(self) -> Path:
        """The run's folder for files. Raises `ConfigurationError` when it has none (`Settings.files`)."""
        path = artifacts.folder(self._body.owner.files, artifacts.ARTIFACTS, self.run_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def artifact(
        self,
        name: str,
        *,
        path: str | os.PathLike[str] | None = None,
        data: bytes | None = None,
        media_type: str = "",
    ) -> artifacts.Artifact:
        """Record a file that this attempt has made, or keep some bytes; the step may return what it gets.

        Args:
            path: of a file that stays where it is; a relative one is in `artifacts_dir`, if the run has one.
                It is read once, for its digest: a large one in an `async def` with `asyncio.to_thread`.
            data: up to 64 MiB, kept in the store by digest.
            media_type: for people and programs that show it, `text/csv` …

        Raises `ConfigurationError`, `ValueRefused`, and `OSError` for a file that cannot be read.
        """
        base = self.artifacts_dir if path is not None and self._body.owner.files else None
        made, fields, contents = artifacts.measured(base, name, path, data, media_type)
        self._body.owner.record(self._body, t.ArtifactRecorded, fields, contents)
        return made

    def debug(self, message: Any) -> None:
        """Keep any JSON value with this attempt for people to look at; never loaded on replay."""
        self.record(t.DebugRecorded, {"message": codec.encode(message, "debug message")})

    def record(self, kind: type[t.Event], fields: dict[str, Any]) -> None:
        """Append a fact about this attempt."""
        self._body.owner.record(self._body, kind, fields)


CURRENT: contextvars.ContextVar[Attempt] = contextvars.ContextVar("refold_step")
"""Set by whoever runs a body."""


def body_here() -> Attempt | None:
    """The attempt whose body is running; None outside of one."""
    return CURRENT.get(None)


def current_step() -> StepInfo:
    """The attempt whose body is running. Raises `ConfigurationError` outside a step's body."""
    try:
        return StepInfo(CURRENT.get())
    except LookupError:
        raise ConfigurationError(
            "current_step() and record_cost() work in the body of a step that a run called"
        ) from None


def record_cost(
    usd: Decimal | str | int = 0,
    *,
    model: str = "",
    input_tokens: int = 0,
    output_tokens: int = 0,
    cache_tokens: int = 0,
    turns: int = 0,
    detail: dict[str, Any] | None = None,
) -> None:
    """Record what this attempt has spent; call it as often as there is something to record.

    It is an event of its own, so a failure or a crash right after does not lose it, and totals
    count every attempt once.

    Args:
        usd: US dollars, exact: `Decimal`, `int` or text such as `"0.0042"`, never a float.
        model: what was paid for, e.g. the name of a model.
        input_tokens, output_tokens, cache_tokens, turns: counts.
        detail: any JSON object.

    Raises:
        ConfigurationError: outside a step, or `usd` is a float, negative or not a number, or a count is.
        ValueRefused: `detail` is no JSON object.
    """
    info = current_step()
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cache_tokens": cache_tokens}
    counts["turns"] = turns
    for what, count in counts.items():
        if type(count) is not int or count < 0:
            raise ConfigurationError(f"record_cost({what}={count!r}): expected an int, 0 or more")
    plain = codec.decoder(dict[str, Any])(codec.encode(detail or {}, "detail"), "detail")
    fields = {"usd": _amount(usd), "model": check_text(model, "model"), "detail": plain}
    info.record(t.CostRecorded, {**fields, **counts})


def _amount(usd: Decimal | str | int) -> Decimal:
    if isinstance(usd, float):
        raise ConfigurationError(f"record_cost({usd!r}): money is Decimal, int or text, never a float")
    try:
        amount = Decimal(usd)
    except (InvalidOperation, TypeError, ValueError):
        raise ConfigurationError(f"record_cost({usd!r}): not an amount of money") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigurationError(f"record_cost({usd!r}): expected a finite amount, 0 or more")
    return amount
