"""Stores to fold, of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.store import Store
from refold.projections.views import Views


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty log."""
    store: Store = SQLiteStore(tmp_path / "x.db") if request.param == "sqlite" else MemoryStore()
    yield store
    store.close()


@pytest.fixture
def views(store: Store) -> Iterator[Views]:
    """The read models beside it."""
    views = Views.of(store.url)
    yield views
    views.close()
