"""Stores to fold, of both kinds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.store import Store
from refold.projections.views import Views


@pytest.fixture(autouse=True)
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes all read models a test has opened: Python 3.13 complains of those it finds open."""
    opened: list[Views] = []
    open_one = Views.__init__

    def remember(self: Views, *args: Any, **options: Any) -> None:
        opened.append(self)
        open_one(self, *args, **options)

    monkeypatch.setattr(Views, "__init__", remember)
    yield
    for views in opened:
        if hasattr(views, "connection"):
            views.close()


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
