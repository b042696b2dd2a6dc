"""The processes of `@step(run_in="process")`: started when needed, used again, killed when nobody waits.

Not `multiprocessing` or `concurrent.futures`: they pickle what they send, and neither can end one task. Each
slot is a thread that owns at most one process and waits for it, so a slow pipe never holds up the loop.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

import msgspec

from . import remote
from .process_frames import EXECUTABLE_SAYS, LENGTH, Prepare, send

READY_S = 120.0
"""How long a process may take to import what it needs."""
LOOK_S = 1.0
"""Between two looks at whether a silent process lives: what it started may keep its socket open after it."""
CLOSE_S = 5.0
"""How long `close` waits for processes that it has killed."""
LAST_LINES = 60
"""Of what a process printed, kept for the case that it dies."""

_log = logging.getLogger("refold.process")


class ProcessDied(Exception):
    """The process of an attempt ended before the body did; `said` is what it printed last."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class Job:
    """One call for a process. `began` is decided once, under the pool's lock."""

    def __init__(self, call: remote.Call, began: Callable[[], None], record: Callable[[remote.Record], None]):
        self.call, self.payload = call, remote.encode(call)
        self.on_begin, self.on_record = began, record
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[remote.Done | remote.Failed] = self.loop.create_future()
        self.began = self.given_up = False
        self.process: Process | None = None

    def settle(self, end: remote.Done | remote.Failed | Exception) -> None:
        """Hand it to whoever awaits the future, if somebody does."""
        if self.future.done():
            return
        if isinstance(end, Exception):
            self.future.set_exception(end)
        else:
            self.future.set_result(end)


class Processes:
    """Up to `limit` processes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._spare = 0
        """Slots that wait for a job, less the jobs that wait for a slot."""
        self._slots: list[threading.Thread] = []
        self._processes: set[Process] = set()
        self._closed = False

    def run(
        self, call: remote.Call, began: Callable[[], None], record: Callable[[remote.Record], None]
    ) -> Job:
        """Make the call in a process. `began` and `record` are called on the loop."""
        job = Job(call, began, record)
        with self._lock:
            self._spare -= 1
            if self._spare < 0 and len(self._slots) < self._limit:
                self._spare += 1
                name = f"refold-process-{len(self._slots) + 1}"
                slot = threading.Thread(target=self._work, name=name, daemon=True)
                self._slots.append(slot)
                slot.start()
        self._jobs.put(job)
        return job

    def give_up(self, job: Job) -> None:
        """Nobody waits for the job: it never begins, or its process is killed."""
        with self._lock:
            job.given_up = True
            if job.process is not None:
                job.process.kill()

    def close(self) -> None:
        """Begin nothing more, and kill all processes: what is still to be waited for was waited for."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
            for _ in self._slots:
                self._jobs.put(None)
        for slot in self._slots:
            slot.join(CLOSE_S)

    # ---- a slot

    def _work(self) -> None:
        process: Process | None = None
        while (job := self._jobs.get()) is not None:
            if not job.given_up:
                process, end = self._perform(job, process)
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    job.loop.call_soon_threadsafe(job.settle, end)
            with self._lock:
                self._spare += 1
        if process is not None:
            self._bury(process)

    def _perform(
        self, job: Job, process: "Process | None"
    ) -> "tuple[Process | None, remote.Done | remote.Failed | Exception]":
        """What the job comes to, and the process for the next one."""
        try:
            if process is None or not process.alive:
                if process is not None:
                    self._bury(process)
                process = self._start(job)
            with self._lock:
                if job.given_up or self._closed:
                    return process, ProcessDied("nobody waits for it any more")
                job.process, job.began = process, True
            try:
                return process, process.perform(job)
            finally:
                with self._lock:
                    job.process = None
        except Exception as error:  # handed over to whoever awaits the future
            if process is not None and not isinstance(error, msgspec.MsgspecError):
                self._bury(process)
                process = None
            return process, error

    def _start(self, job: Job) -> "Process":
        process = Process()
        with self._lock:
            self._processes.add(process)
            if self._closed:
                process.kill()
        try:
            process.prepare(job)
        except BaseException:
            self._bury(process)
            raise
        return process

    def _bury(self, process: "Process") -> None:
        with self._lock:
            self._processes.discard(process)
        process.end()


class Process:
    """One process, from the side of the thread that owns it; `kill` from any thread."""

    def __init__(self) -> None:
        if not sys.executable:
            raise ProcessDied("this program has no Python interpreter that could be started again")
        self._socket, theirs = socket.socketpair()
        self._job: Job | None = None
        self._said: deque[str] = deque(maxlen=LAST_LINES)
        self._killed = False
        self._ending = threading.Lock()
        code = EXECUTABLE_SAYS.format(path=sys.path, fd=theirs.fileno(), parent=os.getpid())
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                process_group=0,  # what the body starts is killed with it; no Ctrl-C: the engine drains
            )  # fmt: skip
        self._socket.settimeout(LOOK_S)
        assert self._popen.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._popen.stdout,), daemon=True)
        self._listener.start()

    @property
    def alive(self) -> bool:
        """Whether it can take one more call."""
        with self._ending:
            return not self._killed and self._popen.poll() is None

    def prepare(self, job: Job) -> None:
        """Wait until it has imported what it needs. Raises `ProcessDied`."""
        main = sys.modules.get("__main__")
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        said = Prepare(
            module=job.call.module, main=spec.name if spec is not None else "",
            main_path=os.path.abspath(path) if path and spec is None else "", argv=sys.argv,
            log_level=logging.getLogger().getEffectiveLevel(),
        )  # fmt: skip
        self._job = job
        timer = threading.Timer(READY_S, self.kill)
        timer.daemon = True
        timer.start()
        try:
            self._send(remote.encode(said))
            self._next()
        except ProcessDied as died:
            died.add_note(f"It was importing {said.module}, for which it has {READY_S:.0f} s.")
            raise
        finally:
            timer.cancel()

    def perform(self, job: Job) -> remote.Done | remote.Failed:
        """Run a body in it. Raises `ProcessDied`."""
        self._job = job
        self._said.clear()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            job.loop.call_soon_threadsafe(job.on_begin)
        self._send(job.payload)
        while True:
            frame = self._next()
            if isinstance(frame, remote.Done | remote.Failed):
                return frame
            if isinstance(frame, remote.Record):
                with contextlib.suppress(RuntimeError):
                    job.loop.call_soon_threadsafe(job.on_record, frame)

    def kill(self) -> None:
        """End it now, with what it has started; whoever reads from it wakes up."""
        with self._ending:
            if self._killed:
                return
            self._killed = True
            if self._popen.returncode is None:  # until it is waited for nobody else can get its number
                with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended by itself
                    os.killpg(self._popen.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Kill it and wait for its end."""
        self.kill()
        self._popen.wait()
        self._socket.close()
        self._listener.join(LOOK_S)  # what outlives it may keep its pipe open

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(None)
            send(self._socket, data)
        except OSError:
            raise self._died() from None
        finally:
            self._socket.settimeout(LOOK_S)

    def _next(self) -> remote.Frame:
        """The next frame that is not for the log."""
        while True:
            (length,) = LENGTH.unpack(self._receive(LENGTH.size))
            frame = remote.decode_frame(self._receive(length))
            if not isinstance(frame, remote.Said):
                return frame
            self._hand_on(frame.logger, frame.level, frame.message)

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            try:
                count = self._socket.recv_into(view[got:])
            except TimeoutError:
                if self.alive:
                    continue
                count = 0
            except OSError:
                count = 0
            if not count:
                raise self._died()
            got += count
        return data

    def _died(self) -> ProcessDied:
        self.kill()
        code = self._popen.wait()
        self._listener.join(LOOK_S)
        if code >= 0:
            how = f"it ended by itself with exit code {code}"
        else:
            name = signal.Signals(-code).name
            how = f"it was killed by {name}"
            if name == "SIGKILL":
                how += ", as by the system when memory runs out"
        return ProcessDied(f"the process of the attempt is gone: {how}", "\n".join(self._said))

    # ---- what it says

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode(errors="replace").rstrip("\n")
                self._said.append(text)
                self._hand_on(_log.name, logging.INFO, text)

    def _hand_on(self, name: str, level: int, message: str) -> None:
        """To `logging`, as if the body had said it here."""
        logger = logging.getLogger(name)
        if name == _log.name and not logger.hasHandlers():
            print(message, file=sys.stderr)  # no logging is set up: what is printed shows all the same
            return
        if logger.isEnabledFor(level):
            context = contextvars.copy_context() if self._job is None else self._job.context.copy()
            context.run(logger.log, level, "%s", message)
