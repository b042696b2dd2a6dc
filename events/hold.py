"""Who executes the runs of a store: one process at a time, known by an operating-system lock on a file.

The lock belongs to the process, so it is free again the moment the process dies, kill -9 included. To
take over from a holder that hangs and cannot be killed, remove the lock file: the next one to come
makes a new file and holds that. The old one is fenced all the same, for every run it still believes in
has been claimed at a version it does not expect.
"""

import errno
import fcntl
import json
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from .clock import SystemClock, to_datetime
from .errors import StoreBusy, StoreError, StoreFull, StoreReadOnly

_Key = tuple[int, int]

# POSIX locks are per process: a second lock() in this process would succeed, and closing any second
# descriptor of the file would drop the lock. So the locks of this process are remembered by inode, and
# the file is not even opened while one of them is held here.
_held: dict[_Key, str] = {}
_guard = threading.Lock()


def _forget() -> None:
    """A forked child holds nothing: these locks are not inherited."""
    global _guard
    _held.clear()
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_forget)


class Holder(Struct, frozen=True):
    """The process that executes a store, by its own account."""

    owner: str = ""
    """As `run.claimed` names it; all of this is empty when it has not said so yet."""
    pid: int = 0
    host: str = ""
    since: str = ""


def this_process(owner: str) -> Holder:
    """This process, as it names itself when it begins to execute a store."""
    since = to_datetime(SystemClock().now()).isoformat(timespec="seconds")
    return Holder(owner, os.getpid(), os.uname().nodename, since)


def holder_of(path: Path) -> Holder | None:
    """Who holds this lock file now; None: nobody. It is asked for, never taken, not even for a moment."""
    with _guard:
        note = _held.get(_inode(path))
        if note is None:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                if not _is_locked(fd):
                    return None  # what stands in the file is of a process that was killed
                note = os.pread(fd, 4096, 0).decode(errors="replace")
            finally:
                os.close(fd)  # drops no lock of ours: the file is none that we hold
    try:
        return msgspec.json.decode(note, type=Holder)
    except msgspec.DecodeError:
        return Holder()


def _is_locked(fd: int) -> bool:
    """Whether another process holds a lock that would stand in the way of reading."""
    kind: int
    if sys.platform == "darwin":  # struct flock: where, how long, who, which kind, counted from
        asked = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("qqihh", 0, 0, 0, fcntl.F_RDLCK, os.SEEK_SET))
        kind = struct.unpack_from("qqih", asked)[3]
    else:
        asked = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        kind = struct.unpack_from("h", asked)[0]
    return kind != fcntl.F_UNLCK


def _inode(path: Path) -> _Key:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)


class Hold:
    """The lock of one store. `acquire` and `release`, both idempotent where it makes sense."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._key: _Key = (0, 0)
        self._pid = 0

    def acquire(self, owner: str) -> None:
        """Take the lock or raise `StoreBusy` with the name of the holder."""
        note = json.dumps(asdict(this_process(owner)))
        try:
            while not self._try(note):
                pass
        except OSError as error:
            raise self._typed(error) from error

    def _try(self, note: str) -> bool:
        with _guard:
            if (key := _inode(self.path)) in _held:
                raise self._busy(_held[key])
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stat = os.fstat(fd)
                if _inode(self.path) != (stat.st_dev, stat.st_ino):
                    os.close(fd)  # somebody removed the file in between: what we hold is nobody's lock
                    return False
                os.ftruncate(fd, 0)
                os.write(fd, note.encode())
            except OSError as error:
                text = os.pread(fd, 4096, 0).decode(errors="replace")
                os.close(fd)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise self._busy(text) from None
                raise
            self._fd, self._key, self._pid = fd, (stat.st_dev, stat.st_ino), os.getpid()
            _held[self._key] = note
            return True

    def _busy(self, note: str) -> StoreBusy:
        try:
            holder = "{owner} (pid {pid} on {host}, since {since})".format(**json.loads(note))
        except (ValueError, KeyError, TypeError):
            holder = "another process"
        return StoreBusy(
            f"{self.path} is held by {holder}; only one process at a time executes the runs of a store: "
            "stop that one first, or, if it hangs for good, remove this file and start again",
            holder,
        )

    def _typed(self, error: OSError) -> StoreError:
        what = f"cannot lock {self.path}: {error.strerror}"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return StoreReadOnly(f"{what}; whoever executes runs needs write permission there")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(f"{what}; free some space")
        return StoreError(f"{what}; give a store on a file system that can lock files")

    @property
    def held(self) -> bool:
        """Whether the lock is ours, and the file we locked is still the one that others would lock."""
        return self._fd >= 0 and self._pid == os.getpid() and _inode(self.path) == self._key

    def release(self) -> None:
        """Let go, if held by this process."""
        with _guard:
            fd, self._fd = self._fd, -1
            if fd < 0:
                return
            if self._pid == os.getpid():
                _held.pop(self._key, None)
                os.ftruncate(fd, 0)
            os.close(fd)


def executor_of(store: Any) -> Holder | None:
    """The process that executes a store now; None: there is none. What it knows of itself may be empty."""
    ask: Callable[[], Holder | None] = getattr(store, "holder", Holder)
    return ask()
