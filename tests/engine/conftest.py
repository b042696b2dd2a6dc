"""What the engine's tests share: every store it runs on, asyncio as the host, and no handler left behind."""

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.fake import FakeRun
from tests.engine.kit import PLACES, Place

HUNG_S = 90


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.slow), "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty log, in turn on each kind of store. A run that never ends stops the tests, loudly.

    Nobody keeps what matters in memory, so that is for the slow tests: what an engine needs of such a
    store is in the conformance suite, and `TestEngine` has its own tests.
    """
    faulthandler.dump_traceback_later(HUNG_S, exit=True, file=sys.__stderr__ or sys.stderr)
    if request.param == "postgres":
        yield request.getfixturevalue("postgres")
    else:
        yield PLACES[request.param](tmp_path)
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=PLACES)
def lone_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The same on each kind of store that one process executes at a time."""
    return PLACES[request.param](tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """What is left of a handler would run in some other test's garbage collection."""
    yield
    FakeRun.evict_all()
