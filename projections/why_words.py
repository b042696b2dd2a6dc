"""Why a run stands where it stands, in sentences, each with the commands that would move it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from ..events.hold import Holder
from .why import Act, Standing, Wait
from .why_ended_words import ended
from .words import clock, count, seconds

SHOWN = 3
"""Of more waits of one kind and name than this the others are only counted."""
LONG = 300

Words = list[str]
NONE: Mapping[str, Standing] = MappingProxyType({})


class Said(NamedTuple):
    """A sentence, and what one could type about it; texts of users are in it as they are."""

    text: str
    commands: Sequence[Words] = ()


def tell(
    standing: Standing, now: datetime, executor: Holder | None, children: Mapping[str, Standing] = NONE
) -> list[Said]:
    """How the run stands, what it waits for, who executes it, what comes next; never empty.

    `children`: how those stand that it waits for, as far as anybody has looked.
    """
    told = [Said(_head(standing, now, executor))]
    if standing.end is not None:
        told += [Said(text, commands) for text, commands in ended(standing, standing.end)]
        return told
    told += _acts(standing, now)
    told += _attention(standing, now)
    told += _waits(standing, now, executor, children)
    told += _mail(standing, now)
    told.append(_executor(standing, now, executor))
    told += _next(standing, now, executor)
    return told


_IS = {
    "pending": "has not begun", "running": "is running", "waiting": "waits", "paused": "is paused",
    "compensating": "undoes what it did",
}  # fmt: skip
_ENDED = {
    "completed": "has completed", "failed": "has failed", "cancelled": "was cancelled",
    "terminated": "was terminated", "continued": "went on as another run", "compensated": "was undone",
    "compensation_failed": "was undone in part",
}  # fmt: skip


def _head(standing: Standing, now: datetime, executor: Holder | None) -> str:
    start = f"started {clock(standing.started_at)} UTC by {standing.started_by}"
    if standing.lock:
        start += f", lock {standing.lock}"
    who = f"workflow {standing.workflow} version {standing.version}, {start}"
    if standing.end is not None:
        took = seconds((standing.end.at - standing.started_at).total_seconds())
        at = f"{clock(standing.end.at)} UTC"
        verb = _ENDED.get(standing.status, f"is {standing.status}")
        return f"{standing.run_id} {verb} at {at} ({ago(standing.end.at, now)}), after {took}: {who}"
    said = _IS.get(standing.status, f"is {standing.status}")
    if standing.status == "running" and executor is None:
        said = "has stopped in the middle"
    if standing.status == "compensating" and standing.to_undo:
        said += f" ({standing.undone} of {standing.to_undo} done)"
    since = "" if standing.since is None else f", {since_(standing.since, now)}"
    return f"{standing.run_id} {said}{since}: {who}"


def _acts(standing: Standing, now: datetime) -> Iterator[Said]:
    run = standing.run_id
    if standing.paused is not None:
        held = f"; {count(standing.held, 'thing')} that came meanwhile {_are(standing.held)} held" * bool(
            standing.held
        )
        yield Said(
            f"paused by {_act(standing.paused, now)}: nothing begins until it is resumed{held}",
            [["refold", "resume", run]],
        )
    if standing.cancel is not None:
        yield Said(f"asked to stop by {_act(standing.cancel, now)}; its handler may still clean up")


def _act(act: Act, now: datetime) -> str:
    why = f" ({short(act.reason)})" if act.reason else ""
    return f"{act.by}{why}, {since_(act.at, now)}"


_CANNOT = ("no_worker", "missing_version", "diverged", "stuck")


def _attention(standing: Standing, now: datetime) -> Iterator[Said]:
    if standing.attention not in _CANNOT:
        return  # what is tried again or in doubt is said of the step itself
    since = f", {since_(standing.attention_since, now)}" if standing.attention_since else ""
    commands = [go_on(standing), ["refold", "terminate", standing.run_id]]
    yield Said(
        f"it cannot go on by itself: {standing.attention.replace('_', ' ')}{since}: "
        f"{standing.attention_reason}; it goes on with code that fits, or is ended by hand", commands
    )  # fmt: skip


# ---- what it waits for --------------------------------------------------------------------------------


def _waits(
    standing: Standing, now: datetime, executor: Holder | None, children: Mapping[str, Standing]
) -> Iterator[Said]:
    groups: dict[tuple[str, str], list[Wait]] = {}
    for wait in standing.waits:
        groups.setdefault((wait.type, wait.name.rpartition("#")[0] or wait.type), []).append(wait)
    for group in groups.values():
        shown = group if len(group) <= SHOWN + 1 else group[:SHOWN]
        for wait in shown:
            yield _wait(standing, wait, now, executor, children.get(wait.name))
        if len(group) > len(shown):
            names = f"{group[SHOWN].name} to {group[-1].name}" if group[-1].name else "timers"
            yield Said(f"and {count(len(group) - SHOWN, 'more', 'more')} like these: {names}")


def _wait(
    standing: Standing, wait: Wait, now: datetime, executor: Holder | None, child: Standing | None
) -> Said:
    since = f", {since_(wait.since, now)}" if wait.since else ""
    run = standing.run_id
    match wait.type:
        case "approval" | "input":
            return _gate(run, wait, now, since)
        case "event":
            wait_for = ["refold", "signal", run, wait.name, "--payload", "JSON"]
            return Said(f"it waits for the event {wait.name}{since}", [wait_for])
        case "child":
            return Said(
                f"it waits for its child {wait.name} ({wait.workflow}){since}{_in_turn(child)}",
                [["refold", "why", wait.name]],
            )
        case "start" if wait.until is not None:
            return Said(f"it is not to begin before {clock(wait.until)} UTC ({coming(wait.until, now)})")
        case "queue":
            return Said(
                f"it waits for a place in queue {wait.name}{since}; what the queue allows, and who is in it:",
                [["refold", "queues", "list", wait.name]],
            )
        case "worker":
            return Said(
                f"only a worker with tag {wait.name} executes it{since}; to start one:",
                [["refold", "worker", standing.source or "FILE.py", "--tag", wait.name]],
            )
        case "timer":
            return _timer(standing, wait, now, since)
        case "in_doubt":
            resolve = ["refold", "resolve", run, wait.name]
            return Said(
                f"step {wait.name} is in doubt{since}: attempt {wait.attempt} was cut off, and nobody knows "
                "what it did; look outside, then say so",
                [[*resolve, "completed", "--result", "JSON"], [*resolve, "failed", "--reason", "TEXT"],
                 [*resolve, "retry"]],
            )  # fmt: skip
        case _:
            return _step(standing, wait, now, since, executor)


_FOR = {
    "approval": "people, at {}", "input": "an answer, at {}", "event": "the event {}",
    "child": "its child {}", "retry": "another attempt at step {}",
    "in_doubt": "somebody to say what step {} did", "timer": "time", "start": "its time to begin",
    "queue": "a place in queue {}", "worker": "a worker with tag {}",
}  # fmt: skip


def _in_turn(child: Standing | None) -> str:
    """What a child waits for: at the end of such a chain is what has to happen first."""
    if child is None:
        return ""
    if child.attention in _CANNOT:
        return f", which cannot go on by itself ({child.attention.replace('_', ' ')})"
    waits = [_FOR.get(wait.type, "step {}").format(wait.name) for wait in child.waits[:SHOWN]]
    more = " and more" if len(child.waits) > SHOWN else ""
    return f", which waits for {', '.join(waits)}{more}" if waits else f", which is {child.status}"


def _gate(run: str, wait: Wait, now: datetime, since: str) -> Said:
    who = f" of {_or(wait.voters)}" if wait.voters else ""
    by = ["--by", wait.voters[0]] if wait.voters else []
    but = f" (not of {_or(wait.excluded)}, who asked for it)" if wait.excluded and not wait.voters else ""
    if wait.type == "input":
        needs = f"an answer{who}{but}"
        commands = [["refold", "answer", run, "JSON", "--gate", wait.name, *by]]
    else:
        needs = f"{count(wait.needed, 'more approval')}{who}{but}"
        select = ["--select", wait.options[0]] if wait.options else []
        commands = [
            ["refold", "approve", run, "--gate", wait.name, *select, *by],
            ["refold", "reject", run, "--gate", wait.name, "--feedback", "TEXT", *by],
        ]
    until = ""
    if wait.until is not None:
        then = _THEN.get(wait.on_timeout, "its time is up")
        until = f"; at {clock(wait.until)} UTC ({coming(wait.until, now)}) {then}, unless it is escalated"
    return Said(f'{wait.name} asks "{short(wait.prompt)}" and needs {needs}{since}{until}', commands)


_THEN = {
    "reject": "it counts as rejected", "approve": "it counts as approved",
    "fail": "the handler sees a timeout", "continue": "the handler goes on without a decision",
}  # fmt: skip


def _timer(standing: Standing, wait: Wait, now: datetime, since: str) -> Said:
    at = f"{clock(wait.until)} UTC ({coming(wait.until, now)})" if wait.until else "some time"
    others = any(other.type != "timer" for other in standing.waits)
    what = "a sleep or a deadline ends at" if others else "it sleeps until"
    return Said(f"{what} {at}{since}")


def _step(standing: Standing, wait: Wait, now: datetime, since: str, executor: Holder | None) -> Said:
    name = f"step {wait.name}" + (f" (undoes {wait.undoes})" if wait.undoes else "")
    of = f" of {wait.max_attempts}" if wait.max_attempts > 1 else ""
    run = standing.run_id
    match wait.type:
        case "retry":
            at = f"{clock(wait.until)} UTC ({coming(wait.until, now)})" if wait.until else "once"
            return Said(
                f"{name} failed (attempt {wait.attempt}{of}: {short(wait.error)}) and is tried again at {at}",
                [["refold", "skip", run, wait.name, "--result", "JSON"]],
            )
        case "running" if executor is None:
            return Said(
                f"{name} had begun (attempt {wait.attempt}{of}{since}), and its process is gone: what it did "
                "is not known; the next process that executes the store goes on as its options say"
            )
        case "running":
            return Said(f"{name} is running (attempt {wait.attempt}{of}){since}")
        case "interrupted":
            return Said(
                f"{name} was cut off in attempt {wait.attempt}{of}{since}; it goes on as its options say"
            )
        case "held":
            return Said(f"{name} has ended; that is held until the run is resumed")
        case _:
            return Said(f"{name} is to begin{since}")


# ---- who executes it, and what comes next --------------------------------------------------------------


def _mail(standing: Standing, now: datetime) -> Iterator[Said]:
    mail = standing.mail
    if not mail:
        return
    first = ", ".join(f"{one.what} by {one.by or 'somebody'}" for one in mail[:SHOWN])
    more = f" and {len(mail) - SHOWN} more" if len(mail) > SHOWN else ""
    age = since_(mail[0].at, now)
    yield Said(f"{count(len(mail), 'message')} in its inbox, not received yet ({first}{more}), {age}")


def executes(executor: Holder) -> str:
    """`process 4711 on vm has executed the store since …`."""
    if not executor.pid:
        return "a process executes the store"
    since = f" since {clock(executor.since)} UTC" if executor.since else ""
    return f"process {executor.pid} on {executor.host} executes the store{since}"


def _executor(standing: Standing, now: datetime, executor: Holder | None) -> Said:
    last = f"its last event was written {ago(standing.last_at, now)}"
    owner = process_of(standing.owner)
    if executor is None:
        was = f"; {owner} took it up last" if owner else ""
        return Said(f"no process executes the store now{was}; {last}", [go_on(standing)])
    if executor.owner and executor.owner == standing.owner:
        took = f" and took this run up {ago(standing.claimed_at, now)}" if standing.claimed_at else ""
        return Said(f"{executes(executor)}{took}; {last}")
    was = f"; {owner} took this run up last" if owner else ", and has not taken this run up"
    return Said(f"{executes(executor)}{was}; {last}")


def process_of(owner: str) -> str:
    """`vm:4711:0f3a` is process 4711 on vm."""
    found = re.fullmatch(r"(.+):(\d+):[0-9a-f]+", owner)
    return f"process {found[2]} on {found[1]}" if found else owner


def _next(standing: Standing, now: datetime, executor: Holder | None) -> Iterator[Said]:
    if standing.status == "paused":
        return
    timed = [(wait.until, _what_comes(wait)) for wait in standing.waits if wait.until is not None]
    if standing.deadline is not None:
        timed.append((standing.deadline, "the time of the run as a whole is up, and it is cancelled"))
    if not timed:
        return
    at, what = min(timed, key=lambda pair: pair[0])
    condition = "" if executor is not None else ", once a process executes the store"
    yield Said(f"next, at {clock(at)} UTC ({coming(at, now)}){condition}: {what}")


def _what_comes(wait: Wait) -> str:
    if wait.type == "retry":
        return f"step {wait.name} is tried again"
    if wait.type == "timer":
        return "a sleep or a deadline ends"
    if wait.type == "start":
        return "it may begin"
    return f"the time of {wait.name} is up"


def go_on(standing: Standing) -> Words:
    """`refold run app.py:checkout --id order-42`; FILE.py when the log does not say where the code is."""
    return ["refold", "run", f"{standing.source or 'FILE.py'}:{standing.workflow}", "--id", standing.run_id]


# ---- words ----------------------------------------------------------------------------------------------


def ago(at: datetime, now: datetime) -> str:
    """`3 min 10 s ago`."""
    return f"{seconds(max(0.0, (now - at).total_seconds()))} ago"


def coming(at: datetime, now: datetime) -> str:
    """`in 3 min`, or `overdue by 2 s`."""
    left = (at - now).total_seconds()
    return f"in {seconds(left)}" if left > 0 else f"overdue by {seconds(-left)}"


def since_(at: datetime, now: datetime) -> str:
    """`since 2026-01-31 12:00:00 UTC (3 min 10 s)`."""
    return f"since {clock(at)} UTC ({seconds(max(0.0, (now - at).total_seconds()))})"


def short(text: str) -> str:
    """Cut to what fits into a sentence."""
    return text if len(text) <= LONG else text[:LONG] + "…"


def _or(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
