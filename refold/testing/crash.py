"""`durable_crash`: a run crashed at every place where a crash can make a difference, each time compared."""

import asyncio
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from msgspec import Struct

from ..engine.workflow import Workflow
from ..events.errors import ConfigurationError
from .crash_case import Observe, Outcome, Played, Prepare, play
from .crash_server import Server

HANGS_S = 30.0
TOLD = 5
"""Crashes described in one report."""
CAUSES = (
    "usual causes: state kept outside the run (globals, caches, files), effects outside steps, a step whose "
    "effect is not idempotent: give the service `current_step().idempotency_key`"
)


class CrashDifference(AssertionError):
    """A crash has changed what a workflow does."""


class CrashReport(Struct, frozen=True):
    """What was tried."""

    crashes: int
    events: int
    """Of the run that nobody crashed."""
    seconds: float


class _Point(NamedTuple):
    before: int
    after: int

    def describe(self, reference: Outcome) -> str:
        number = self.before or self.after
        tag = reference.tags[number - 1] if number <= len(reference.tags) else "?"
        return f"crash right {'before' if self.before else 'after'} event {number} ({tag})"


def durable_crash(
    workflow: Workflow[..., Any],
    *args: Any,
    prepare: Prepare | None = None,
    observe: Observe | None = None,
    kill: bool = False,
    limit: int = 200,
    folder: Path | None = None,
) -> CrashReport:
    """Run a workflow once without, and then with a crash right before and right after every event; compare.

        durable_crash(checkout, order, prepare=lambda engine: engine.approve_when_asked())

    Each run has a SQLite file and a folder of its own, which is the working directory meanwhile, and virtual
    time. After the crash a new engine goes on. The results, the last rows of all steps and what `observe`
    sees must be those of the run without a crash, no step that was over may begin again, and one that was
    cut off only once.

    Args:
        workflow: its steps really run, but for those that `prepare` mocks.
        args: what the handler gets after `ctx`.
        prepare: gets the `TestEngine` of each run before it starts: mocks, answers.
        observe: what the world looks like at the end, as JSON values: files in the working directory …
        kill: each crash is a `SIGKILL` of a process of its own, forked from one that imports the workflow's
            module: workflow, `prepare` and `observe` must be at the top of a module. Default: the engine is
            abandoned in this process; modules keep their state, and `finally` blocks of bodies run. Each way
            finds mistakes that the other cannot.
        limit: at most so many crashes, evenly spread.
        folder: for the files; default: a temporary one.

    Raises:
        CrashDifference: a crash makes a difference; it says which, and where.
        ConfigurationError: `kill` with a function that another process cannot import.
    """
    what = Played(flow=workflow, args=args, prepare=prepare, observe=observe)
    with tempfile.TemporaryDirectory(prefix="refold-crash-") as temporary:
        place = Path(tempfile.mkdtemp(prefix="crash-", dir=folder)) if folder is not None else Path(temporary)
        began = perf_counter()
        if kill:
            with Server(what, place) as server:
                crashes, events = _try_all(workflow, server.play, limit)
        else:
            crashes, events = _in_this_process(what, place, limit)
        return CrashReport(crashes, events, perf_counter() - began)


Player = Callable[[int, int], Outcome]


def _in_this_process(what: Played, place: Path, limit: int) -> tuple[int, int]:
    """On a loop of its own, in a thread if this one has a loop that runs."""
    numbers = iter(range(1_000_000))

    def one(before: int, after: int) -> Outcome:
        case = play(what, place / str(next(numbers)), before=before, after=after)
        try:
            return asyncio.run(asyncio.wait_for(case, HANGS_S))
        except TimeoutError as error:
            when = f"after a crash at event {before or after}" if before or after else "even without a crash"
            raise CrashDifference(
                f"{what.flow.name} does not come to an end in {HANGS_S:g} s, {when}"
            ) from error

    def every() -> tuple[int, int]:
        return _try_all(what.flow, one, limit)

    return _in_thread(every) if _on_a_loop() else every()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(act: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    done: list[tuple[int, int]] = []
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            done.append(act())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded, name="refold-crash")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _try_all(workflow: Workflow[..., Any], one: Player, limit: int) -> tuple[int, int]:
    reference = one(0, 0)
    if reference.problems:
        why = reference.problems[0]
        raise CrashDifference(f"{workflow.name} does not come to an end, even without a crash: {why}")
    again = list(_differences(reference, one(0, 0)))
    if again:
        raise CrashDifference(
            "\n  ".join([f"{workflow.name} does something else each time, even without a crash:", *again])
        )
    points = _points(reference, limit)
    found: list[str] = []
    for point in points:
        problems = list(_differences(reference, one(*point)))
        if problems:
            found.append("\n    - ".join([f"  {point.describe(reference)}:", *problems]))
        if len(found) == TOLD:
            break
    if found:
        events = f"{reference.events} events without one"
        head = f"{workflow.name} is not durable: a crash changes what it does ({events})"
        more = ["  … and perhaps more"] if len(found) == TOLD else []
        raise CrashDifference("\n".join([head, *found, *more, CAUSES]))
    return len(points), reference.events


def _points(reference: Outcome, limit: int) -> list[_Point]:
    """Before and after every commit: within one there is no place for a crash."""
    if limit < 1:
        raise ConfigurationError(f"durable_crash(limit={limit}): expected 1 or more crashes")
    points: list[_Point] = []
    before = 0
    for after in reference.commits:
        points += [_Point(before + 1, 0), _Point(0, after)]
        before = after
    if len(points) <= limit:
        return points
    return [points[number * len(points) // limit] for number in range(limit)]


def _differences(reference: Outcome, found: Outcome) -> Iterator[str]:
    """What is not as it was without a crash, in words."""
    yield from found.problems
    if not found.problems:
        yield from _different_runs(reference, found)
        for key in reference.steps.keys() | found.steps.keys():
            ours, theirs = reference.steps.get(key), found.steps.get(key)
            if ours != theirs:
                yield f"step {key}: {_told(ours, theirs)} without a crash, {_told(theirs, ours)} with it"
        if reference.seen != found.seen:
            yield f"`observe` sees {reference.seen!r} without a crash, {found.seen!r} with it"
    yield from _begun_wrongly(reference, found)


def _begun_wrongly(reference: Outcome, found: Outcome) -> Iterator[str]:
    """Bodies that began although they were over, too often, or under another idempotency key."""
    ended = {tuple(step) for step in found.ended}
    names: dict[tuple[str, int], str] = {}
    for crashes, run, step, key in found.begun:
        name = names.setdefault((run, step), f"step {key} of {run}")
        if crashes and (run, step) in ended:
            yield f"{name} was over before the crash, and its body ran again"
        if name != f"step {key} of {run}":
            yield f"{name} began again as {key}: another idempotency key"
    once = Counter((run, step) for _, run, step, _ in reference.begun)
    for place, times in Counter((run, step) for _, run, step, _ in found.begun).items():
        if times > once[place] + found.crashed and place in once:
            yield f"{names[place]} began {times} times, {once[place]} without a crash"


def _different_runs(reference: Outcome, found: Outcome) -> Iterator[str]:
    ours, theirs = ({run[0]: run[1:] for run in outcome.runs} for outcome in (reference, found))
    for run in ours.keys() | theirs.keys():
        if ours.get(run) != theirs.get(run):
            yield f"run {run}: {_run(ours.get(run))} without a crash, {_run(theirs.get(run))} with it"


def _run(row: Any) -> str:
    if row is None:
        return "not started"
    _, status, result, kind, message = row
    return f"{status} with {kind}: {message}" if kind else f"{status} with {result!r}"


def _told(row: Any, other: Any) -> str:
    """Only what differs."""
    if row is None:
        return "not called"
    names = [name for name in row if other is None or row[name] != other[name]]
    return ", ".join(f"{name} {row[name]!r}" for name in names if row[name] is not None) or "nothing"
