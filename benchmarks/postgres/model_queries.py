"""The same lists among a million runs as on SQLite, from tables on a server."""

from refold.events.postgres_server import Server
from refold.projections.views_postgres import PostgresViews

from ..harness import Figure, Scale
from ..model_queries import asked
from .place import log_url


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Lists and due queries."""
    server = Server(log_url(dsn, "queries"))
    views = PostgresViews(server)
    try:
        return asked(views, scale)
    finally:
        views.close()
        server.close()
