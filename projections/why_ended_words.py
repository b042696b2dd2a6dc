"""Why a run has ended, in sentences: the chain of what led to it, and what can still be done."""

import re
from collections.abc import Iterator

from .why import Standing
from .why_ended import End, Reason
from .words import clock, count, size

LONG = 300
_LARGE = re.compile(r'\{"\$blob":"[0-9a-f]{64}","size":(\d+)\}')
"""How the log refers to a value that lies beside it."""

Line = tuple[str, list[list[str]]]


def ended(standing: Standing, end: End) -> Iterator[Line]:
    """Sentences about a run that is over, each with commands."""
    if end.undone_after:
        after = "on request, after it had completed" if end.undone_after == "completed" else "because it"
        yield (
            f"it was undone {after}" + ("" if "request" in after else f" had {_was(end.undone_after)}"), []
        )  # fmt: skip
    if end.status == "completed":
        large = _LARGE.fullmatch(end.result)
        result = f"a value of {size(int(large[1]))}" if large else _short(end.result)
        yield f"its handler returned {result}: nothing is left to do", []
    elif end.status == "continued":
        yield f"it goes on as {end.next_run}", [["refold", "why", end.next_run]]
    for reason in end.because:
        yield _reason(end, reason)
    yield from _to_do(standing, end)


def _was(status: str) -> str:
    return "failed" if status == "failed" else f"been {status}"


def _reason(end: End, reason: Reason) -> Line:
    text, by = _short(reason.text), reason.by
    at = f" at {clock(reason.at)} UTC" if reason.at else ""
    told = f": {text}" if text else ""
    match reason.type:
        case "step":
            who = f", as {by} said" if by else ""
            return f"because step {reason.name} failed{_times(reason)}{who}{told}", []
        case "not_undone":
            return f"step {reason.name} is not undone: its undo failed{_times(reason)}{told}", []
        case "error":
            return f"because its handler raised {text}", []
        case "child":
            word = f"after its child {reason.name} ended{at} as {reason.status.replace('_', ' ')}{told}"
            return word, [["refold", "why", reason.name]]
        case "vote":
            verb = {"approve": "approved", "reject": "rejected"}.get(reason.status, "answered")
            return f"after {by} {verb} {reason.name}{at}{told}", []
        case "cancel":
            return f"{_who_cancelled(reason)}{at}{told}", []
        case "terminate":
            return f"because {by} terminated it{told}", []
        case "undo":
            return f"because {by} asked{at} for what it did to be undone{told}", []
        case "event":
            return f"after the event {reason.name} of {by} came{at}", []
        case "timer":
            return f"after a sleep or a deadline had ended{at}", []
        case _:
            return f"after step {reason.name} was {reason.status}{at}", []


def _times(reason: Reason) -> str:
    if reason.times > 1:
        return f" {count(reason.times, 'time')}, the last time with"
    return ""


_CANCELLED = {
    "Timeout": "because the time for the run as a whole was up",
    "ParentCancelled": "because its parent was cancelled",
    "FailFast": "because a neighbour of it had failed",
}


def _who_cancelled(reason: Reason) -> str:
    return _CANCELLED.get(reason.status, f"because {reason.by or 'somebody'} asked it to stop")


def _to_do(standing: Standing, end: End) -> Iterator[Line]:
    retry = ["refold", "retry", standing.run_id]
    if end.status == "failed":
        yield "mend what was wrong; then it can go on from what failed", [retry]
    elif end.status in ("cancelled", "terminated"):
        yield "it can be brought back where it stood", [retry]
    elif end.status == "compensation_failed":
        yield "mend what was wrong; then exactly what is not undone is tried again", [retry]
    if standing.parent:
        yield f"it is a child of {standing.parent}", [["refold", "why", standing.parent]]


def _short(text: str) -> str:
    return text if len(text) <= LONG else text[:LONG] + "…"
