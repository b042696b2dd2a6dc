"""The report of a divergence: both sides, where, since which change, and what to do."""

from collections.abc import Iterable
from typing import Any

from ..events import types as t
from ..events.errors import NonDeterminismError
from ..events.types import Event
from .commands import Command, StepCommand, describe_event, event_number
from .inspect import format_stacks, frames, snapshots

ADVICE = (
    "put the code back, guard the change with ctx.patched, or start a new run; "
    "nothing was written, and the run goes on when the code asks for what the log has"
)


def report(
    run: Any, recorded: Event | None, issued: Iterable[Command], recent: Iterable[Command]
) -> NonDeterminismError:
    """A `NonDeterminismError` that says what the log has, what the handler asks for now, and where."""
    live = [command for command in issued if not command.dropped]
    number = event_number(recorded) if recorded is not None else 0
    expected = describe_event(recorded) if recorded is not None else "nothing more in this activation"
    found = live[0].describe() if live else "nothing: the handler waits"
    key = _key(recorded, number) or _live_key(live)
    lines = [
        f"run {run.run_id}: replay diverged at {key} "
        f"(activation {run.activation}, {run.ctx.now().isoformat()})"
    ]
    lines += [f"  before   {text}" for text in recent]
    lines.append(f"  log has  {expected}{_recorded_site(recorded)}")
    lines += [f"  now asks {command.describe()}{_live_site(command)}" for command in live[:3]]
    if not live:
        lines.append("  now asks nothing, the handler waits at")
        lines += ["    " + line for line in _where(run).splitlines()]
    lines += [f"  hint     {hint}" for hint in _hints(run, recorded, live)]
    lines.append(f"  remedy   {ADVICE}")
    return NonDeterminismError("\n".join(lines), key=key, expected=expected, found=found)


def _key(recorded: Event | None, number: int) -> str:
    if isinstance(recorded, t.StepScheduled):
        return f"step {recorded.key}"
    if recorded is None:
        return ""
    return f"{recorded.TAG} {number or ''}".rstrip()


def _live_key(live: list[Command]) -> str:
    return f"an extra {live[0].describe()}" if live else "its end"


def _recorded_site(recorded: Event | None) -> str:
    return f"  ({recorded.site})" if isinstance(recorded, t.StepScheduled) and recorded.site else ""


def _live_site(command: Command) -> str:
    if not isinstance(command, StepCommand) or command.task is None or command.task.done():
        return ""
    found = frames(command.task.get_coro())
    return f"  ({found[-1].file.rsplit('/', 1)[-1]}:{found[-1].line})" if found else ""


def _where(run: Any) -> str:
    return format_stacks(snapshots(run.loop), locals=False) or "(no task is left)"


def _hints(run: Any, recorded: Event | None, live: list[Command]) -> list[str]:
    hints: list[str] = []
    if isinstance(recorded, t.PatchApplied):
        hints.append(
            f"ctx.patched({recorded.name!r}) was taken out while runs still need it: call "
            f"ctx.deprecate_patch({recorded.name!r}) in its place until none of them is left"
        )
    if isinstance(recorded, t.StepScheduled) and live and isinstance(live[0], StepCommand):
        if live[0].step.name == recorded.name:
            hints.append("same step, different arguments")
        elif any(isinstance(c, StepCommand) and c.matches(recorded) for c in live):
            hints.append("same commands, different order")
    was, now = run.started.runtime, run.workflow.runtime
    names = {"code": "the handler's code", "python": "Python", "anyio": "anyio", "refold": "Refold"}
    changed = [
        f"{names[k]} ({was[k]} → {now[k]})" if k != "code" else names[k]
        for k in names
        if k in was and was[k] != now.get(k)
    ]
    hints.append(
        "changed since the run began: " + ", ".join(changed)
        if changed
        else "code and versions are those the run began with: look for clocks, randomness, sets of strings, "
        "module state or files read in the handler"
    )
    return hints
