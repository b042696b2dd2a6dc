"""Queues and tags asked for what they cannot be."""

from pathlib import Path
from unittest import mock

from refold import Context, Engine, workflow
from refold.engine import queues
from refold.queues import Queue
from tests.engine.kit import engine
from tests.errors.cases import meets
from tests.errors.commanding import complains


@workflow
async def nothing(ctx: Context) -> None:
    pass


@meets("ConfigurationError", "start(priority=…, queue_key=…) order the runs of a queue: …")
async def a_priority_without_a_queue(folder: Path) -> None:
    async with engine("memory://", nothing) as e:
        await e.start(nothing, priority=1)


@meets("ConfigurationError", "start(priority=…): expected a whole number, …")
async def a_priority_that_is_no_number(folder: Path) -> None:
    async with engine("memory://", nothing) as e:
        await e.queues.set("q")
        await e.start(nothing, queue="q", priority=1.5)  # type: ignore[arg-type]


@meets("ConfigurationError", "nobody has declared queue …")
async def a_queue_that_nobody_has_declared(folder: Path) -> None:
    async with engine("memory://", nothing) as e:
        await e.start(nothing, queue="emial")


@meets("ConfigurationError", "queue …: …=…: expected a whole number, …")
def less_than_none_at_once(folder: Path) -> object:
    return Queue("q", concurrency=-1)


@meets("ConfigurationError", "queue …: rate=…: …")
def a_rate_without_a_period(folder: Path) -> object:
    return Queue("q", rate=10)  # type: ignore[arg-type]


@meets("ConfigurationError", "queues=[…] expects Queue(…), got …")
def a_name_for_a_queue(folder: Path) -> object:
    return Engine("memory://", queues=["q"])  # type: ignore[list-item]


@meets("ConfigurationError", "queues=[…] declares … twice: …")
def twice(folder: Path) -> object:
    return Engine("memory://", queues=[Queue("q"), Queue("q", per_key=1)])


@meets("ConfigurationError", "tags=…: expected a list, …")
def a_tag_for_tags(folder: Path) -> object:
    return Engine("memory://", tags="gpu")


@meets("ConfigurationError", "only_tagged=True without tags: …")
def only_nothing(folder: Path) -> object:
    return Engine("memory://", only_tagged=True)


@meets("StoreBusy", "queue …: others set its limits all the time; …")
async def others_set_them_too(folder: Path) -> None:
    async with engine("memory://", nothing) as e:
        with mock.patch.object(queues, "TRIES", 0):
            await e.queues.set("q")


meets("ConfigurationError", "limits are set with `refold queues set NAME …`")(
    complains("ConfigurationError", "queues", "--per-key", "1")
)
meets("ConfigurationError", "which queue? …")(complains("ConfigurationError", "queues", "set"))
