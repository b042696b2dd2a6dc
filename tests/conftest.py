"""What all tests share: loud skips, and a PostgreSQL server for those who ask for one."""

import secrets
from collections.abc import Iterator

import psycopg
import pytest

from tests import pg
from tests.loud_skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]


def pytest_sessionfinish() -> None:
    pg.stop()


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """URL of a PostgreSQL server for the tests of this process."""
    return pg.running()


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """URL of a schema of its own, gone after the test."""
    schema = f"test_{secrets.token_hex(6)}"
    yield f"{postgres_server}{'&' if '?' in postgres_server else '?'}schema={schema}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
