"""`ctx.map`: one step, or one workflow, for each of many items; so many at a time.

The items are recorded once, as they were collected, and their numbers are reserved. A task for each item
would take 4 KB; here as many tasks as may be under way take one item after the other.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from msgspec import Raw

from ..events import codec, types as t
from ..events.errors import ConfigurationError, StepFailed, ValueRefused
from ..events.types import Event
from . import children, steps
from .commands import CancelCommand, Command
from .parallel import Crew, Results
from .step import NO_KWARGS, ONCE, Step, StepOptions, make_step
from .workflow import Workflow

MAX_ITEMS = 1_000_000
"""Of one map: an iterator without an end would be collected for ever."""

_split = codec.decoder(list[Raw])


class FanOutCommand(Command):
    """A map, with its items."""

    __slots__ = ("count", "items", "limit", "name", "reserves", "site", "skipped", "task_path")

    def __init__(
        self, name: str, items: Raw, count: int, limit: int, skipped: tuple[int, ...], site: str
    ) -> None:
        super().__init__()
        self.name, self.items, self.count, self.limit, self.skipped = name, items, count, limit, skipped
        self.reserves = count
        self.task_path, self.site = "", site

    def matches(self, event: Event) -> bool:
        return isinstance(event, t.FanOutOpened) and event.name == self.name

    def event(self, head: dict[str, Any]) -> Event:
        return t.FanOutOpened(
            fan_out=self.number, name=self.name, items=self.items, count=self.count, limit=self.limit,
            skipped=self.skipped, task=self.task_path, site=self.site, **head,
        )  # fmt: skip

    def taken_back(self, head: dict[str, Any]) -> Event:
        return t.FanOutClosed(fan_out=self.number, count=self.count, **head)

    def describe(self) -> str:
        return f"map of {self.name!r} over {self.count} items"


class _Target:
    """What each item goes through."""

    def __init__(self, run: Any, target: Any) -> None:
        self._run = run
        if not isinstance(target, Step | Workflow):
            if not callable(target):
                raise ConfigurationError(f"ctx.map expects a step, a workflow or a function, got {target!r}")
            target = make_step(target, None, StepOptions(retry=ONCE), kind="call")
        self.what: Step[Any, Any] | Workflow[Any, Any] = target
        self.name: str = target.name

    def check(self, items: Sequence[Raw]) -> None:
        """Before anything is recorded: whether children may be started with these. Raises as `ctx.child`."""
        if isinstance(self.what, Workflow):
            children.check_descent(self._run.started, self._run.workflow.name, self.what)
            for place, item in enumerate(items):
                try:
                    self.what.encode_args((item,))
                except ValueRefused as error:
                    raise ValueRefused(f"item {place} of the map: {error}", error.path) from None

    def value(self, item: Raw) -> Any:
        """The item as the body or handler gets it."""
        packed = Raw(b"[%b]" % item)
        if isinstance(self.what, Workflow):
            return self.what.decode_args(packed)[0]
        return self.what.decode_call(packed, NO_KWARGS, 1)[0][0]

    def begin(self, item: Raw, command: FanOutCommand, place: int) -> Any:
        """Issue it for one item; the future gets the result."""
        if isinstance(self.what, Workflow):
            child = children.start(
                self._run, self.what, (item,), site=command.site, fan_out=command, item=place
            )
            return child.future
        return steps.call(self._run, self.what, (item,), {}, command.site, fan_out=command, item=place)

    async def forgives(self, error: StepFailed, site: str) -> bool:
        """Whether an item may fail; a step that is to hear of it is called."""
        return isinstance(self.what, Step) and await self.what.forgives(self._run, site, error)


class _FanOut:
    """One call of `map`: its items, and what became of them."""

    def __init__(self, run: Any, target: _Target, command: FanOutCommand, patient: bool) -> None:
        self.run, self.target, self.command, self.patient = run, target, command, patient
        self.items: list[Raw] = _split(command.items, "items of a map")
        left_out = set(command.skipped)
        self.results: Results[Any] = Results([None] * command.count, command.skipped)
        self.todo: Iterator[int] = iter([i for i in range(command.count) if i not in left_out])
        self.left = command.count - len(left_out)
        """Items that have not begun."""
        self.error: BaseException | None = None
        """The first failure, when it ends the map."""
        self.crew = Crew(run.loop, self._ended)

    def begin(self) -> None:
        """Start as many tasks as may be under way."""
        self.run.held += self.size
        for number in range(min(self.command.limit or self.left, self.left)):
            self.crew.add(number, self._work())

    async def _work(self) -> None:
        """Take one item after the other."""
        task: Any = asyncio.current_task(self.run.loop)
        known = task.known
        for place in self.todo:
            self.left -= 1
            task.known = known  # the item does not come after the one that this task had before
            future = self.target.begin(self.items[place], self.command, place)
            try:
                self.results[place] = await future
            except Exception as error:
                if isinstance(error, StepFailed) and await self.target.forgives(error, self.command.site):
                    continue
                if not self.patient:
                    error.add_note(f"item {place} of a map of {self.command.name}")
                    raise
                self.results.failures[place] = error

    def _ended(self, _number: int, task: Any) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = self.error or error
            self.crew.stop()

    @property
    def size(self) -> int:
        """Bytes that the items take, and a little for each and for its result."""
        return len(self.command.items) + 150 * self.command.count

    def close(self) -> None:
        """Items that have not begun never will."""
        self.run.held -= self.size
        if self.left and not self.run.loop.evicting and not self.run.closed:
            self.run.issue(CancelCommand(self.command))


async def fan_out(
    run: Any, target: Any, items: Iterable[Any], *, limit: int | None,
    on_error: Literal["fail", "continue"], when: Callable[[Any], Any] | None, site: str,
) -> Results[Any]:  # fmt: skip
    """See `Context.map`."""
    run.check_open()
    if on_error not in ("fail", "continue"):
        raise ConfigurationError(f"ctx.map(on_error={on_error!r}): expected 'fail' or 'continue'")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigurationError(f"ctx.map(limit={limit!r}): expected an int, 1 or more, or None for all")
    through = _Target(run, target)
    recorded: t.FanOutOpened | None = run.recorded(t.FanOutOpened, name=through.name)
    if recorded is None:
        command = _collect(through, items, limit or 0, when, site)
    else:
        command = _again(through, recorded, items, when)
    command.task_path = getattr(asyncio.current_task(run.loop), "path", "")
    run.issue(command)
    work = _FanOut(run, through, command, on_error == "continue")
    error: BaseException | None = None
    try:
        work.begin()
        try:
            await work.crew.join()
        finally:
            work.close()
        if (error := work.error) is not None:
            raise error
        return work.results
    finally:
        del work, error  # cycles through tracebacks, which only the collector would find


def _collect(
    target: _Target, items: Iterable[Any], limit: int, when: Callable[[Any], Any] | None, site: str
) -> FanOutCommand:
    """Exhaust the iterator, once; nothing is left behind when it raises."""
    if not isinstance(items, Iterable):
        raise ConfigurationError(
            f"ctx.map({target.name}, {items!r:.80}): expected a list, or what can be listed"
        )
    collected = list(islice(iter(items), MAX_ITEMS + 1))
    if len(collected) > MAX_ITEMS:
        raise ConfigurationError(f"ctx.map takes at most {MAX_ITEMS:,} items; start several maps, or runs")
    packed = codec.encode(collected, f"items of the map of {target.name}")
    del collected
    raws: list[Raw] = _split(packed, "items of a map")
    target.check(raws)
    skipped: tuple[int, ...] = ()
    if when is not None:
        skipped = tuple(place for place, item in enumerate(raws) if not when(target.value(item)))
    return FanOutCommand(target.name, packed, len(raws), limit, skipped, site)


def _again(
    target: _Target, recorded: t.FanOutOpened, items: Iterable[Any], when: Callable[[Any], Any] | None
) -> FanOutCommand:
    """The recorded items count, whatever the iterator would give now.

    It is exhausted nevertheless, and conditions are asked: they may have drawn from `ctx.random`, or moved
    an iterator that the handler goes on with.
    """
    with contextlib.suppress(Exception):  # they did not raise when it counted
        deque(islice(iter(items), MAX_ITEMS + 1), maxlen=0)
        if when is not None:
            for item in _split(recorded.items, "items of a map"):
                when(target.value(item))
    return FanOutCommand(
        recorded.name, recorded.items, recorded.count, recorded.limit, recorded.skipped, recorded.site
    )
