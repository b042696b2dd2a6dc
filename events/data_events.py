"""Data of a run: shared context, checkpoints, files, decisions in code, and how to undo."""

import msgspec
from msgspec import Raw

from .event import Event, null


class ContextSet(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. `ctx.set(key, value)`."""

    TAG = "context.set"
    key: str
    value: Raw = msgspec.field(default_factory=null)
    task: str = ""
    """Path of the task that set it."""
    conflict: str = ""
    """Path of the task beside this one whose value it replaced: two branches wrote the same key."""
    refused: str = ""
    """Why it was not set."""


class CheckpointRecorded(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. `ctx.checkpoint(name, data)`: a place in history to come back to."""

    TAG = "checkpoint.recorded"
    name: str
    data: Raw = msgspec.field(default_factory=null)
    task: str = ""


class PatchApplied(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. `ctx.patched(name)` was true: the run is on the new side of a change."""

    TAG = "patch.applied"
    name: str
    deprecated: bool = False
    """The old side is gone from the code; so may be this call."""


class ConditionDecided(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. `ctx.condition(…)`: what was decided, and on what."""

    TAG = "condition.decided"
    name: str
    result: bool
    operands: Raw = msgspec.field(default_factory=null)


class CompensationRegistered(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. `ctx.compensate(step, …)`: how to undo what was done."""

    TAG = "compensation.registered"
    name: str
    """Of the step that undoes."""
    key: str
    """Readable and unique in the run, in the place of a step's key."""
    args: Raw
    kwargs: Raw = msgspec.field(default_factory=lambda: Raw(b"{}"))


class ArtifactRecorded(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. A body made a file, or kept some bytes."""

    TAG = "artifact.recorded"
    step: int
    attempt: int
    name: str
    digest: str
    """SHA-256 of the content, in hex."""
    size: int
    """Bytes."""
    path: str = ""
    """Where the file is; empty: the content is a blob of the store, found by its digest."""
    media_type: str = ""


class ArtifactChanged(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. When the run was taken up again, a file was no longer what had been recorded."""

    TAG = "artifact.changed"
    step: int
    name: str
    expected: str
    found: str
    """Digest of the file as it is now; empty: it is gone."""
