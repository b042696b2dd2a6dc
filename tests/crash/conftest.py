"""One warm fork server for each test module and process."""

from collections.abc import Iterator

import pytest

from tests.crash.kit import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("crash")) as server:
        yield server
