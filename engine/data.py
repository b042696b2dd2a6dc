"""What a handler remembers beside its own variables: shared context, attributes, patches, conditions."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec import Raw

from ..events import codec, types as t
from ..events.errors import ConfigurationError
from ..events.types import Event
from .commands import Command, MarkerCommand
from .names import check_name

RESERVED = frozenset({"run_id", "workflow", "env", "input", "inputs", "steps", "item", "context", "now"})
"""Names that templates and people use for something else."""


MAX_KEYS = 10_000
"""Of one run's shared context."""


class ContextEntry(NamedTuple):
    """What one completed step has returned."""

    key: str
    """`charge#2`"""
    name: str
    """Of the step."""
    iteration: int
    """How often the same task had called it from the same place before."""
    output: Any
    """Its result."""


class Write(NamedTuple):
    """Who set a key last."""

    path: str
    """Of the task."""
    moment: int
    """The loop's count then: tasks made later have higher numbers."""


class Memory:
    """Of one run; made when the handler first uses any of it."""

    __slots__ = ("attributes", "outputs", "patches", "values", "writers")

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        """Changes to the attributes given to `start`; None: taken away."""
        self.patches: dict[str, bool] = {}
        self.values: dict[str, Raw] = {}
        self.writers: dict[str, Write] = {}
        self.outputs: list[ContextEntry] = []
        """In the order in which the steps completed; only with `keep_outputs`."""


def memory(run: Any) -> Memory:
    """The run's memory."""
    if run.memory is None:
        run.memory = Memory()
    found: Memory = run.memory
    return found


# ---- patches


def patched(run: Any, name: str) -> bool:
    """See `Context.patched`."""
    run.check_open()
    patches = memory(run).patches
    known = patches.get(check_name(name, "patch name"))
    if known is not None:
        return known
    applied = not run.matching or run.recorded(t.PatchApplied, name=name) is not None
    if applied:
        run.issue(MarkerCommand(t.PatchApplied, ("name",), name=name))
    patches[name] = applied
    return applied


def deprecate_patch(run: Any, name: str) -> None:
    """See `Context.deprecate_patch`."""
    run.check_open()
    patches = memory(run).patches
    if patches.get(check_name(name, "patch name")) is None:
        recorded = run.recorded(t.PatchApplied, name=name)
        if not run.matching or recorded is not None:
            run.issue(MarkerCommand(t.PatchApplied, ("name",), name=name, deprecated=True))
        patches[name] = True


# ---- attributes


def attributes(run: Any) -> dict[str, Any]:
    """The run's attributes as they are now; a copy."""
    changed = run.memory.attributes if run.memory is not None else {}
    merged = {**run.started.attributes, **changed}
    return {name: value for name, value in merged.items() if value is not None}


def attributes_changed(run: Any, cause: t.AttributesChanged) -> None:
    """Somebody outside changed them."""
    memory(run).attributes.update(cause.attributes)


def set_attributes(run: Any, changes: dict[str, Any]) -> None:
    """See `Context.set_attributes`."""
    plain = codec.decoder(dict[str, Any])(codec.encode(changes, "attributes"), "attributes")
    run.issue(MarkerCommand(t.AttributesSet, ("attributes",), attributes=plain))
    memory(run).attributes.update(plain)


# ---- shared context


def set_value(run: Any, key: str, value: Any) -> None:
    """See `Context.set`."""
    packed = codec.encode(value, f"context {key!r}")
    task: Any = asyncio.current_task(run.loop)
    path = getattr(task, "path", "m")
    fields: dict[str, Any] = {"key": check_name(key, "context key"), "value": packed, "task": path}
    kept = memory(run)
    if key in RESERVED:
        fields |= {"refused": f"{key!r} is a reserved name", "value": Raw(b"null")}
    elif len(kept.values) >= MAX_KEYS and key not in kept.values:
        raise ConfigurationError(
            f"run {run.run_id}: ctx.set({key!r}): the shared context has {MAX_KEYS:,} keys, which is the "
            "limit; keep a dict under one key, or return the data from a step"
        )
    else:
        last = kept.writers.get(key)
        if last is not None and last.path != path and _beside(run, task, last):
            fields["conflict"] = last.path
        run.held += len(packed) - len(kept.values.get(key, b""))
        kept.values[key], kept.writers[key] = packed, Write(path, run.loop.count)
    run.issue(MarkerCommand(t.ContextSet, ("key", "value"), **fields))


def _beside(run: Any, task: Any, last: Write) -> bool:
    """Whether the task and the last writer are branches side by side, so that chance decided who came last.

    They are not when one started the other, nor when this one was started after the other had written
    and ended.
    """
    mine, theirs = task.path.split("."), last.path.split(".")
    fork = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
    if fork is None:
        return False
    branch, other = ".".join(mine[: fork + 1]), ".".join(theirs[: fork + 1])
    alive = {each.path: each for each in run.loop.tasks}
    return branch not in alive or alive[branch]._number < last.moment or other in alive


def get_value(run: Any, key: str, default: Any, type: Any) -> Any:
    """See `Context.get`."""
    packed = run.memory.values.get(key) if run.memory is not None else None
    return default if packed is None else codec.decoder(type)(packed, f"context {key!r}")


# ---- what the steps have returned


def remember(run: Any, command: Any, result: Raw) -> None:
    """Keep what a step has returned, decoded once more: nobody else changes it."""
    output = command.step.decode_result(result, f"result of {command.key}")
    run.held += 200 + len(result)
    memory(run).outputs.append(ContextEntry(command.key, command.step.name, command.iteration, output))


def outputs(run: Any, what: str) -> list[ContextEntry]:
    """Those kept so far. Raises `ConfigurationError` when the workflow does not keep them."""
    if not run.workflow.options.keep_outputs:
        raise ConfigurationError(
            f"run {run.run_id}: ctx.{what} needs what the steps have returned; "
            f"declare {run.workflow.name} with @workflow(keep_outputs=True)"
        )
    return memory(run).outputs


# ---- notes


def checkpoint(run: Any, name: str, data: Any) -> None:
    """See `Context.checkpoint`."""
    packed = codec.encode(data, f"checkpoint {name!r}")
    task = getattr(asyncio.current_task(run.loop), "path", "m")
    check_name(name, "checkpoint name")
    run.issue(MarkerCommand(t.CheckpointRecorded, ("name", "data"), name=name, data=packed, task=task))


# ---- decisions


class SkipCommand(Command):
    """A step, or a branch, that is not taken: it has a row of its own that says why."""

    __slots__ = ("key", "name", "reason")

    def __init__(self, name: str, reason: str) -> None:
        super().__init__()
        self.name, self.reason, self.key = name, reason, ""

    def bound(self, run: Any, event: Event | None) -> None:
        self.key = f"{self.name}#{run.ordinal(self.name)}"

    def matches(self, event: Event) -> bool:
        return isinstance(event, t.BranchSkipped) and event.name == self.name

    def event(self, head: dict[str, Any]) -> Event:
        return t.BranchSkipped(step=self.number, name=self.name, key=self.key, reason=self.reason, **head)

    def describe(self) -> str:
        return f"skip of {self.name!r}"


def skip(run: Any, name: str, reason: str) -> None:
    """Note that a step, or a branch, is not taken."""
    run.issue(SkipCommand(check_name(name, "name of what is skipped"), reason))


def condition(run: Any, name: str, result: bool, skips: Iterable[Any], operands: dict[str, Any]) -> bool:
    """See `Context.condition`."""
    run.check_open()
    named = [check_name(getattr(each, "name", each), "name of what is skipped") for each in skips]
    recorded = run.recorded(t.ConditionDecided, name=check_name(name, "condition name"))
    if recorded is None:
        decided, packed = bool(result), codec.encode(operands, f"operands of condition {name!r}")
    else:
        decided, packed = recorded.result, recorded.operands
    run.issue(MarkerCommand(t.ConditionDecided, ("name",), name=name, result=decided, operands=packed))
    if not decided:
        for skipped in named:
            skip(run, skipped, f"condition {name!r} is false")
    return decided
