"""The store on a real PostgreSQL server."""

from pathlib import Path

import pytest

from refold.events.open import open_store
from refold.events.postgres import PostgresStore
from refold.events.store import Store
from refold.testing import StoreConformance
from tests.events.test_stores import LibraryCases


class TestPostgres(StoreConformance):
    @pytest.fixture(autouse=True)
    def schema(self, postgres: str) -> None:
        self.url = postgres

    def make_store(self, tmp_path: Path) -> Store:
        return open_store(self.url)

    def open_again(self, store: Store) -> Store:
        return open_store(self.url)


class TestLibraryCasesOnPostgres(LibraryCases):
    @pytest.fixture(autouse=True)
    def schema(self, postgres: str) -> None:
        self.url = postgres

    def recorder(self, tmp_path: Path) -> PostgresStore:  # type: ignore[override]
        return PostgresStore(self.url)
