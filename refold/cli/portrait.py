"""Everything about one run, for people: how it stands, its timeline, its troubles."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import convert

from .. import engine
from ..events.triggers import Trigger
from ..projections.timelines import Timeline
from . import timeline
from .screen import Screen
from .text import clip, clock, compact, seconds, usd, visible, visible_lines
from .words import blocked, now, status_span, took


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: it would walk the rows of 10,000 steps again and again, for a sixth of
    the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def draw(screen: Screen, found: Timeline) -> None:
    """All of it."""
    run = found.record()
    head(screen, run)
    screen.print()
    timeline.draw(screen, found.lanes, found.start, found.end or now(), found.marks)
    troubles(screen, run, found)


def head(screen: Screen, run: dict[str, Any]) -> None:
    title = "" if run["title"] == run["workflow"] else f"  {visible(run['title'])}"
    screen.print((visible(run["run_id"]), "bold"), "  ", status_span(run["status"]), title)
    version = f"{visible(run['workflow'])} version {visible(run['version'])}"
    _field(
        screen, "workflow", f"{version}, started {clock(run['started_at'])} UTC by {visible(_trigger(run))}"
    )
    if run["lock"]:
        _field(screen, "lock", visible(run["lock"]))
    owners = f", {run['generation']} owners" if run["generation"] > 1 else ""
    _field(screen, "took", f"{seconds(took(run))}, {seconds(run['active_s'])} of it in steps{owners}")
    _field(screen, "steps", timeline.summary(run))
    tokens = [
        f"{run[n]} {n.replace('_', ' ')}" for n in ("input_tokens", "output_tokens", "cache_tokens") if run[n]
    ]
    children = usd(run["children_usd"])
    spent = (usd(run["cost_usd"]), *tokens, f"{children} by its children" if children else "")
    if cost := [text for text in spent if text]:
        _field(screen, "cost", ", ".join(cost))
    _field(screen, "input", clip(compact(run["args"]), 400))
    for name, about in (
        ("child of", run["parent_id"]), ("after", run["continued_from"]), ("goes on", run["continued_to"]),
        ("fork of", run["forked_from"]),
    ):  # fmt: skip
        if about:
            _field(screen, name, visible(about))
    if run["attributes"]:
        _field(screen, "labels", clip(compact(run["attributes"]), 400))
    if run["status"] == "completed":
        _field(screen, "result", clip(compact(run["result"]), 400))
    if run["blocked_on"]:
        _field(screen, "blocked", blocked(run["blocked_on"]))
    if run["cancel_requested"]:
        _field(screen, "cancel", f"requested: {visible(run['cancel_requested'])}")


def _trigger(run: dict[str, Any]) -> str:
    """What started it, with what belongs to that."""
    about = run["triggered_by"]
    return str(run["trigger"] if about is None else convert(about, Trigger))


def _field(screen: Screen, name: str, text: str) -> None:
    screen.print((f"  {name:9}", "dim"), text)


def troubles(screen: Screen, run: dict[str, Any], found: Timeline) -> None:
    if run["attention"] != "none":
        screen.print()
        screen.print(("attention: ", "bold yellow"), (visible(run["attention"]), "bold yellow"))
        screen.block(visible_lines(run["attention_reason"] or ""))
    if run["status"] in ("failed", "compensated", "compensation_failed") and run["error_type"]:
        screen.print()
        at = f"  {visible(place)}" if (place := own_place(found.traceback)) else ""
        screen.print(("failed with ", "bold red"), visible(run["error_type"]), (at, "dim"))
        screen.block(visible_lines(run["error_message"] or ""))
    failures = [row for row in found.attempts if row.error_type]
    if failures:
        screen.print()
        screen.print(("failed attempts", "dim"))
        for row in failures[-8:]:
            text = visible(f"{row.error_type}: {row.error_message}")
            at = f"  {visible(place)}" if (place := own_place(row.traceback or "")) else ""
            screen.print(
                f"  {visible(row.key)} attempt {row.attempt}  ", (clip(text, 200), "red"), (at, "dim")
            )
        if len(failures) > 8:
            screen.print((f"  and {len(failures) - 8} earlier ones: --json has all", "dim"))


_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_OURS = (str(Path(engine.__file__).parent), "/refold/engine/")
_OTHERS = ("site-packages", "/lib/python3", "<")


def own_place(traceback: str) -> str:
    """`at app.py:12 in charge`: the innermost frame of a user's code; of a library's when there is none."""
    frames = [frame for frame in _FRAME.findall(traceback) if not any(part in frame[0] for part in _OURS)]
    own = [frame for frame in frames if not any(part in frame[0] for part in _OTHERS)] or frames
    return "at {}:{} in {}".format(Path(own[-1][0]).name, *own[-1][1:]) if own else ""
