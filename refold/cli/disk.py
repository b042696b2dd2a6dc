"""What `refold doctor` looks at where a store lies: the file system, room, how long a durable write takes."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from .finding import Finding
from .text import seconds, size

NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs",
    "gfs2", "glusterfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "vboxsf", "virtiofs",
}  # fmt: skip
"""File systems whose locks and shared memory SQLite's write-ahead log cannot rely on."""
GONE = {"tmpfs": "a reboot", "ramfs": "a reboot", "overlay": "its container", "aufs": "its container"}
LITTLE_BYTES, TOO_LITTLE_BYTES = 1_000_000_000, 50_000_000
SLOW_S = 0.02
TOO_FAST_S = 20e-6
"""No medium answers in this time: something in between answers for it."""
SYNCS = 12
MOUNTS = Path("/proc/self/mountinfo")


def check_disk(folder: Path) -> Iterator[Finding]:
    """Of the folder that a store is in, or is to be in."""
    yield _file_system(folder)
    yield _room(folder)
    yield _latency(folder)


def _file_system(folder: Path) -> Finding:
    try:
        kind = file_system(folder, MOUNTS.read_text())
    except OSError:
        return Finding("file system", "unknown", "this system does not say which one it is")
    if kind in NETWORK:
        advice = "put the store on a local disk: over a network, locks fail and a file can be destroyed"
        return Finding("file system", "warning", f"{kind}, a file system over a network", advice)
    if kind in GONE:
        return Finding(
            "file system", "warning", f"{kind}: it goes away with {GONE[kind]}", "use a volume that stays"
        )
    return Finding("file system", "ok", kind or "of an unknown kind")


def file_system(folder: Path, mounts: str) -> str:
    """Kind of the mount that a folder is on; `mounts` as Linux lists them."""
    place, best, kind = str(folder.resolve()), -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), left.split(" ")[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), right.split(" ")[0]
    return kind


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:,.1f} GB free" if free >= LITTLE_BYTES else f"{size(free)} free"
    if free < TOO_LITTLE_BYTES:
        return Finding("room", "broken", found, "make room: appends will wait, and nothing goes on")
    if free < LITTLE_BYTES:
        return Finding("room", "warning", found, "make room before the disk is full")
    return Finding("room", "ok", found)


def _latency(folder: Path) -> Finding:
    """How long an fsync takes, which is what a step costs: one commit each."""
    try:
        took = _measured(folder)
    except OSError as error:
        return Finding("durable write", "unknown", f"cannot be measured here: {error.strerror}")
    found = f"{seconds(took)}, so some {min(1 / max(took, 1e-6), 1e6):,.0f} commits a second at most"
    if took > SLOW_S:
        return Finding(
            "durable write", "warning", found, "a slow or busy disk: every step waits for one of these"
        )
    if took < TOO_FAST_S:
        advice = (
            "faster than any disk: a power cut may take back what was acknowledged; is it memory, or a cache?"
        )
        return Finding("durable write", "warning", found, advice)
    return Finding("durable write", "ok", found)


def _measured(folder: Path) -> float:
    took: list[float] = []
    with tempfile.TemporaryFile(dir=folder, prefix=".refold-doctor-") as file:
        for _ in range(SYNCS):
            begin = perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(perf_counter() - begin)
    return median(took)
