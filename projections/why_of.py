"""Why a run of a store stands where it stands, its inbox, its children and who executes it included."""

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from ..events.errors import RunNotFound
from ..events.hold import executor_of
from ..events.store import Reading
from ..events.stream import INBOX
from .why import Standing, stand
from .why_words import SHOWN, tell


class Why(Struct, frozen=True):
    """How a run stands: `str()` of it says so in sentences."""

    standing: Standing
    """What it waits for, and all else that is known, as data."""
    said: tuple[str, ...]
    """The sentences, the first one about the run as a whole."""
    commands: tuple[tuple[str, ...], ...]
    """What one could type to move it, without the store: `("refold", "resume", "order-42")`."""

    def __str__(self) -> str:
        return "\n".join(self.said)


def why(store: Reading, run_id: str, now: datetime) -> Why:
    """What `refold why` says. Raises `RunNotFound`."""
    standing = look(store, run_id)
    told = tell(standing, now, executor_of(store), dict(children_of(store, standing)))
    commands = tuple(tuple(words) for said in told for words in said.commands)
    return Why(standing, tuple(said.text for said in told), commands)


def look(store: Reading, run_id: str) -> Standing:
    """How a run stands, its inbox included. Raises `RunNotFound`."""
    work = store.work(run_id) if "/" not in run_id else None
    if work is None:
        raise RunNotFound(run_id)
    return stand(store.read(run_id), store.read(run_id + INBOX, work.seen))


def children_of(store: Reading, standing: Standing) -> Iterator[tuple[str, Standing]]:
    """The children that are shown, each as it stands, or as the run does that goes on for it."""
    names = [wait.name for wait in standing.waits if wait.type == "child"][: SHOWN + 1]
    for name in names:
        if store.work(name) is not None:  # of a single run that was brought here the children may be missing
            child = look(store, name)
            while child.end is not None and child.end.next_run:
                child = look(store, child.end.next_run)
            yield name, child
