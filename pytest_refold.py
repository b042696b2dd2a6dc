"""The pytest plugin: fixtures and a marker for tests of workflows.

A module of its own beside the package: loading it loads nothing of Refold until a test asks for a fixture.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MARKER = "refold_histories"


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker, also when it is strict."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(folder): run the test once for each *.jsonl file of the folder, as its `refold_history`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each recorded history."""
    if "refold_history" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None or len(marker.args) != 1:
        pytest.fail(
            f"{metafunc.definition.nodeid}: `refold_history` needs @pytest.mark.{MARKER}(FOLDER), a folder "
            "beside the test's file",
            pytrace=False,
        )
    from refold import ConfigurationError
    from refold.testing import history_files

    try:
        files = history_files(Path(metafunc.definition.path).parent / marker.args[0])
    except ConfigurationError as error:
        pytest.fail(str(error), pytrace=False)
    metafunc.parametrize("refold_history", files, ids=[file.stem for file in files])


@pytest.fixture
def refold_engine() -> Callable[..., Any]:
    """Make a `TestEngine`: `async with refold_engine(checkout, strict=True) as engine:`."""
    from refold.testing import TestEngine

    def make(*workflows: Any, **options: Any) -> TestEngine:
        return TestEngine(workflows=workflows, **options)

    return make


@pytest.fixture
def durable_crash(tmp_path: Path) -> Callable[..., Any]:
    """`refold.testing.durable_crash` in the folder of this test."""
    from refold.testing import durable_crash as play

    def play_here(*args: Any, **options: Any) -> Any:
        return play(*args, **{"folder": tmp_path, **options})

    return play_here
