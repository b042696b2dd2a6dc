"""What started a run: a kind, and what belongs to it."""

from datetime import datetime
from typing import Any, Literal, get_args

from msgspec import Struct

Kind = Literal[
    "manual", "api", "cli", "webhook", "schedule", "event", "workflow", "hook", "retry", "fork",
    "continue_as_new",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
_CHILD = "parent"
"""How `run.started` calls the kind `workflow`."""


class Trigger(Struct, frozen=True, omit_defaults=True):
    """What started a run. Make one with `webhook`, `schedule`, `event`, `hook` or `retry`.

    A bare word is enough for `start(trigger=…)` where nothing belongs to it: `"manual"`, `"api"`, or one of
    your own.
    """

    kind: str
    """One of `KINDS`, or a word of the program's own."""
    path: str = ""
    """Of a webhook."""
    name: str = ""
    """Of a schedule or a hook."""
    nominal_at: datetime | None = None
    """When the schedule was due, which may be before the run was started."""
    topic: str = ""
    """Of an event."""
    run_id: str = ""
    """The run that it came from: the parent of a child, what is retried, what the hook belongs to …"""

    @classmethod
    def webhook(cls, path: str) -> "Trigger":
        """A request that came to this path."""
        return cls("webhook", path=path)

    @classmethod
    def schedule(cls, name: str, nominal_at: datetime) -> "Trigger":
        """A schedule, and the time at which it was due."""
        return cls("schedule", name=name, nominal_at=nominal_at)

    @classmethod
    def event(cls, topic: str) -> "Trigger":
        """A message on this topic."""
        return cls("event", topic=topic)

    @classmethod
    def hook(cls, name: str, run_id: str = "") -> "Trigger":
        """A hook, and the run that it was called for. Runs started so, and their children, call no hooks."""
        return cls("hook", name=name, run_id=run_id)

    @classmethod
    def retry(cls, run_id: str) -> "Trigger":
        """A run that was done again as a new one."""
        return cls("retry", run_id=run_id)

    def __str__(self) -> str:
        """In words: `webhook /orders`, `schedule nightly of 2026-01-31 02:00 UTC`."""
        words = [self.kind, self.path or self.topic or self.name]
        if self.nominal_at is not None:
            words.append(f"of {self.nominal_at:%Y-%m-%d %H:%M %Z}")
        if self.run_id:
            words.append(self.run_id)
        return " ".join(word for word in words if word)


def trigger_of(started: Any) -> Trigger:
    """What started the run of a `run.started`, also of one from before triggers were kept with what belongs
    to them."""
    if started.triggered_by is not None:
        found: Trigger = started.triggered_by
        return found
    if started.trigger == _CHILD and started.ancestors:
        return Trigger("workflow", run_id=started.ancestors[-1].run_id)
    if started.trigger == "continue_as_new":
        return Trigger(started.trigger, run_id=started.continued_from)
    return Trigger(started.trigger, run_id=started.forked_from)
