"""Where and when a run may begin: the options of `start` that say so."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct, structs

from ..events import types as t
from ..events.errors import ConfigurationError
from ..events.work import ANY_WORKER
from .names import check_name, check_seconds
from .step import LONGEST_S

LARGEST = 2**31 - 1
"""Of a priority, either way."""


class Placement(Struct, frozen=True):
    """As `run.started` keeps it; its fields are those of the event."""

    start_at: datetime | None = None
    queue: str = ""
    priority: int = 0
    queue_key: str = ""
    run_on: str = ""
    lock: str = ""

    def of(self, run_on: str) -> "Placement":
        """This, of a workflow that says where its runs are to be executed."""
        return structs.replace(self, run_on=run_on) if run_on and not self.run_on else self


AT_ONCE = Placement()
"""Begin now, here or anywhere."""


def check_tags(tags: Any, only_tagged: Any) -> tuple[str, ...]:
    """What an engine executes: '' stands for runs that say nothing of where. Raises `ConfigurationError`."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise ConfigurationError(f"tags={tags!r:.80}: expected a list, tags=[…]")
    own = tuple(dict.fromkeys(check_name(tag, "tag") for tag in tags))
    if only_tagged and not own:
        raise ConfigurationError("only_tagged=True without tags: this engine would execute nothing")
    return own if only_tagged else (*ANY_WORKER, *own)


def may_wait(started: t.RunStarted) -> bool:
    """Whether a run may have to wait before it begins: then it is stored first, and found by whoever may."""
    return bool(started.start_at or started.queue or started.run_on)


def placement(
    now: datetime, *, queue: str | None, priority: int, queue_key: str | None, start_at: datetime | None,
    delay: float | None, run_on: str | None, lock: str | None,
) -> Placement:  # fmt: skip
    """The options of `start`, checked. Raises `ConfigurationError`."""
    for value, what in ((queue, "queue"), (queue_key, "queue key"), (run_on, "run_on"), (lock, "lock")):
        if value is not None:
            check_name(value, what)
    if queue is None and (priority or queue_key is not None):
        raise ConfigurationError("start(priority=…, queue_key=…) order the runs of a queue: give queue=, too")
    if type(priority) is not int or abs(priority) > LARGEST:
        raise ConfigurationError(
            f"start(priority={priority!r:.80}): expected a whole number, lower is sooner"
        )
    return Placement(
        _moment(now, start_at, delay), queue or "", priority, queue_key or "", run_on or "", lock or ""
    )


def child_placement(queue: str | None, priority: int, queue_key: str | None, run_on: str | None) -> Placement:
    """The options of `ctx.child`, checked. Raises `ConfigurationError`."""
    if queue is None and run_on is None and queue_key is None and priority == 0:
        return AT_ONCE
    return placement(
        datetime.min, queue=queue, priority=priority, queue_key=queue_key, start_at=None, delay=None,
        run_on=run_on, lock=None,
    )  # fmt: skip


def _moment(now: datetime, start_at: datetime | None, delay: float | None) -> datetime | None:
    if delay is not None:
        check_seconds(delay, "start(delay")
        if start_at is not None or not 0 <= delay < LONGEST_S:
            raise ConfigurationError(
                f"start(delay={delay!r}): expected seconds from now, 0 or more, and no start_at beside it"
            )
        return now + timedelta(seconds=delay) if delay else None
    if start_at is None:
        return None
    given: Any = start_at
    if not isinstance(given, datetime) or given.tzinfo is None:
        raise ConfigurationError(
            f"start(start_at={given!r:.80}): expected a datetime with a time zone, as datetime.now(UTC) has"
        )
    return given.astimezone(UTC) if given > now else None
