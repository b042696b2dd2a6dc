"""What a PostgreSQL server says of itself: how safe a log is there, and how old what it shows is."""

from typing import Any

from msgspec import Struct

from .postgres_address import in_schema
from .postgres_server import SCHEMA_VERSION, Server


class Behind(Struct, frozen=True):
    """How old what a copy shows may be."""

    seconds: float
    """Since it has heard of anything new; much of it may be that there was nothing."""
    events: int
    """That it has, and that have no position in the order of the whole log yet: they follow."""


class Health(Struct, frozen=True):
    """What decides whether an acknowledged event can be lost."""

    version: str
    schema: int
    settings: dict[str, str]
    copies: int | None
    """Standbys that confirm each commit; None: this user may not know."""
    behind: Behind | None
    """Of a standby; None: it is the primary."""


SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
_BEHIND = """
SELECT COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)::float8,
    (SELECT COALESCE(SUM(size), 0)::bigint FROM refold.commits WHERE first_position IS NULL)
"""
_COPIES = b"""
SELECT COUNT(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), COUNT(*) FILTER (WHERE sync_state IS NULL)
FROM pg_stat_replication
"""


def behind(server: Server) -> Behind | None:
    """None: it is the primary, which is not behind."""
    with server.reading() as connection:
        if not server.standby:
            return None
        row: Any = connection.execute(in_schema(_BEHIND, server.address.schema)).fetchone()
        return Behind(max(row[0], 0.0), row[1])


def health(server: Server) -> Health:
    """Asked of the server that is read from."""
    with server.reading() as connection:
        values = [
            str(connection.execute(f"SHOW {name}".encode()).fetchone()[0])  # type: ignore[index]
            for name in SETTINGS
        ]
        synchronous, unknown = connection.execute(_COPIES).fetchone()  # type: ignore[misc]
        version = connection.info.parameter_status("server_version") or ""
    return Health(
        version.partition(" ")[0],
        SCHEMA_VERSION,
        dict(zip(SETTINGS, values, strict=True)),
        None if unknown and not synchronous else synchronous,
        behind(server),
    )
