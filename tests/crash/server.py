"""A warm process that forks the processes of crash tests: `python -m tests.crash.server`.

It has one thread, no event loop and no connection, so forking it is safe (a test runner is none of that)
and a hundred times cheaper than starting an interpreter. One JSON line in is a case, one out its outcome.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio._backends._asyncio  # noqa: F401 - warm: every child would import it
import msgspec

import refold.engine.following
import refold.engine.starting
from refold.engine import _compat
from refold.engine.engine import Engine
from refold.engine.loop import Loop
from tests.crash import actors, cheats, checks
from tests.crash.actors import SEED, MortalStore, SyncedStore
from tests.crash.case import Case, Outcome
from tests.crash.letters import LETTERS
from tests.crash.model import ALL
from tests.crash.scene import Scene, enter

HANGS_S = 90


def forked(scene: Scene, child: Callable[[], None]) -> int:
    """Run it in a process that ends without unwinding anything of ours; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(HANGS_S)
        child()
        code = 0
    except BaseException:
        scene.say("errors", traceback.format_exc())
    finally:
        os._exit(code)


def await_end(pid: int) -> str:
    """Wait for a process; returns what went wrong, "killed", or nothing."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        died_of = signal.Signals(os.WTERMSIG(status))
        return {signal.SIGKILL: "killed", signal.SIGALRM: "hangs"}.get(died_of, f"died of {died_of.name}")
    return "" if os.WEXITSTATUS(status) == 0 else "failed"


def executor(
    case: Case,
    scene: Scene,
    last: bool,
    mail: "Mail | None" = None,
    opened: Callable[[], None] = lambda: None,
    make: Callable[..., Any] | None = None,
) -> None:
    """One process: look at what the one before left, execute, and look again when nobody dies any more.

    `make`: the mortal store, when it is not the file's.
    """
    enter(scene)
    refold.engine.starting.new_seed = lambda clock=None: SEED  # type: ignore[attr-defined]
    refold.engine.following.SWEEP_S = 0.01  # what other processes write is noticed at once
    refold.engine.following.POLL_S = refold.engine.following.IDLE_POLL_S = 0.004
    make = make or (SyncedStore if case.synced else MortalStore)
    if scene.has_log():
        left = make(scene)
        for problem in checks.at_any_time(scene, left):
            scene.say("problems", problem)
        checks.take_snapshot(scene, left)
        left.close()
    if case.cheat:
        cheats.BY_NAME[case.cheat]()
    store = make(scene, case.stranger, case.stranger_kind)
    if mail is not None:
        scene.at_moment = mail.at_moment
    try:
        asyncio.run(actors.execute(scene, case, store, mail, opened))
    except TimeoutError:
        for problem in checks.at_any_time(scene, store):
            scene.say("problems", problem)
        raise
    if last:
        scene.say("tally", scene.moments, store.commits, store.refused)
        reference = Path(case.reference) if case.reference else None
        if reference is not None and not reference.exists():
            reference.write_text(json.dumps(checks.normal_form(store)))
        for problem in checks.at_the_end(scene, store, reference):
            scene.say("problems", problem)
    store.close()


def play(case: Case) -> Outcome:
    """Fork one process after the other until the run has ended."""
    folder = Path(case.folder)
    folder.mkdir(parents=True)
    problems: list[str] = []
    postman = Postman(Scene(folder), case) if case.letters_at else None
    for kill_at in (*case.kills, 0):
        scene = Scene(folder, kill_at)
        mail = Mail(scene, postman, case.letters_at) if postman is not None else None
        end = await_end(forked(scene, partial(executor, case, scene, not kill_at, mail)))
        if end and not (end == "killed" and kill_at):
            problems.append(f"a process that was to die at {kill_at}: {end}")
            break
    if postman is not None:
        postman.close()
    scene = Scene(folder)
    problems += [line[0] for file in ("problems", "errors") for line in scene.heard(file)]
    moments, commits, refused = (scene.heard("tally") or [[0, 0, 0]])[-1]
    results = [rest[0] for what, *rest in scene.heard("acks") if what == "result"]
    return Outcome(
        problems=problems, deaths=[line[0] for line in scene.heard("deaths")], moments=moments,
        commits=commits, refused=refused, result=results[-1] if results else None,
    )  # fmt: skip


class Postman:
    """A process beside the executing ones that writes to the run when it is told to."""

    def __init__(self, scene: Scene, case: Case) -> None:
        self._letters = LETTERS[case.script or case.flow]
        self._cheat = case.cheat
        self._orders, self._give = os.pipe()
        self._receipts, self._acknowledge = os.pipe()
        self._pid = forked(scene, partial(self._serve, scene))

    def _serve(self, scene: Scene) -> None:
        os.close(self._give)
        if self._cheat:
            cheats.BY_NAME[self._cheat]()
        while number := os.read(self._orders, 1):
            done = asyncio.run(self._post(scene, int(number)))
            os.write(self._acknowledge, b"." if done else b"-")

    async def _post(self, scene: Scene, number: int) -> bool:
        async with Engine(scene.store_path, execute=False) as engine:
            return await self._letters[number - 1](engine, scene)

    def order(self, number: int) -> bool:
        """Have a letter sent; returns when that is acknowledged. False: it was too early for it."""
        os.write(self._give, str(number).encode())
        return os.read(self._receipts, 1) == b"."

    def close(self) -> None:
        """End the process."""
        for fd in (self._give, self._receipts, self._acknowledge, self._orders):
            os.close(fd)
        await_end(self._pid)


class Mail:
    """When one executing process has letters sent."""

    def __init__(self, scene: Scene, postman: Postman, moments: tuple[int, ...]) -> None:
        self._scene, self._postman, self._moments = scene, postman, moments
        self._one = threading.Lock()
        """Slow commits are made in a thread, and have moments, too."""

    def at_moment(self, label: str) -> None:
        """Send what is due; the process waits meanwhile, so the letter arrives at this very moment."""
        if label.startswith("inside"):
            return  # the sender would wait for our lock, and we for its receipt
        with self._one:
            self._send_due()

    def _send_due(self) -> None:
        while (sent := self._sent()) < len(self._moments) and self._scene.moments >= self._moments[sent]:
            if not self._scene.ask("SELECT 1 FROM stored_events LIMIT 1"):
                return  # nobody can write to a run that does not exist yet
            self._send(sent + 1)
            if self._sent() == sent:
                return

    async def send_next(self) -> bool:
        """Have the next letter sent, if it is not too early; False: there is none left."""
        with self._one:
            if (sent := self._sent()) == len(self._moments):
                return False
            self._send(sent + 1)
            return True

    def _send(self, number: int) -> None:
        if self._postman.order(number):
            self._scene.say("sent", number)

    def _sent(self) -> int:
        return len(self._scene.heard("sent"))


def warm_up() -> None:
    """What every child would do for itself, as far as it needs no loop, no thread and no connection."""
    _compat.install(Loop)
    for flow in ALL:
        assert flow.runtime


def main() -> None:
    logging.disable(logging.WARNING)  # refused appends and rebuilds are what we are here for
    warm_up()
    gc.freeze()
    decoder = msgspec.json.Decoder(Case)
    for line in sys.stdin:
        print(msgspec.json.encode(play(decoder.decode(line))).decode(), flush=True)


if __name__ == "__main__":
    main()
