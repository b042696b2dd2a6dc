"""Which store a command means, and opening it: reading commands never make one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engine.engine import DEFAULT_STORE
from ..engine.read_models import ReadModels
from ..events.errors import ConfigurationError, StoreReadOnly
from ..events.open import open_store
from ..events.store import Store
from ..projections import queries
from ..projections.core import CORE
from ..projections.rebuild import open_runner
from ..projections.views import Views


def store_url(given: str | None) -> str:
    """The option, else `$REFOLD_STORE`, else `refold.db`."""
    if given == "":
        raise ConfigurationError("--store is empty: is the variable set that it was to come from?")
    return given or os.environ.get("REFOLD_STORE") or DEFAULT_STORE


@contextmanager
def existing(given: str | None) -> Iterator[Store]:
    """A store that is there already. Raises a `StoreError` otherwise."""
    url = store_url(given)
    if url.startswith("memory://"):
        raise ConfigurationError(
            f"{url}: a store in memory ends with its process; there is nothing to look at"
        )
    store = open_store(url, create=False)
    try:
        yield store
    finally:
        store.close()


def list_runs(store: Store, filters: dict[str, Any]) -> queries.Page:
    """A page of runs, from read models that are caught up first; without a file where none can be written."""
    try:
        models = ReadModels(store)
    except StoreReadOnly:
        return _from_memory(store, filters)
    try:
        models.catch_up()
        return models.list_runs(**filters)
    except StoreReadOnly:
        return _from_memory(store, filters)
    finally:
        models.close()


def _from_memory(store: Store, filters: dict[str, Any]) -> queries.Page:
    views = Views(None)
    try:
        runner = open_runner(store, views, CORE)
        while runner.catch_up(2_000):
            pass
        return queries.list_runs(views, **filters)
    finally:
        views.close()
