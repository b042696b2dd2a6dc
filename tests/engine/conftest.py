"""What the engine's tests share: every store it runs on, asyncio as the host, and no handler left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.fake import FakeRun
from tests.engine.kit import PLACES, Place


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty log, in turn on each kind of store."""
    return PLACES[request.param](tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """What is left of a handler would run in some other test's garbage collection."""
    yield
    FakeRun.evict_all()
