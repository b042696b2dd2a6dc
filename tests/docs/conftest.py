"""One warm process for all pages a test process looks at."""

from collections.abc import Iterator

import pytest

from tests.docs.shell import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    warm = Server()
    yield warm
    warm.close()
