"""What a handler remembers beside its own variables: shared context, attributes, patches, conditions."""

import asyncio
from collections.abc import Iterable
from typing import Any

from msgspec import Raw

from ..events import codec, types as t
from ..events.types import Event
from .commands import Command, MarkerCommand
from .names import check_name

RESERVED = frozenset({"run_id", "workflow", "env", "input", "inputs", "steps", "item", "context", "now"})
"""Names that templates and people use for something else."""


class Memory:
    """Of one run; made when the handler first uses any of it."""

    __slots__ = ("attributes", "patches", "values", "writers")

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        """Changes to the attributes given to `start`; None: taken away."""
        self.patches: dict[str, bool] = {}
        self.values: dict[str, Raw] = {}
        self.writers: dict[str, str] = {}
        """Key to the path of the task that set it last."""


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
    task = getattr(asyncio.current_task(run.loop), "path", "m")
    fields: dict[str, Any] = {"key": check_name(key, "context key"), "value": packed, "task": task}
    if key in RESERVED:
        fields |= {"refused": f"{key!r} is a reserved name", "value": Raw(b"null")}
    else:
        kept = memory(run)
        last = kept.writers.get(key, task)
        if not (f"{last}.".startswith(f"{task}.") or f"{task}.".startswith(f"{last}.")):  # two branches
            fields["conflict"] = last
        kept.values[key], kept.writers[key] = packed, task
    run.issue(MarkerCommand(t.ContextSet, ("key", "value"), **fields))


def get_value(run: Any, key: str, default: Any) -> Any:
    """See `Context.get`."""
    packed = run.memory.values.get(key) if run.memory is not None else None
    return default if packed is None else codec.decoder(Any)(packed, f"context {key!r}")


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
    named = [str(getattr(skipped, "name", skipped)) for skipped in skips]
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
