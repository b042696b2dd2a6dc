"""Processes to kill: a warm one that has imported the workflow forks one for each part of a case.

It reads JSON lines, first what to import, then cases, and answers each with one line. It has one thread, no
event loop and no connection, so forking it is safe, as a test runner may not be.
"""

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import msgspec

from ..engine import _compat
from ..engine.loop import Loop
from ..engine.workflow import Workflow
from ..events.errors import ConfigurationError
from .crash_case import Outcome, Played, play

HANGS_S = 60


class Server:
    """The test's side."""

    def __init__(self, what: Played, folder: Path) -> None:
        parts = {"flow": what.flow, "prepare": what.prepare, "observe": what.observe}
        said = {name: None if part is None else _place(part) for name, part in parts.items()}
        said |= {"args": json.loads(bytes(what.flow.encode_args(tuple(what.args)))), "path": sys.path}
        self._folder, self._cases = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from refold.testing.crash_server import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._say(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=HANGS_S)

    def play(self, before: int, after: int) -> Outcome:
        """One case: a process that is killed, and one that goes on."""
        self._cases += 1
        self._say({"folder": str(self._folder / str(self._cases)), "before": before, "after": after})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ConfigurationError("the process that imports the workflow ended; its output says why")
        answer = json.loads(line)
        if "error" in answer:
            raise ConfigurationError(
                f"the run could not be played in a process of its own:\n{answer['error']}"
            )
        return msgspec.convert(answer, Outcome)

    def _say(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: whoever waits for its answer says so
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()


def _place(part: Any) -> list[str]:
    """Module, file and name, by which another process finds it."""
    function = part.functions[0] if isinstance(part, Workflow) else part
    module = sys.modules.get(getattr(function, "__module__", ""))
    if module is not None and (file := getattr(module, "__file__", None)):
        for name, value in vars(module).items():
            if value is part:
                return [module.__name__, file, name]
    raise ConfigurationError(
        f"durable_crash(kill=True): {part!r} cannot be found from another process; define it at the top of a "
        "module, or leave kill=True out"
    )


# ---- the other side


def _find(place: list[str] | None) -> Any:
    if place is None:
        return None
    name, file, attribute = place
    return getattr(sys.modules.get(name) or _load(name, file), attribute)


def _load(name: str, file: str) -> ModuleType:
    """By its name if that leads to the file, as a test runner would load it otherwise."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin == file:
        return importlib.import_module(name)
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def _forked(folder: Path, what: Played, before: int, after: int, second: bool) -> int:
    """Play in a process that ends without unwinding anything of ours; its wait status."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.alarm(HANGS_S)
            case = play(what, folder, before=before, after=after, kill=bool(before or after), second=second)
            (folder / "outcome").write_bytes(msgspec.json.encode(asyncio.run(case)))
            code = 0
        except BaseException:
            (folder / "error").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def _answer(folder: Path, what: Played, before: int, after: int) -> str:
    folder.mkdir(parents=True)
    status = _forked(folder, what, before, after, False)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        status = _forked(folder, what, 0, 0, True)
    if status:
        error = folder / "error"
        why = error.read_text() if error.exists() else f"wait status {status}: it hangs"
        return json.dumps({"error": why})
    return (folder / "outcome").read_text()


def _warm_up(what: Played | None) -> None:
    """What every child would do for itself, as far as it needs no loop, no thread and no connection."""
    importlib.import_module("anyio._backends._asyncio")
    _compat.install(Loop)
    if what is not None:
        assert what.flow.runtime
    gc.freeze()


def main() -> None:
    """Import, then play case after case."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what workflows print must not look like an answer
    said = json.loads(sys.stdin.readline())
    sys.path[:] = said["path"]
    what: Played | None = None
    failure = ""
    try:
        flow = _find(said["flow"])
        args = flow.decode_args(msgspec.Raw(json.dumps(said["args"]).encode()))
        what = Played(
            flow=flow, args=args, prepare=_find(said["prepare"]),
            observe=_find(said["observe"]),
        )  # fmt: skip
    except Exception:
        failure = traceback.format_exc()
    _warm_up(what)
    for line in sys.stdin:
        case = json.loads(line)
        if what is None:
            print(json.dumps({"error": failure}), file=answers, flush=True)
        else:
            answer = _answer(Path(case["folder"]), what, case["before"], case["after"])
            print(answer, file=answers, flush=True)
