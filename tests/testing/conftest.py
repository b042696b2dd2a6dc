"""What the tests of the test kit share."""

import faulthandler
import sys
from collections.abc import Iterator

import pytest

HUNG_S = 90


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _hangs_are_loud() -> Iterator[None]:
    """A run that never ends stops the tests, with a traceback."""
    faulthandler.dump_traceback_later(HUNG_S, exit=True, file=sys.__stderr__ or sys.stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
