"""`refold run FILE.py:WORKFLOW`: execute a workflow of your own, and go on with it after a crash."""

import argparse
import asyncio
import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from ..engine.engine import Engine
from ..engine.handle import Handle
from ..engine.workflow import Workflow
from ..events.errors import (
    ConfigurationError,
    HandlerError,
    NonDeterminismError,
    RefoldError,
    RunCancelled,
    RunFailed,
    StoreBusy,
)
from .exits import FAILED, INTERRUPTED, OK, TERMINATED
from .following import Following
from .given import parse_json, principal
from .interrupts import heeding
from .loading import load_workflows
from .screen import Screen, complain
from .stores import looking, shared_url, store_url
from .text import as_json, count, visible
from .words import now

LOOK_S = 0.1
CATCH_UP_S = 1.0
RETRIED = ("failed", "cancelled", "terminated")
UNFINISHED = ("running", "waiting", "pending", "paused", "compensating")


def run(args: argparse.Namespace, screen: Screen) -> int:
    """`refold run`."""
    flow, flows = load_workflows(args.target)
    arguments = _arguments(args.input)
    labels = dict(_label(text) for text in args.label)
    if args.detach:
        return asyncio.run(_detach(args, screen, flow, arguments, labels))
    every = flows if flow in flows else [flow, *flows]
    try:
        return asyncio.run(heeding(_run(args, screen, flow, every, arguments, labels)))
    except StoreBusy as busy:
        raise StoreBusy(f"{busy}; or leave the run to that one: --detach", busy.holder) from None


def _arguments(text: str | None) -> list[Any] | None:
    """The handler's arguments: a JSON array holds them all, anything else is the only one."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--input {text}: {error}") from None
    value = parse_json(text, "--input")
    return value if isinstance(value, list) else [value]


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (separator and name):
        raise ConfigurationError(f"--label {text!r}: expected NAME=VALUE")
    return name, value


async def _detach(
    args: argparse.Namespace, screen: Screen, flow: Workflow[Any, Any], arguments: list[Any] | None,
    labels: dict[str, str],
) -> int:  # fmt: skip
    """Only store the run: whoever executes the store, now or later, runs it."""
    async with Engine(shared_url(args.store), execute=False) as engine:
        args.known = args.id is not None and bool(engine.store.read(args.id, 0, 1))
        handle = await _start(engine, args, flow, arguments, labels)
        status = handle.status()["status"]
    if args.json:
        screen.raw(as_json({"run": handle.id, "status": status}))
    else:
        screen.raw(visible(handle.id))
    return OK


async def _run(
    args: argparse.Namespace, screen: Screen, flow: Workflow[Any, Any], every: list[Workflow[Any, Any]],
    arguments: list[Any] | None, labels: dict[str, str],
) -> int:  # fmt: skip
    progress = Screen(sys.stderr)
    main = asyncio.current_task()
    assert main is not None
    code, began = INTERRUPTED, now()

    def terminate() -> None:
        nonlocal code
        code = TERMINATED
        main.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        tags = [args.run_on] if args.run_on else []
        async with Engine(store_url(args.store), workflows=every, tags=tags) as engine:
            args.known = args.id is not None and bool(engine.store.read(args.id, 0, 1))
            earlier = await _unfinished(engine, args, flow)
            handle = await _start(engine, args, flow, arguments, labels)
            args.id = handle.id
            args.over = _had_ended(engine, args.id, began)
            _say_which(args, flow, earlier, progress)
            if args.known:  # replay it now, though it may only wait: changed code is to be told at once
                engine.worker.recovery.enqueue(handle.id)
            return await _watch(engine, handle, args, screen, progress)
    except asyncio.CancelledError:  # Ctrl-C cancels, too; by now the engine has shut down
        _say_how_to_go_on(args, progress, _ended_meanwhile(args))
        return code


def _had_ended(engine: Engine, run_id: str, before: datetime) -> bool:
    work, last = engine.store.work(run_id), engine.store.tail(run_id).version
    if work is None or work.state != "done":
        return False
    ended: datetime = engine.store.read(run_id, last - 1, 1)[0].event().at
    return ended < before


async def _unfinished(engine: Engine, args: argparse.Namespace, flow: Workflow[Any, Any]) -> list[str] | None:
    """Runs of the workflow that go on beside the one to be started; None when a certain one is asked for."""
    if args.id is not None or args.key is not None:
        return None
    try:
        async with asyncio.timeout(CATCH_UP_S):
            await engine.projections.wait()
    except TimeoutError:  # a large store after a crash: what is not in the read models yet goes unsaid
        pass
    pages = [engine.runs.list(workflow=flow.name, status=status, limit=2) for status in UNFINISHED]
    return [row["run_id"] for page in pages for row in page.runs]


async def _start(
    engine: Engine, args: argparse.Namespace, flow: Workflow[Any, Any], arguments: list[Any] | None,
    labels: dict[str, str],
) -> Handle[Any]:  # fmt: skip
    """A new run; or, without `--input`, the one that has this id already, whatever its input was."""
    if args.known and arguments is None and "/" not in args.id:
        work = engine.store.work(args.id)
        if work is not None and work.workflow == flow.name:
            return await engine.get(args.id)
    return await engine.start(
        flow, *(arguments or []), id=args.id, key=args.key, attributes=labels, trigger="cli", by=principal(),
        queue=args.queue, priority=args.priority, queue_key=args.queue_key, run_on=args.run_on,
        delay=args.delay, lock=args.lock,
    )  # fmt: skip


async def _watch(
    engine: Engine, handle: Handle[Any], args: argparse.Namespace, screen: Screen, progress: Screen
) -> int:
    told = Progress(engine, args, progress)
    following = asyncio.create_task(told.follow())
    failure: RefoldError | None = None
    try:
        outcome: dict[str, Any] = {"status": "completed", "result": await handle.result()}
    except (RunFailed, RunCancelled, HandlerError) as error:
        failure, outcome = error, _outcome(error)
    except asyncio.CancelledError:
        if progress.terminal:
            grace = engine.settings.grace
            complain(f"stopping; what runs gets {grace:g} s (Ctrl-C again: none)", progress)
        raise
    finally:
        following.cancel()
        await asyncio.wait([following])
        if not following.cancelled() and (trouble := following.exception()) is not None:
            complain(f"the progress could not be shown: {trouble}", progress)
        told.tell()
    if args.json:
        screen.raw(as_json({"run": handle.id, **outcome}))
    elif failure is not None:
        complain(failure)
        _say_what_next(args, failure, progress)
    else:
        screen.raw(as_json(outcome["result"]))
    return OK if failure is None else FAILED


def _outcome(error: RefoldError) -> dict[str, Any]:
    """For `--json`: how the run ended, or why it cannot go on."""
    if isinstance(error, RunFailed):
        return {"status": error.status, "error": {"type": error.type, "message": error.message}}
    if isinstance(error, RunCancelled):
        return {"status": error.status, "reason": error.reason}
    status = "diverged" if isinstance(error, NonDeterminismError) else "blocked"
    return {"status": status, "error": {"type": type(error).__name__, "message": str(error)}}


class Progress:
    """What the run does, told on the terminal; nothing when stderr goes elsewhere."""

    def __init__(self, engine: Engine, args: argparse.Namespace, screen: Screen) -> None:
        self.screen, self.store = screen, store_url(args.store)
        self.following = Following(engine.store, args.id)
        self._hinted: set[int] = set()
        if screen.terminal and args.known:
            self.following.read()
            steps = count(self.following.ended, "step")
            on = (
                "had ended before: nothing is run now"
                if args.over
                else f"goes on: {steps} done before are not run again"
            )
            screen.print((visible(args.id), "bold"), f" {on}")

    async def follow(self) -> None:
        """Until cancelled."""
        with self.screen.live() as live:
            while self.screen.terminal:
                self.tell()
                live.update(self.following.line())
                await asyncio.sleep(LOOK_S)

    def tell(self) -> None:
        """Print what is new."""
        if not self.screen.terminal:
            return
        for line in self.following.read():
            self.screen.print("  ", line)
        if self.following.running:
            return
        for wait, name in self.following.waits.items():
            self._hint(wait, f"event {name}", "; send it with", "signal", [name], "  (and --payload JSON)")
        for number, gate in self.following.gates.items():
            if gate.kind == "approval":
                what, also = f"{gate.name}: {gate.prompt}", "  (or reject, and --feedback TEXT)"
                self._hint(number, what, "; decide with", "approve", ["--gate", gate.name], also)
            else:
                self._hint(number, f"{gate.name}: {gate.prompt}", "; answer with", "answer", ["JSON"], "")

    def _hint(self, number: int, what: str, do: str, verb: str, more: list[str], also: str) -> None:
        """Once: what the run waits for, and the command that it would go on with."""
        if number not in self._hinted:
            self._hinted.add(number)
            command = ["refold", verb, self.following.run_id, *more, "--store", self.store]
            self.screen.print("  waits for ", (visible(what), "bold"), (do, "dim"))
            self.screen.print("    ", visible(shlex.join(command)), (also, "dim"))


def _say_which(
    args: argparse.Namespace, flow: Workflow[Any, Any], earlier: list[str] | None, progress: Screen
) -> None:
    """Without `--id` nobody knows the run's name: say it now, for after a kill -9 nobody can."""
    if earlier is None:
        return
    complain("a new run; stopped or killed, it goes on with", progress)
    _say_command(args, args.id, progress)
    if earlier:
        what = (
            f"an earlier run of {flow.name} is unfinished, too, and goes on beside it; to wait for that one"
        )
        complain(what, progress)
        _say_command(args, earlier[0], progress)


def _say_what_next(args: argparse.Namespace, failure: RefoldError, progress: Screen) -> None:
    """Whoever mends the code and gives the command again would see the same failure, and not know why."""
    if not isinstance(failure, RunFailed | RunCancelled) or failure.status not in RETRIED:
        return
    if args.over:
        progress.print(
            "  it had ended before, and nothing was run now; to bring it back, keeping what it completed"
        )
    elif failure.status == "failed":
        progress.print("  once that is mended, bring it back, and give this command again")
    else:
        return
    command = ["refold", "retry", failure.run_id, "--store", store_url(args.store)]
    progress.print("    ", visible(shlex.join(command)))


def _ended_meanwhile(args: argparse.Namespace) -> bool:
    """What ran was let finish, and it was the run's last step."""
    if args.id is None or store_url(args.store).startswith("memory://"):
        return False
    with looking(args.store) as store:
        work = store.work(args.id)
    return work is not None and work.state == "done"


def _say_how_to_go_on(args: argparse.Namespace, progress: Screen, ended: bool) -> None:
    if args.id is None:
        complain("stopped", progress)
        return
    if ended:
        complain("stopped; the run has ended meanwhile. How, tells", progress)
        show = ["refold", "show", args.id, "--store", store_url(args.store)]
        progress.print("  ", visible(shlex.join(show)))
        progress.flush()
        return
    complain("stopped; everything done so far is stored. It goes on with", progress)
    _say_command(args, args.id, progress)


def _say_command(args: argparse.Namespace, run_id: str, progress: Screen) -> None:
    command = ["refold", "run", args.target, "--id", run_id, "--store", store_url(args.store)]
    progress.print("  ", visible(shlex.join(command)))
    progress.flush()
