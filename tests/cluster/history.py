"""Whether what clients saw of a stream can be explained by one order of things: linearizability.

A stream is an object with two operations: *append this at version v* (refused when the stream stands
elsewhere) and *read it all*. Every event has an id of its own, and the log that is left says in which
order those that took effect did. So no search is needed: an append that put version v takes effect between
every read of v - 1 events and every read of v; these places are the only ones there are. The history is
linearizable if and only if

1. what was acknowledged is in the log once, at the version it was given; what was refused is not;
2. each read gives the first events of the log, and each refusal a version at which it was due;
3. no operation had answered before another one was asked that has an earlier place.

An operation whose outcome its client never heard may have taken effect or not, at any time since.
`by_search` tries all orders instead, as Wing and Gong (1993) do, and shows that these three rules are right.
"""

from collections.abc import Iterator, Sequence
from math import inf

from msgspec import Struct

from tests.crash.scene import Scene


class Op(Struct, frozen=True, kw_only=True):
    """What one client asked, when, and what it heard. Times are of one monotonic clock."""

    kind: str
    """`append`, `post` (an append wherever the end is), or `read`."""
    asked: float
    answered: float = inf
    """Infinite: never."""
    outcome: str = "ok"
    """`ok`, `refused`, or `unknown`."""
    event: str = ""
    """Id of what was to be appended."""
    expected: int = 0
    """At which version, for `append`."""
    found: int = 0
    """The version that a refusal names."""
    seen: tuple[str, ...] = ()
    """What was read."""


def problems(history: Sequence[Op], log: Sequence[str]) -> list[str]:
    """Why the history is not linearizable, `log` being what the stream holds in the end; empty: it is."""
    found: list[str] = []
    places: list[tuple[int, Op]] = []
    index = {event: number for number, event in enumerate(log)}
    if len(index) != len(log):
        found.append("the log holds an event twice")
    for op in history:
        place = _place(op, log, index)
        if isinstance(place, str):
            found.append(f"{place}: {_short(op)}")
        elif place is not None:
            places.append((place, op))
    found += _out_of_time(sorted(places, key=lambda each: each[0]))
    return found


def _place(op: Op, log: Sequence[str], index: dict[str, int]) -> int | str | None:
    """Where it took effect, appends at odd places and reads in between; None: nowhere; or what is wrong."""
    if op.kind == "read" or op.outcome == "refused":
        return _place_of_look(op, log, index)
    at = index.get(op.event)
    if at is None:
        return "a lost update: it was acknowledged and is not in the log" if op.outcome == "ok" else None
    if op.kind == "append" and at != op.expected:
        return f"it was to be version {op.expected + 1} and is {at + 1}"
    return 2 * at + 1


def _place_of_look(op: Op, log: Sequence[str], index: dict[str, int]) -> int | str | None:
    if op.kind == "read":
        if op.outcome != "ok":
            return None
        if tuple(log[: len(op.seen)]) != op.seen:
            return "it read what the log does not begin with"
        return 2 * len(op.seen)
    if op.event in index:
        return "an own write reported as a conflict"
    if op.found == op.expected or op.found > len(log):
        return f"it was refused with version {op.found}"
    return 2 * op.found


def _out_of_time(places: list[tuple[int, Op]]) -> Iterator[str]:
    """Pairs of which the later in the log had answered before the earlier was asked."""
    latest, waiting = -inf, list[Op]()
    before: Op | None = None
    last = -1
    for place, op in places:
        if place != last:
            for each in waiting:
                if each.asked > latest:
                    latest, before = each.asked, each
            waiting, last = [], place
        if op.answered < latest and before is not None:
            yield f"{_short(op)} had answered before {_short(before)} was asked, which comes before it"
        waiting.append(op)


def _short(op: Op) -> str:
    what = f"{len(op.seen)} events" if op.kind == "read" else f"{op.event} at {op.expected}"
    return f"{op.kind} of {what}, {op.outcome}, from {op.asked} to {op.answered}"


# ---- all orders


def by_search(history: Sequence[Op], log: Sequence[str]) -> bool:
    """Whether any order explains the history; exponential, for a handful of operations."""
    return _explained(frozenset(range(len(history))), (), history, tuple(log))


def _explained(
    left: frozenset[int], state: tuple[str, ...], history: Sequence[Op], log: tuple[str, ...]
) -> bool:
    if all(history[number].outcome == "unknown" for number in left) and state == log:
        return True
    first_answer = min((history[number].answered for number in left), default=inf)
    for number in left:
        op = history[number]
        if op.asked > first_answer:
            continue  # another one was through before this one was asked
        after = _step(op, state)
        fits = after is not None and after == log[: len(after)]
        if fits and _explained(left - {number}, after or (), history, log):
            return True
    return False


def _step(op: Op, state: tuple[str, ...]) -> tuple[str, ...] | None:
    """The stream after the operation; None: it cannot have been answered like this now."""
    if op.kind == "read":
        return state if op.outcome == "unknown" or op.seen == state else None
    fits = op.kind == "post" or op.expected == len(state)
    if op.outcome == "refused":
        return state if not fits and op.found == len(state) else None
    return (*state, op.event) if fits else (state if op.outcome == "unknown" else None)


# ---- recorded by many processes


def recorded(scene: Scene) -> dict[str, list[Op]]:
    """By stream, what all processes have noted."""
    found: dict[str, list[Op]] = {}
    for stream, fields in scene.heard("history"):
        fields["seen"] = tuple(fields["seen"])
        fields["answered"] = inf if fields["answered"] is None else fields["answered"]
        found.setdefault(stream, []).append(Op(**fields))
    return found
