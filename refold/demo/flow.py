"""The demo's workflow: a release of Refold's own source, staged, compiled, archived, checked, approved."""

import asyncio
import hashlib
import os
import py_compile
import zipfile
from decimal import Decimal
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import anyio
from msgspec import Struct

from .. import engine, events, projections
from ..engine.bodies import record_cost
from ..engine.context import Context
from ..engine.step import Retry, step
from ..engine.workflow import workflow
from .effects import effect, perhaps_die

DESKS = 8
"""Files staged at once. When a body of `stage` begins, all but the last 7 before it are durable."""
COOLING_S = 1.0
USD_PER_MB = Decimal("0.02")
"""Made up, like the cost of a call to the registry."""
USD_PER_CALL = "0.001"

_DOOR = Path(__file__).resolve().parent.parent
_LAYERS = {
    layer.__name__.rpartition(".")[2]: Path(str(layer.__file__)).resolve().parent
    for layer in (events, projections, engine)
}


class Staged(Struct, frozen=True):
    """A file that was copied into the folder of the run."""

    name: str
    size: int
    sha256: str


class Archive(Struct, frozen=True):
    """The zip archive."""

    name: str
    size: int
    sha256: str
    files: int


class Approval(Struct, frozen=True):
    """Payload of the event `approve`."""

    approved: bool
    by: str = ""


class Release(Struct, frozen=True):
    """What the workflow returns."""

    released: bool
    archive: Archive
    files: int
    approved_by: str


@step
def list_sources(folder: str) -> list[str]:
    """Every source file of the installed package, by the name it has when installed."""
    with effect(folder):
        return sorted(_sources())


def _sources() -> dict[str, Path]:
    found = {}
    for name, folder in {"": _DOOR, **_LAYERS}.items():
        for path in (*folder.rglob("*.py"), *folder.rglob("*.sql")):
            inner = path.relative_to(folder)
            if name or inner.parts[0] not in _LAYERS:
                found["/".join(("refold", *filter(None, [name]), *inner.parts))] = path
    return found


def source_count() -> int:
    """How many files there are to stage."""
    return len(_sources())


def _source(name: str) -> Path:
    _, first, *rest = name.split("/")
    return _LAYERS[first].joinpath(*rest) if first in _LAYERS else _DOOR.joinpath(first, *rest)


@step
async def stage(folder: str, name: str) -> Staged:
    """Read a file, digest it, copy it."""
    with effect(folder) as info:
        data = await anyio.Path(_source(name)).read_bytes()
        perhaps_die(folder, info)
        target = anyio.Path(folder, "staged", name)
        await target.parent.mkdir(parents=True, exist_ok=True)
        await target.write_bytes(data)
        return Staged(name, len(data), hashlib.sha256(data).hexdigest())


@step
def byte_compile(folder: str, package: str, names: list[str]) -> int:
    """Compile the modules of one package; a `def`, so it runs in a thread."""
    with effect(folder):
        for name in names:
            target = Path(folder, "compiled", name + "c")
            target.parent.mkdir(parents=True, exist_ok=True)
            py_compile.compile(str(Path(folder, "staged", name)), str(target), name, doraise=True)
        return len(names)


@step(retry=Retry(max_attempts=4, initial_interval=0.3, backoff=2.0, jitter=0.0))
async def reserve_version(folder: str, version: str) -> str:
    """Ask a registry for the version. There is none: the first two calls fail, the third succeeds."""
    with effect(folder) as info:
        record_cost(USD_PER_CALL, detail={"call": info.attempt})
        if info.attempt < 3:
            raise ConnectionError("the registry does not answer (the demo lets it fail twice)")
        return f"refold-{version}"


@step
def build_archive(folder: str, name: str) -> Archive:
    """Zip what was staged and compiled: the same bytes in, the same bytes out."""
    with effect(folder):
        target, half = Path(folder, f"{name}.zip"), Path(folder, f"{name}.zip.half")
        paths = sorted(path for part in ("staged", "compiled") for path in Path(folder, part).rglob("*.*"))
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
        os.replace(half, target)
        data = target.read_bytes()
        record_cost(
            (USD_PER_MB * len(data) / 1_000_000).quantize(Decimal("0.00001")), detail={"bytes": len(data)}
        )
        return Archive(target.name, len(data), hashlib.sha256(data).hexdigest(), len(paths))


@step
def check_archive(folder: str, archive: Archive, staged: list[Staged]) -> int:
    """Read the archive back: checksums, the digests recorded by `stage`, compiled files of this Python."""
    with effect(folder), zipfile.ZipFile(Path(folder, archive.name)) as file:
        if (bad := file.testzip()) is not None:
            raise ValueError(f"{bad} is damaged")
        for source in staged:
            if hashlib.sha256(file.read(f"staged/{source.name}")).hexdigest() != source.sha256:
                raise ValueError(f"{source.name} is not what was staged")
            if source.name.endswith(".py") and file.read(f"compiled/{source.name}c")[:4] != MAGIC_NUMBER:
                raise ValueError(f"{source.name}c is not of this Python")
        return len(file.namelist())


@step(execution="at_most_once", on_unknown="fail")
def publish(folder: str, archive: Archive) -> str:
    """Put the archive where released ones are. An effect nobody wants twice: never repeated after a crash."""
    with effect(folder):
        target = Path(folder, "released")
        target.mkdir(exist_ok=True)
        os.replace(Path(folder, archive.name), target / archive.name)
        return f"released/{archive.name}"


@workflow
async def release(ctx: Context, folder: str, version: str) -> Release:
    """List, stage, compile, reserve, sleep, archive, check, wait for a person, publish."""
    names = await list_sources(folder)
    desks = asyncio.Semaphore(DESKS)

    async def stage_one(name: str) -> Staged:
        async with desks:
            return await stage(folder, name)

    staged = await asyncio.gather(*(stage_one(name) for name in names))
    async with asyncio.TaskGroup() as group:
        for package, modules in _by_package(names).items():
            group.create_task(byte_compile(folder, package, modules))
        reserved = group.create_task(reserve_version(folder, version))
    await asyncio.sleep(COOLING_S)
    archive = await build_archive(folder, reserved.result())
    await check_archive(folder, archive, staged)
    decision: Approval = await ctx.wait_for_event("approve", type=Approval)
    if decision.approved:
        await publish(folder, archive)
    return Release(decision.approved, archive, len(staged), decision.by)


def _by_package(names: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(".py"):
            found.setdefault(name.rpartition("/")[0], []).append(name)
    return found
