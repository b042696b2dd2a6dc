"""What `start` checks before a run exists: names, keys, the same input, the workflows that are known."""

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import msgspec
from msgspec import Raw

from ..events import codec, types as t
from ..events.clock import new_event_id
from ..events.errors import ConfigurationError, RefoldError, StartConflict
from ..events.store import Append, Store
from ..events.stream import Tail, chain
from . import guard
from .commands import clip
from .settings import Settings
from .workflow import Workflow

KEYS = "key/"
"""Prefix of the streams that hold start keys."""

Registry = dict[tuple[str, str], Workflow[Any, Any]]
"""Workflows by name and version."""

_log = logging.getLogger("refold")


class Told:
    """Awaitable acknowledgement of an append."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, error: RefoldError | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)

    async def durable(self) -> None:
        """Wait; cancelling the waiter does not cancel the append."""
        await asyncio.shield(self._future)


def register(workflows: Iterable[Workflow[Any, Any]], settings: Settings) -> Registry:
    registry: Registry = {}
    for flow in workflows:
        if not isinstance(flow, Workflow):
            raise ConfigurationError(f"workflows=[…] expects @workflow functions, got {flow!r}")
        if registry.setdefault((flow.name, flow.version), flow) is not flow:
            raise ConfigurationError(f"two workflows are called {flow.name!r} version {flow.version!r}")
        if settings.determinism != "off":
            for finding in guard.scan(flow.fn):
                _log.warning("workflow %s: %s", flow.name, finding)
        if settings.determinism == "strict":
            guard.arm(flow.fn)
    return registry


def input_digest(name: str, args: Raw) -> str:
    """SHA-256 over workflow name and arguments, object keys in any order."""
    plain = msgspec.json.encode(msgspec.json.decode(args), order="deterministic")
    return hashlib.sha256(name.encode() + b"\0" + plain).hexdigest()


def key_append(key: str, run_id: str, digest: str, at: datetime, cause: str = "") -> tuple[Append, ...]:
    """What makes a start key the run's."""
    taken = t.KeyTaken(run_id=run_id, digest=digest, id=new_event_id(), at=at, cause=cause)
    rows, _ = chain(KEYS + key, Tail(), [taken])
    return (Append(KEYS + key, 0, rows),)


def existing_run(
    store: Store, run_id: str | None, key: str | None, flow: Workflow[Any, Any], digest: str
) -> str | None:
    """The run that already has this id or key. Raises `StartConflict` when it is another one."""
    if key is not None and (taken := taken_by(store, key, run_id, digest)) is not None:
        return taken
    if run_id is not None and (rows := store.read(run_id, 0, 1)):
        started = cast(t.RunStarted, rows[0].event())
        if input_digest(started.workflow, started.args) != digest:
            raise StartConflict(
                f"run {run_id!r} exists: {started.workflow} with {clip(started.args)}, now asked for "
                f"{flow.name}; use another id",
                run_id,
            )
        return run_id
    return None


def taken_by(store: Store, key: str, run_id: str | None, digest: str) -> str | None:
    """The run that has this key. Raises `StartConflict` when that is not the run, or the input, asked for."""
    rows = store.read(KEYS + key, 0, 1)
    if not rows:
        return None
    taken = cast(t.KeyTaken, rows[0].event())
    if taken.digest != digest or run_id not in (None, taken.run_id):
        asked = "with another workflow or other input" if taken.digest != digest else f"not {run_id!r}"
        raise StartConflict(
            f"start key {key!r} belongs to run {taken.run_id!r}, {asked}; use another key", taken.run_id
        )
    return taken.run_id


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as the log will give them back. Raises `ValueRefused`."""
    read: dict[str, Any] = codec.decoder(dict[str, Any])(codec.encode(attributes, "attributes"), "attributes")
    return read
