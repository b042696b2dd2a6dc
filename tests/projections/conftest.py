"""Stores to fold, of every kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.sqlite import SQLiteStore
from refold.events.store import Store
from refold.projections.views import Views
from refold.projections.views_open import open_views
from refold.projections.views_sqlite import SqliteViews


@pytest.fixture(autouse=True)
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes all read models a test has opened: Python 3.13 complains of those it finds open."""
    opened: list[SqliteViews] = []
    open_one = SqliteViews.__init__

    def remember(self: SqliteViews, *args: Any, **options: Any) -> None:
        opened.append(self)
        open_one(self, *args, **options)

    monkeypatch.setattr(Views, "__init__", remember)
    yield
    for views in opened:
        if hasattr(views, "connection"):
            views.close()


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty log."""
    store: Store
    if request.param == "postgres":
        store = open_store(request.getfixturevalue("postgres"))
    else:
        store = SQLiteStore(tmp_path / "x.db") if request.param == "sqlite" else MemoryStore()
    yield store
    store.close()


@pytest.fixture
def views(store: Store) -> Iterator[Views]:
    """The read models beside it."""
    views = open_views(store)
    yield views
    views.close()
