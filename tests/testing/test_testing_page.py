"""The reference of the test kit names everything there is, and nothing else."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import refold.testing
from refold import Engine
from refold.testing import Schedule, TestEngine, durable_crash, replay_history, schedules

PAGE = (Path(__file__).parents[2] / "docs/reference/testing.md").read_text()


def test_every_name_has_its_heading() -> None:
    headings = re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted(refold.testing.__all__)
    assert list(refold.testing.__all__) == sorted(refold.testing.__all__)


@pytest.mark.parametrize("function", [TestEngine, Schedule, replay_history, durable_crash, schedules])
def test_every_argument_is_named(function: Callable[..., Any]) -> None:
    missing = [name for name in inspect.signature(function).parameters if not said(name)]
    assert missing in ([], ["self"])


def test_every_method_of_the_engine_and_its_arguments_are_named() -> None:
    own = [name for name in dir(TestEngine) if not name.startswith("_") and not hasattr(Engine, name)]
    inner = {"bodies", "door", "on_start", "reply_to_new"}
    for name in sorted(set(own) - inner):
        assert said(name), name
        function = getattr(TestEngine, name)
        if inspect.isfunction(function):
            assert [p for p in inspect.signature(function).parameters if not said(p)] in ([], ["self"]), name


def said(name: str) -> bool:
    """Whether the page has it in a piece of code."""
    return re.search(rf"(`[^`\n]*\b|\A|\W){name}\b", PAGE) is not None


def test_control_what_is_missing_would_be_noticed() -> None:
    assert not said("approve_when_nobody_asked")
