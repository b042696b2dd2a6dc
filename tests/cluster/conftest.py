"""One process that forks all others, for all tests of a test process."""

from collections.abc import Iterator

import pytest

from tests.cluster import kit


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    yield
    kit.stop()
