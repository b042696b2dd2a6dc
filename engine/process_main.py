"""A process that runs the bodies of `@step(run_in="process")`, one at a time, for the engine that started it.

It speaks with the engine over one socket: frames of JSON, each behind its length. What bodies print goes to
a pipe that the engine reads. It ends with the engine: the socket does, and Linux sees to it besides.
"""

import ctypes
import faulthandler
import importlib
import logging
import os
import queue
import runpy
import signal
import socket
import sys
import threading
import types

import msgspec

from . import remote
from .process_frames import LENGTH, Prepare, send

PR_SET_PDEATHSIG = 1


class Modules:
    """The modules that bodies come from; the program's main module is one only when a body is in it."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._main_loaded = False
        sys.argv = prepare.argv

    def load(self, name: str) -> None:
        """Raises whatever importing it raises."""
        if name != "__main__":
            importlib.import_module(name)
        elif not self._main_loaded:
            with remote.loading_main(self._prepare.main_path or self._prepare.main):
                self._load_main()
            self._main_loaded = True

    def _load_main(self) -> None:
        said, loaded = self._prepare, types.ModuleType(remote.MAIN)
        run = runpy.run_path if said.main_path else runpy.run_module
        vars(loaded).update(run(said.main_path or said.main, run_name=remote.MAIN))
        sys.modules["__main__"] = sys.modules[remote.MAIN] = loaded


class Talk(logging.Handler):
    """The socket: calls come in; what bodies come to, put on record and log goes out."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock, self._sending = sock, threading.Lock()
        self.frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def tell(self, frame: remote.Frame) -> None:
        """Send a frame."""
        data = remote.encode(frame)
        with self._sending:
            send(self._sock, data)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on what a body logs: the engine's process knows where to."""
        self.tell(remote.Said(record.name, record.levelno, self.format(record)))

    def _read(self) -> None:
        with self._sock.makefile("rb") as stream:
            while len(head := stream.read(LENGTH.size)) == LENGTH.size:
                self.frames.put(stream.read(*LENGTH.unpack(head)))
        os._exit(0)  # the engine is gone, or wants no more of this process


def serve(fd: int, parent: int) -> None:
    """Run bodies until the engine, process `parent`, closes the socket."""
    if sys.platform == "linux":
        # The socket says it, too, but a body in C that keeps the interpreter to itself would not hear of it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGTERM, lambda *_: None)  # sent to a whole service, it is for the engine to drain
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.set_inheritable(fd, False)
    talk = Talk(socket.socket(fileno=fd))
    prepare = msgspec.json.decode(talk.frames.get(), type=Prepare)
    logging.basicConfig(level=prepare.log_level, handlers=[talk], format="%(message)s")
    modules = Modules(prepare)
    missing = _load(modules, prepare.module)
    talk.tell(remote.Ready())
    while True:
        call = remote.decode_call(talk.frames.get())
        if missing is None or prepare.module != call.module:
            missing = _load(modules, call.module)
        talk.tell(missing or remote.perform(call, talk.tell))
        missing = None


def _load(modules: Modules, name: str) -> remote.Failed | None:
    """Import it; what that raised, if it did."""
    try:
        modules.load(name)
    except BaseException as error:  # a script may end itself when it is imported
        return remote.failed(error)
    return None
