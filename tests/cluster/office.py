"""A warm process that forks the processes of cluster tests: `python -m tests.cluster.office`.

It has one thread, no event loop and no connection. Started from nothing, each worker would cost half a
second of CPU, and a storm starts hundreds. One JSON line in, one number out: the id of a new process, or
how one has ended.
"""

import gc
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path

import anyio._backends._asyncio  # noqa: F401 - warm: every child would import it

from refold.engine import _compat
from refold.engine.loop import Loop
from tests.cluster import cheats, observer, roles
from tests.crash.scene import Scene, enter

HANGS_S = 1_800


def fork(folder: Path, role: str, cheat: str, arguments: list[str]) -> int:
    """Play a role in a process that ends without unwinding anything of ours; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    scene = Scene(folder)
    try:
        signal.alarm(HANGS_S)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        logging.basicConfig(
            filename=folder / f"log-{role}-{os.getpid()}", format="%(asctime)s %(name)s %(message)s"
        )
        enter(scene)
        observer.install(scene)
        if cheat:
            cheats.BY_NAME[cheat]()
        roles.BY_NAME[role](scene, *arguments)
        code = 0
    except BaseException:
        scene.say("errors", traceback.format_exc())
    finally:
        os._exit(code)


def main() -> None:
    _compat.install(Loop)
    gc.freeze()
    members = set[int]()
    try:
        for line in sys.stdin:
            verb, *rest = json.loads(line)
            if verb == "hire":
                answer = fork(Path(rest[0]), *rest[1:])
                members.add(answer)
            else:
                _, status = os.waitpid(rest[0], 0)
                answer = os.waitstatus_to_exitcode(status)
                members.discard(rest[0])
            print(answer, flush=True)
    finally:
        for member in members:
            os.kill(member, signal.SIGKILL)
            os.waitpid(member, 0)


if __name__ == "__main__":
    main()
