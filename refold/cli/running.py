"""`refold run FILE.py:WORKFLOW`: execute a workflow of your own, and go on with it after a crash."""

import argparse
import asyncio
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from ..engine.engine import Engine
from ..engine.handle import Handle
from ..engine.workflow import Workflow
from ..events.errors import ConfigurationError, HandlerError, RunCancelled, RunFailed
from .exits import FAILED, OK, TERMINATED
from .following import Following
from .loading import load_workflows
from .screen import Screen, complain
from .sending import parse_json, principal
from .stores import store_url
from .text import as_json, visible

LOOK_S = 0.1


class Terminated(BaseException):
    """SIGTERM arrived, and the engine has shut down."""


def run(args: argparse.Namespace, screen: Screen) -> int:
    """`refold run`."""
    flow, flows = load_workflows(args.target)
    arguments = _arguments(args.input)
    labels = dict(_label(text) for text in args.label)
    try:
        return asyncio.run(_run(args, screen, flow, flows, arguments, labels))
    except Terminated:
        complain("stopped by SIGTERM; the run goes on when the command is given again")
        return TERMINATED


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


async def _run(
    args: argparse.Namespace, screen: Screen, flow: Workflow[Any, Any], flows: list[Workflow[Any, Any]],
    arguments: list[Any] | None, labels: dict[str, str],
) -> int:  # fmt: skip
    url = store_url(args.store)
    every = flows if flow in flows else [flow, *flows]
    progress = Screen(sys.stderr)
    async with Engine(url, workflows=every) as engine:
        main = asyncio.current_task()
        assert main is not None
        terminated = False

        def stop() -> None:
            nonlocal terminated
            terminated = True
            main.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        try:
            handle = await _start(engine, args, flow, arguments, labels)
            return await _watch(engine, handle, args, screen, progress)
        except asyncio.CancelledError:
            _say_how_to_go_on(args, url, progress)
            if terminated:
                raise Terminated from None
            raise


async def _start(
    engine: Engine, args: argparse.Namespace, flow: Workflow[Any, Any], arguments: list[Any] | None,
    labels: dict[str, str],
) -> Handle[Any]:  # fmt: skip
    """A new run; or, without `--input`, the one that has this id already, whatever its input was."""
    if args.id is not None and arguments is None and "/" not in args.id:
        work = engine.store.work(args.id)
        if work is not None and work.workflow == flow.name:
            return await engine.get(args.id)
    return await engine.start(
        flow, *(arguments or []), id=args.id, key=args.key, attributes=labels, trigger="cli", by=principal()
    )


async def _watch(
    engine: Engine, handle: Handle[Any], args: argparse.Namespace, screen: Screen, progress: Screen
) -> int:
    args.id = handle.id
    following = asyncio.create_task(_follow(engine, handle.id, args, progress))
    try:
        result: Any = await handle.result()
        outcome, code = {"status": "completed", "result": result}, OK
    except RunFailed as error:
        outcome, code = {"status": "failed", "error": {"type": error.type, "message": error.message}}, FAILED
        failure: Exception | None = error
    except RunCancelled as error:
        outcome, code = {"status": "cancelled", "reason": error.reason}, FAILED
        failure = error
    except HandlerError as error:
        attention = "diverged" if type(error).__name__ == "NonDeterminismError" else "blocked"
        outcome, code = (
            {"status": attention, "error": {"type": type(error).__name__, "message": str(error)}},
            FAILED,
        )
        failure = error
    else:
        failure = None
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    if args.json:
        screen.raw(as_json({"run": handle.id, **outcome}))
    elif failure is not None:
        complain(failure)
    else:
        screen.raw(as_json(outcome["result"]))
    return code


async def _follow(engine: Engine, run_id: str, args: argparse.Namespace, progress: Screen) -> None:
    """Say on the terminal what the run does; nothing when stderr goes elsewhere."""
    if not progress.terminal:
        return
    following = Following(engine.store, run_id)
    following.read()
    if following.version > 3:
        progress.print((f"{visible(run_id)} goes on: ", "bold"), f"{following.ended} steps are done already")
    hinted: set[int] = set()
    with progress.live() as live:
        while not following.over:
            for line in following.read():
                progress.print("  ", line)
            for wait, name in following.waits.items():
                if wait not in hinted and not following.running:
                    hinted.add(wait)
                    command = [
                        "refold",
                        "signal",
                        run_id,
                        name,
                        "--payload",
                        "JSON",
                        "--store",
                        store_url(args.store),
                    ]
                    progress.print("  waits for event ", (visible(name), "bold"), ("; send it with", "dim"))
                    progress.print("    ", visible(shlex.join(command)))
            live.update(following.line())
            await asyncio.sleep(LOOK_S)


def _say_how_to_go_on(args: argparse.Namespace, url: str, progress: Screen) -> None:
    if args.id is None:
        return
    command = ["refold", "run", args.target, "--id", args.id, "--store", url]
    complain("stopped; everything done so far is stored. It goes on with", progress)
    progress.print("  ", visible(shlex.join(command)))
