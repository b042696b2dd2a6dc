"""`artifacts`: files and bytes that the bodies of a run have made."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading_waits as w
from .projection import Events, Index, Key, Scope, Table, column, table
from .reading import utc
from .vocabulary import events


class ArtifactRow(Struct, gc=False):
    """A row of `artifacts`."""

    run_id: Annotated[str, column("The run.")]
    step: Annotated[int, column("Number of the step that made it.")]
    name: Annotated[str, column("Its name.")]
    attempt: Annotated[int, column("Attempt that made it, the last one if several did.")] = 0
    digest: Annotated[str, column("SHA-256 of the content, in hex.")] = ""
    size: Annotated[int, column("Bytes.")] = 0
    path: Annotated[str, column("Where the file is; empty: the store keeps the content, by its digest.")] = ""
    media_type: Annotated[str, column("Its media type, or empty.")] = ""
    recorded_at: Annotated[str, column("When it was recorded.")] = ""
    changed_at: Annotated[str | None, column("When it was found changed.")] = None
    found: Annotated[
        str | None, column("Digest of what was there then instead; empty text: the file was gone.")
    ] = None


class Artifacts:
    """`artifacts`: what is recorded again under its name takes the place of what was."""

    name = "artifacts"
    version = 1
    scope: Scope = "runs"
    creates: frozenset[str] = frozenset()
    events: Events = events("artifact.recorded", "artifact.changed")
    table: Table = table(
        "artifacts", ArtifactRow, key=("run_id", "step", "name"), indexes=(Index(("digest",)),)
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        return ((entry.stream, event.step, event.name),)

    def fold(self, rows: list[ArtifactRow | None], entry: Entry, event: Any) -> Sequence[ArtifactRow | None]:
        if isinstance(event, w.ArtifactRecorded):
            row = ArtifactRow(entry.stream, event.step, event.name, event.attempt, event.digest, event.size)
            row.path, row.media_type, row.recorded_at = event.path, event.media_type, utc(event.at)
            return (row,)
        row = rows[0] or ArtifactRow(entry.stream, event.step, event.name, digest=event.expected)
        row.changed_at, row.found = utc(event.at), event.found
        return (row,)


ARTIFACTS = Artifacts()
