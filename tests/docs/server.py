"""A warm process that forks what pages show: `python -m tests.docs.server`.

A command costs a fork here and not the start of an interpreter, and is a process of its own all the same: it
can be killed, and what it imports stays in it. One JSON line in is a command, one out its process id; asked
after a process, it says how that ended, or null.
"""

import json
import os
import runpy
import signal
import sys
import traceback
import warnings
from typing import Any

import refold.cli.running  # noqa: F401 - warm: every child would import it
from refold.cli import main as refold_main

HANGS_S = 60


def obey(order: dict[str, Any]) -> None:
    """In the forked process: become the command."""
    signal.alarm(HANGS_S)
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)  # type: ignore[union-attr]
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    warnings.simplefilter("error")
    program, *arguments = order["command"]
    if program == "refold":
        sys.exit(refold_main(arguments))
    sys.argv = [program, *arguments]
    sys.path[0] = order["folder"]
    runpy.run_path(program, run_name="__main__")


def forked(order: dict[str, Any]) -> int:
    """The id of a process that does it, and unwinds nothing of this one."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        obey(order)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def ended(pid: int) -> int | None:
    """Its exit code, once."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    """Until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        answer = ended(order["ended"]) if "ended" in order else forked(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
