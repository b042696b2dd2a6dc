"""Files and other results of a run that are not its values: kept by digest, and looked at again later.

A content given as bytes goes to the store, beside large values. A file stays where it is: the log has its
path and digest, and says so when it is another one the next time somebody takes the run up.
"""

import asyncio
import os
import re
from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from ..events import codec, types as t
from ..events.errors import ConfigurationError, ValueRefused
from .names import check_name, check_text

ARTIFACTS, LOGS = "artifacts", "logs"
NO_FOLDER = "its folders cannot be made"
"""So begins the reason why a run failed before it began."""
_PLAIN = re.compile(r"[\w@+=, -][\w@+=, .~-]{0,199}", re.ASCII)


class Artifact(Struct, frozen=True):
    """A file, or some bytes, that a step has left; a step may return it."""

    name: str
    """As the step has called it."""
    path: str
    """Absolute; empty: the content is in the store, under its digest."""
    sha256: str
    """Of the content, in hex."""
    size: int
    """Bytes."""


# ---- folders


def root(files: str) -> str:
    """The folder as the log has it: the same wherever a later process is started."""
    return os.path.abspath(files) if files else ""


def folder(files: str, kind: str, run_id: str) -> Path:
    """The run's folder of a kind. Raises `ConfigurationError` when the run has none."""
    if not files:
        raise ConfigurationError(
            f"run {run_id} has no {kind} folder: it was started without one; give Engine(…, "
            "settings=Settings(files=FOLDER)) before a run is started"
        )
    name = run_id
    if not _PLAIN.fullmatch(run_id):  # `..`, long names in other scripts, what some systems have no files for
        name = f"{quote(run_id, safe=' ')[:120].lstrip('.')}-{sha256(run_id.encode()).hexdigest()[:16]}"
    return Path(files, kind, name)


def prepare(run: Any) -> None:
    """Make the run's folders before its handler begins. Raises `ConfigurationError`: the run fails at once.

    On replay what was recorded counts: the disk may be another one by now.
    """
    files = run.started.files
    if not files:
        return
    if run.matching:
        failed = run.recorded(t.RunFailed)
        if failed is not None and NO_FOLDER in failed.error.message:
            raise ConfigurationError(failed.error.message)
        return
    for kind in (ARTIFACTS, LOGS):
        path = folder(files, kind, run.run_id)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"run {run.run_id}: {NO_FOLDER}: {path}: {error.strerror or error}; mend that, or "
                "Settings.files, and retry the run"
            ) from None


# ---- what a body keeps


def measured(
    base: Path | None, name: str, path: "str | os.PathLike[str] | None", data: bytes | None, media_type: str
) -> tuple[Artifact, dict[str, Any], tuple[tuple[str, bytes], ...]]:
    """An artifact, the fields of its event, and the contents to store. `base`: where relative paths begin.

    Raises `ConfigurationError`, `ValueRefused` for too many bytes, `OSError` for a file that cannot be read.
    """
    check_name(name, "artifact name")
    check_text(media_type, "media type")
    if (path is None) == (data is None):
        raise ConfigurationError(f"artifact({name!r}): expected either path= or data=")
    contents: tuple[tuple[str, bytes], ...] = ()
    if path is not None:
        file = Path(base or "", path).absolute()
        digest, size = digest_of(file)
        made = Artifact(name, str(file), digest, size)
    else:
        content = _content(name, data)
        made = Artifact(name, "", sha256(content).hexdigest(), len(content))
        contents = ((made.sha256, content),)
    fields = {"name": name, "digest": made.sha256, "size": made.size, "path": made.path}
    return made, {**fields, "media_type": media_type}, contents


def _content(name: str, data: Any) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigurationError(f"artifact({name!r}, data=…): expected bytes, got {type(data).__name__}")
    content = bytes(data)
    if len(content) > codec.MAX_BYTES:
        raise ValueRefused(
            f"artifact {name!r} has {len(content):,} bytes, the limit is {codec.MAX_BYTES:,}: "
            "write it to a file and give its path"
        )
    return content


def digest_of(file: Path) -> tuple[str, int]:
    """SHA-256, in hex, and size of a file. Raises `OSError`."""
    with file.open("rb") as opened:
        digest = file_digest(opened, "sha256").hexdigest()
        return digest, opened.tell()


# ---- looking again


class Kept:
    """The files of one run, folded from its log."""

    def __init__(self) -> None:
        self.files: dict[str, t.ArtifactRecorded] = {}
        """By path, as they were recorded last."""
        self.told: set[tuple[str, str, str]] = set()
        """Name, expected and found digest of the changes that are in the log already."""

    def add(self, event: t.Event) -> None:
        """The run's next fact about a file."""
        if isinstance(event, t.ArtifactRecorded) and event.path:
            self.files[event.path] = event
        elif isinstance(event, t.ArtifactChanged):
            self.told.add((event.name, event.expected, event.found))

    async def changes(self) -> list[dict[str, Any]]:
        """Fields of `artifact.changed` for files that are no longer what they were; each state once."""
        if not self.files:
            return []
        found = await asyncio.to_thread(_digests, list(self.files))
        changed = [
            {"step": each.step, "name": each.name, "expected": each.digest, "found": now}
            for each, now in zip(self.files.values(), found, strict=True)
            if now != each.digest and (each.name, each.digest, now) not in self.told
        ]
        return changed


def _digests(paths: Iterable[str]) -> list[str]:
    found = []
    for path in paths:
        try:
            found.append(digest_of(Path(path))[0])
        except OSError:  # gone, or not to be read: not what it was in either case
            found.append("")
    return found
