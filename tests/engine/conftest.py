"""What the engine's tests share: every store it runs on, asyncio as the host, and no handler left behind."""

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.fake import FakeRun
from tests.engine.kit import PLACES, Place

HUNG_S = 90


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty log, in turn on each kind of store. A run that never ends stops the tests, loudly."""
    faulthandler.dump_traceback_later(HUNG_S, exit=True, file=sys.__stderr__ or sys.stderr)
    yield PLACES[request.param](tmp_path)
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """What is left of a handler would run in some other test's garbage collection."""
    yield
    FakeRun.evict_all()
