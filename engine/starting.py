"""What `start` checks before a run exists: names, keys, the same input, the workflows that are known."""

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import msgspec
from msgspec import Raw
from msgspec.structs import asdict

from ..events import codec, types as t
from ..events.clock import Clock, new_event_id, new_seed, new_trace_id
from ..events.errors import ConfigurationError, RefoldError, StartConflict
from ..events.store import Append, Store, Unit
from ..events.stream import KEYS, Tail, chain
from ..events.triggers import Trigger
from . import artifacts, guard
from .commands import clip
from .family import Along, stored_start
from .named import named_steps, named_workflows
from .names import check_name, is_number
from .placement import AT_ONCE, Placement
from .settings import Settings
from .step import LONGEST_S
from .tagged import register_steps
from .workflow import Workflow

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
    """The workflows by name and version, with those they start as children.

    Raises `ConfigurationError` for two of one name and version, and for one that would run inside itself.
    """
    registry: Registry = {}
    if isinstance(workflows, Workflow) or not isinstance(workflows, Iterable):
        raise ConfigurationError(f"workflows={workflows!r:.80}: expected a list, workflows=[…]")
    for flow in workflows:
        if not isinstance(flow, Workflow):
            raise ConfigurationError(f"workflows=[…] expects @workflow functions, got {flow!r}")
        if registry.setdefault((flow.name, flow.version), flow) is not flow:
            raise ConfigurationError(
                f"two workflows are called {flow.name!r} version {flow.version!r}: give one of them another "
                "name or version"
            )
    for flow in list(registry.values()):
        _register_below(flow, (flow,), registry)
    for flow in list(registry.values()):
        register_steps(flow, named_steps(flow), registry)
    for flow in registry.values():
        for function in flow.functions:
            if settings.determinism != "off":
                for finding in guard.scan(function):
                    _log.warning("workflow %s: %s", flow.name, finding)
            if settings.determinism == "strict":
                guard.arm(function)
    return registry


def _register_below(
    flow: Workflow[Any, Any], chain: tuple[Workflow[Any, Any], ...], registry: Registry
) -> None:
    """Children that a handler names need not be listed: the engine will have to execute them."""
    for below in (found for function in flow.functions for found in named_workflows(function)):
        if below in chain:
            if not below.recursive:
                names = " -> ".join(above.name for above in (*chain, below))
                raise ConfigurationError(
                    f"{names}: {below.name} would run inside itself; declare it "
                    "@workflow(recursive=True) if that is meant"
                )
            continue
        registry.setdefault((below.name, below.version), below)
        _register_below(below, (*chain, below), registry)


def input_digest(name: str, args: Raw) -> str:
    """SHA-256 over workflow name and arguments, object keys in any order."""
    plain = msgspec.json.encode(msgspec.json.decode(args), order="deterministic")
    return hashlib.sha256(name.encode() + b"\0" + plain).hexdigest()


def key_append(key: str, run_id: str, digest: str, at: datetime, cause: str = "") -> Along:
    """What makes a start key the run's."""
    taken = t.KeyTaken(run_id=run_id, digest=digest, id=new_event_id(), at=at, cause=cause)
    rows, _ = chain(KEYS + key, Tail(), [taken])
    return Along((Append(KEYS + key, 0, rows),))


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
                f"{flow.name}{' with other input' if flow.name == started.workflow else ''}; use another id",
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


def start_of(
    flow: Workflow[Any, Any], args: Raw, settings: Settings, at: datetime, *, key: str,
    trigger: str | Trigger, attributes: Mapping[str, Any] | None, trace: str | None,
    timeout: float | None, by: str, clock: Clock | None = None, place: Placement = AT_ONCE,
) -> t.RunStarted:  # fmt: skip
    """The first event of a run. Raises `ValueRefused`, `ConfigurationError`."""
    came = check_trigger(trigger)
    return t.RunStarted(
        workflow=flow.name, workflow_version=flow.version, args=args, seed=new_seed(clock), key=key,
        attributes=plain_attributes(attributes or {}), trigger=came.kind, runtime=flow.runtime,
        triggered_by=None if came == Trigger(came.kind) else came, is_triggered_by_hook=came.kind == "hook",
        timeout_s=check_timeout(timeout, flow), max_depth=settings.max_depth,
        files=artifacts.root(settings.files), id=new_event_id(), at=at, by=by, trace=trace or new_trace_id(),
        **asdict(place.of(flow.options.run_on)),
    )  # fmt: skip


def check_trigger(trigger: Any) -> Trigger:
    """What started a run, as it is stored. Raises `ConfigurationError`."""
    if not isinstance(trigger, Trigger):
        return Trigger(check_name(trigger, "trigger"))
    for value, what in (
        (trigger.path, "path"), (trigger.name, "name"), (trigger.topic, "topic"), (trigger.run_id, "run"),
    ):  # fmt: skip
        if value != "":
            check_name(value, f"{what} of the trigger")
    moment: Any = trigger.nominal_at
    if moment is not None and not (isinstance(moment, datetime) and moment.tzinfo is not None):
        raise ConfigurationError(f"trigger of a schedule: {moment!r:.80} is no datetime with a time zone")
    check_name(trigger.kind, "trigger")
    return trigger


def check_timeout(timeout: float | None, flow: Workflow[Any, Any]) -> float:
    """Seconds that a run may take; 0: no limit. Raises `ConfigurationError`."""
    if timeout is not None and not (is_number(timeout) and 0 < timeout < LONGEST_S):
        raise ConfigurationError(f"start(timeout={timeout!r}): expected seconds, more than 0, or None")
    return timeout or flow.options.timeout or 0.0


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as the log will give them back. Raises `ValueRefused`."""
    read: dict[str, Any] = codec.decoder(dict[str, Any])(codec.encode(attributes, "attributes"), "attributes")
    return read


def start_unit(run_id: str, started: t.RunStarted, along: Along) -> Unit:
    """The unit that stores a run without beginning it."""
    _, _, own = stored_start(run_id, started)
    return Unit(*(own + along))
