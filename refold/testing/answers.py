"""Whoever a run waits for, played by the test: votes, answers and events, sent when they are waited for."""

from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..engine.live import LiveRun
from ..events.gate import Gate

Act = Callable[[str, int, str], Awaitable[None]]
"""Called with a run's id, a gate's number, and who votes."""


class Reply:
    """A rule that answers gates, or waits for events, as they open. `replies` says how often it has."""

    def __init__(self, name: str | None, kinds: tuple[str, ...], after: float, times: int | None) -> None:
        self.name, self.kinds, self.after = name, kinds, after
        self.times = times
        self.replies = 0

    def fits(self, kind: str, name: str) -> bool:
        """Whether it answers a question of this kind and name: `approval`, `approval#1`, or a pattern."""
        plain = name.rpartition("#")[0] or name
        wanted = self.name is None or any(fnmatchcase(found, self.name) for found in (name, plain))
        return kind in self.kinds and wanted and (self.times is None or self.replies < self.times)


class GateReply(Reply):
    """Votes, or answers, at gates."""

    def __init__(
        self, name: str | None, kinds: tuple[str, ...], after: float, times: int | None,
        by: str | Sequence[str] | None, act: Act,
    ) -> None:  # fmt: skip
        super().__init__(name, kinds, after, times)
        self.act = act
        self._by = (by,) if isinstance(by, str) else None if by is None else tuple(by)

    def voters(self, gate: Gate) -> list[str]:
        """Who votes: those named, else as many of those that may as it takes."""
        names = self._by or gate.voters or ("user", *(f"user {n}" for n in range(2, gate.approvers + 2)))
        able = [name for name in names if name not in (*gate.opened.excluded, *gate.voted)]
        return able if self._by is not None else able[: max(1, gate.approvers - gate.approvals)]


class SignalReply(Reply):
    """Sends an event whenever one of its name is waited for."""

    def __init__(self, name: str, payload: Any, after: float, times: int | None) -> None:
        super().__init__(name, ("event",), after, times)
        self.payload = payload


class Replies:
    """The rules of one engine, and which questions they have dealt with."""

    def __init__(self) -> None:
        self.rules: list[Reply] = []
        self._seen: set[tuple[str, str, int, int]] = set()

    def forget(self) -> None:
        """The process has crashed: what is still open is open for a new one."""
        self._seen.clear()

    def new(self, live: LiveRun) -> list[tuple[Reply, Gate | str, int]]:
        """Questions of a run that have opened since, each with the first rule that fits it."""
        found: list[tuple[Reply, Gate | str, int]] = []
        for number, command in list(live.run.gates.items()):
            if command.gate is not None:
                gate = command.gate
                rule = self._first(
                    "gate", live.run_id, number, gate.opened.kind, gate.opened.name, gate.stage
                )
                if rule is not None:
                    found.append((rule, gate, number))
        for number, wait in list(live.run.waits.items()):
            rule = self._first("wait", live.run_id, number, "event", wait.name, 0)
            if rule is not None:
                found.append((rule, wait.name, number))
        return found

    def _first(self, what: str, run_id: str, number: int, kind: str, name: str, stage: int) -> Reply | None:
        if (what, run_id, number, stage) in self._seen:
            return None
        for rule in self.rules:
            if rule.fits(kind, name):
                self._seen.add((what, run_id, number, stage))
                rule.replies += 1
                return rule
        return None
