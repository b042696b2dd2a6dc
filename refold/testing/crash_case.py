"""One crash of one run: played on a real file, and what came of it."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, json as msgspec_json

from ..engine.bodies import Body
from ..engine.settings import Settings
from ..engine.workflow import Workflow
from ..events import types as t
from ..events.errors import RefoldError, StoreError
from ..events.sqlite import SQLiteStore
from ..events.sqlite_file import File
from ..events.store import Store
from ..projections.own import fold_run, fold_steps
from .engine import TestEngine

_OF_RUN = ("run_id", "workflow", "status", "result", "error_type", "error_message")
_OF_STEP = ("status", "args", "kwargs", "result", "error_type", "error_message")
RUN = "run"
"""Id of the run."""
PATIENCE_S = 0.2
ALL = 1_000_000

Prepare = Callable[[TestEngine], object]
Observe = Callable[[], Any]


class Outcome(Struct, kw_only=True):
    """What came of a case."""

    runs: list[Any]
    """`[run, workflow, status, result, error]` of the run and its children."""
    steps: dict[str, Any]
    """Of each step, by run and key: its last row."""
    seen: Any
    """What `observe` returned."""
    begun: list[tuple[int, str, int, str]]
    """Bodies that began: after how many crashes, and of which run, step and key."""
    ended: list[tuple[str, int]]
    """Steps that were over when the crash came."""
    problems: list[str]
    events: int
    commits: list[int]
    tags: list[str]
    crashed: bool


class Played(Struct, kw_only=True):
    """What to play."""

    flow: Any
    args: Sequence[Any]
    prepare: Prepare | None = None
    observe: Observe | None = None


class _QuickFile(File):
    """Not synced to the disk: a killed process leaves its writes with the kernel."""

    synchronous = "OFF"


class _QuickStore(SQLiteStore):
    file_class: type[File] = _QuickFile


class CrashEngine(TestEngine):
    """A `TestEngine` on a file; `kill`: its crash is one of the whole process."""

    def __init__(self, folder: Path, flow: Workflow[Any, Any], kill: bool, strict: bool) -> None:
        # The scan of a handler is a fifth of a case; what it finds it has found in the run without a crash.
        settings = Settings(projections=False, determinism="strict" if strict else "off")
        super().__init__(folder / "run.db", workflows=[flow], patience=PATIENCE_S, settings=settings)
        self._folder, self._kill = folder, kill
        self.ended: list[tuple[str, int]] = []
        self.on_start = self._note

    def _open_place(self) -> Store:
        return _QuickStore(self._folder / "run.db")

    def _note(self, body: Body) -> None:
        line = json.dumps([self.crashes, body.run_id, body.command.number, body.command.key])
        fd = os.open(self._folder / "begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, line.encode() + b"\n")  # at once: a killed process has no later
        os.close(fd)

    def _died(self) -> None:
        if self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._died()

    def _start_anew(self, ends: Any) -> None:
        super()._start_anew(ends)
        self.look_at_what_is_left()

    def look_at_what_is_left(self) -> None:
        """Which steps are over."""
        over = (t.StepCompleted, t.StepFailed, t.StepSkipped, t.StepCancelled)
        rows = [row for row in self.store.scan(0, ALL) if row.tag.startswith("step.")]
        self.ended = [(row.stream, event.step) for row in rows if isinstance(event := row.event(), over)]


async def play(
    what: Played, folder: Path, *, before: int = 0, after: int = 0, kill: bool = False, second: bool = False
) -> Outcome:
    """Play a case in this process; `second`: the one before was killed."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    engine = CrashEngine(folder, what.flow, kill, strict=not (before or after or second))
    engine.crashes = int(second)
    with contextlib.chdir(folder / "work"):
        if what.prepare is not None:
            what.prepare(engine)
        async with engine:
            if second:
                engine.look_at_what_is_left()
            if before:
                engine.crash_before(before)
            if after:
                engine.crash_after(after)
            problems = await _to_its_end(engine, what)
            await engine.settle()
            outcome = _outcome(engine, folder, problems)
        if what.observe is not None:
            outcome.seen = _plain(what.observe())
    return outcome


async def _to_its_end(engine: CrashEngine, what: Played) -> list[str]:
    chance = engine.time.state()
    try:
        handle = await engine.start(what.flow, *what.args, id=RUN)
    except StoreError:  # it crashed before the start was durable: whoever asked for it asks again
        await engine.alive()
        engine.time.restore(chance)
        handle = await engine.start(what.flow, *what.args, id=RUN)
    try:
        await handle.result()
    except RefoldError as error:
        if handle.status()["status"] in ("waiting", "running", "pending", "paused"):
            return ["the run does not go on: " + str(error).replace("\n", "\n      ")]
    return []


def _outcome(engine: CrashEngine, folder: Path, problems: list[str]) -> Outcome:
    runs: list[Any] = []
    steps: dict[str, Any] = {}
    for work, _ in engine.store.all_work():
        rows = engine.store.read(work.run_id)
        row = fold_run(rows)
        runs.append([row[name] for name in _OF_RUN])
        for step in fold_steps(rows):
            if not step["superseded"]:
                steps[f"{step['key']} of {work.run_id}"] = {name: step[name] for name in _OF_STEP}
    problems += [f"the log is damaged: {problem}" for problem in engine.verify().problems]
    begun = folder / "begun"
    lines = begun.read_text().splitlines() if begun.exists() else []
    tags = [row.tag for row in engine.store.scan(0, ALL)]
    return Outcome(
        runs=_plain(runs), steps=_plain(steps), seen=None, begun=[tuple(json.loads(line)) for line in lines],
        ended=engine.ended, problems=problems, events=len(tags), commits=engine.door.commits, tags=tags,
        crashed=engine.crashes > 0,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """As JSON would give it back, so that outcomes of other processes compare."""
    return msgspec_json.decode(msgspec_json.encode(value))
