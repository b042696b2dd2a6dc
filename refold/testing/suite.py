"""What the parts of the conformance suite share."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ..events.open import open_store
from ..events.store import Store, Unit
from ..events.work import Work


class Suite:
    """How a suite gets at the store it is about."""

    def make_store(self, tmp_path: Path) -> Store:
        """A new, empty store."""
        raise NotImplementedError

    def open_again(self, store: Store) -> Store:
        """Another handle on the same log, as another process would have it."""
        return open_store(store.url)


def error(kind: type[Exception], act: Callable[[], object]) -> str:
    """The message of the error that `act` must raise."""
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was not raised")


def put(store: Store, *rows: Work) -> None:
    """Store rows of `work`."""
    assert store.commit([Unit(works=(row,)) for row in rows]) == [None] * len(rows)


def close(handles: Sequence[Store]) -> None:
    """Close all of them."""
    for handle in handles:
        handle.close()


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run the jobs at the same time; the first error of any is raised here."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
