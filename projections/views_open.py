"""From a store to its read models."""

from typing import Any

from .views import BUSY_S, Views
from .views_sqlite import SqliteViews


def open_views(store: Any, *, busy_s: float = BUSY_S) -> Views:
    """The read models of this store: in its schema on a server, in the file beside a file, else in memory.

    `busy_s` is how long to wait for another process that writes the same file.
    Raises a `StoreError`; `StoreReadOnly` when there are none, and none can be made.
    """
    server = getattr(store, "server", None)
    if server is None:
        return SqliteViews.of(store.url, busy_s=busy_s)
    # Not at the top: only who has such a store has the driver, which costs 60 ms.
    from .views_postgres import PostgresViews

    return PostgresViews(server)
