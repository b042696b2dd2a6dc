"""What the demo puts on the screen: the story as it happens, the timeline, the proofs, what to type next."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..cli import timeline
from ..cli.screen import Screen
from ..cli.text import count, seconds, usd, visible
from ..events.store import Store
from ..projections.lanes import Mark
from ..projections.timelines import claims, timeline_of
from .proofs import Evidence, Proof

STORE = "demo.db"


def refold() -> str:
    """How this very installation is called from here: a command that works when it is typed."""
    script = Path(sys.argv[0])
    if script.name == "refold" and script.exists():
        found = shutil.which("refold")
        if found is not None and os.path.samefile(found, script):
            return "refold"
        return quoted(_near(script))
    return f"{quoted(_near(Path(sys.executable)))} -m refold"


def _near(path: Path) -> Path:
    """Relative to here when that is shorter; links are kept, for a venv's python is one."""
    full = Path(os.path.abspath(path))
    near = Path(os.path.relpath(full))
    if near.parts and near.parts[0] == "..":
        return full
    return near if len(near.parts) > 1 else Path(f"./{near}")


def quoted(path: Path) -> str:
    """A path as a word of a shell, escaped for the terminal."""
    return visible(shlex.quote(str(path)))


def title(screen: Screen, folder: Path) -> None:
    """The first lines."""
    screen.print(("refold demo", "bold"), ("  one run, one kill -9, one log", "dim"))
    screen.print(("  A release of Refold's own source. Only the prices and the registry are made up;", "dim"))
    screen.print((f"  everything goes to {quoted(folder)}", "dim"))
    screen.print()


def died(screen: Screen, pid: int, kill: Evidence) -> None:
    """After the first worker."""
    completed, flying = count(len(kill.completed), "step"), count(len(kill.in_flight), "step")
    screen.print(
        "  worker 1   ", f"pid {pid} ", ("killed itself with SIGKILL", "bold red"), f" while {flying} ran"
    )
    screen.print(f"             in the log by then: {completed} completed, {flying} begun and not ended")


def revived(screen: Screen, pid: int, run_id: str, store: Store, killed_at: datetime) -> None:
    """When the second worker has gone on."""
    taken = claims(store.read(run_id))
    after = f" {seconds((taken[-1].at - killed_at).total_seconds())} after the kill" if taken else ""
    took = ("took the run up from the log", "bold green")
    screen.print(f"  worker 2   pid {pid} ", took, f"{after}, and went on")


def finale(
    screen: Screen, store: Store, path: Path, run_id: str, killed_at: datetime, proofs: Sequence[Proof]
) -> None:
    """Timeline, proofs, and what to type next."""
    found = timeline_of(store.read(run_id))
    run = found.record()
    assert found.end is not None
    screen.print()
    result = run["result"] or {}
    verdict = "released" if result.get("released") else "not released, as you said"
    status = "green" if run["status"] == "completed" else "red"
    screen.print(
        (run_id, "bold"), "  ", (run["status"], status), f"  {verdict}  {seconds(run['wall_s'])}  ",
        timeline.summary(run), f"  {usd(run['cost_usd'])}",
    )  # fmt: skip
    screen.print()
    timeline.draw(screen, found.lanes, found.start, found.end, [Mark(killed_at, "kill -9")])
    screen.print()
    for proof in proofs:
        screen.print(
            "  ", screen.mark(proof.holds), " ", (visible(proof.detail), "" if proof.holds else "bold red")
        )
    _next(screen, path, run_id)


def _next(screen: Screen, path: Path, run_id: str) -> None:
    screen.print()
    command = refold()
    typed = [
        (f"{command} {verb} --store {quoted(path)}", what)
        for verb, what in (
            (f"show {run_id}", "the run, step by step"),
            (f"events {run_id}", "its whole history"),
            ("verify", "every hash again"),
        )
    ]
    width = max(len(line) for line, _ in typed)
    for line, what in typed:
        screen.print("  ", (line.ljust(width), "bold"), (f"   {what}", "dim"))
