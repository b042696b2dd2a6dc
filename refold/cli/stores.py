"""Which store a command means, and opening it: reading commands never make one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from ..engine.engine import DEFAULT_STORE
from ..events.errors import ConfigurationError, StoreReadOnly
from ..events.hold import Holder, executor_of
from ..events.open import open_reader, open_store
from ..events.store import Reading, Store
from ..projections import queries
from ..projections.core import CORE
from ..projections.rebuild import open_runner
from ..projections.runner import Runner
from ..projections.views import Views
from ..projections.views_open import open_views
from ..projections.views_sqlite import SqliteViews
from .screen import complain
from .text import count


def store_url(given: str | None) -> str:
    """The option, else `$REFOLD_STORE`, else `refold.db`."""
    if given == "":
        raise ConfigurationError("--store is empty: is the variable set that it was to come from?")
    return given or os.environ.get("REFOLD_STORE") or DEFAULT_STORE


def shared_url(given: str | None) -> str:
    """The same, of a store that other processes can open, too."""
    url = store_url(given)
    if url.startswith("memory://"):
        raise ConfigurationError(f"{url}: nobody else could start runs there; give --store a file")
    return url


def _named(given: str | None) -> str:
    url = store_url(given)
    if url.startswith("memory://"):
        raise ConfigurationError(
            f"{url}: a store in memory ends with its process; there is nothing to look at"
        )
    return url


@contextmanager
def existing(given: str | None) -> Iterator[Store]:
    """A store that is there already. Raises a `StoreError` otherwise."""
    store = open_store(_named(given), create=False)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def proving(given: str | None) -> Iterator[Store]:
    """The same, to read all of it; on PostgreSQL a copy that follows will do."""
    url = _named(given)
    if not url.startswith("postgres"):
        with existing(given) as store:
            yield store
        return
    with looking(given) as reader:
        yield cast(Store, reader)


@contextmanager
def looking(given: str | None) -> Iterator[Reading]:
    """The same, only to read it: sooner open."""
    store = open_reader(_named(given))
    try:
        _tell_how_old(store)
        yield store
    finally:
        store.close()


def _tell_how_old(store: Reading) -> None:
    """Of a copy that follows, which somebody who looks must know; not among what was asked for."""
    ask: Callable[[], Any] = getattr(store, "behind", lambda: None)
    if (behind := ask()) is not None:
        complain(f"this is a standby, which heard the last news {behind.seconds:.1f} s ago")


@contextmanager
def caught_up(store: Reading) -> Iterator[Views]:
    """The read models as of now; folded in memory where none can be written, or on a server as they stand."""
    try:
        views: Views = open_views(store)
    except StoreReadOnly:
        views = SqliteViews(None)
    try:
        try:
            _catch_up(store, views)
        except StoreReadOnly as error:
            if views.shared:
                _say_how_old(store, views, error)
            else:
                views.close()
                views = SqliteViews(None)
                _catch_up(store, views)
        yield views
    finally:
        views.close()


def _catch_up(store: Reading, views: Views) -> None:
    runner, end = open_runner(store, views, CORE), store.position()
    if views.shared:
        runner.reach(end)
    elif runner.position < end:  # else even the lock would be for nothing
        while runner.catch_up(2_000):
            pass


def _say_how_old(store: Reading, views: Views, error: StoreReadOnly) -> None:
    """A server that only reads, or a user who may not write, sees what others have folded."""
    lag = Runner(store, views, CORE).lag()
    if lag.events:
        behind = count(lag.events, "event")
        complain(f"the lists are {behind} behind the log, and cannot be brought up here: {error}")


def list_runs(store: Reading, filters: dict[str, Any]) -> queries.Page:
    """A page of runs, from read models that are caught up first."""
    with caught_up(store) as views:
        return queries.list_runs(views, **filters)


def executors_of(store: Reading) -> list[Holder]:
    """The processes that execute the store now: one, at the most, of a file."""
    ask: Callable[[], list[Holder]] | None = getattr(store, "executors", None)
    if ask is not None:
        return ask()
    one = executor_of(store)
    return [] if one is None else [one]
