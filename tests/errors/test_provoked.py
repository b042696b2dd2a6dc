"""Every message of the catalogue is met for real, and says what the catalogue says it does."""

import asyncio
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from refold import RefoldError, errors
from tests.errors.cases import CASES, Said
from tests.errors.catalogue import Entry, entries, says
from tests.errors.elsewhere import ELSEWHERE
from tests.errors.sites import ROOT

TOPICS = (
    "appending asking commanding declaring handling moving placing queueing repairing ruling sending serving "
    "storing testing viewing"
)
for _topic in TOPICS.split():
    import_module(f"tests.errors.{_topic}")


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: f"{entry[0]}: {entry[1]}"[:90])
def test_a_message_is_met(entry: Entry, tmp_path: Path) -> None:
    kind, message = entry
    try:
        made = CASES[entry](tmp_path)
        said = asyncio.run(made) if inspect.iscoroutine(made) else made
    except RefoldError as error:
        said = Said(type(error).__name__, str(error))
    assert isinstance(said, Said), "nothing was raised"
    assert issubclass(getattr(errors, said.kind), getattr(errors, kind)), said
    assert says(message, said.text), f"the catalogue: {message}\nthe code:      {said.text}"
    assert len(said.text.splitlines()[0]) < 1_500, "too long to be read"


def test_every_message_of_the_catalogue_is_met_here_or_in_a_test_that_has_to_do_with_it() -> None:
    assert CASES.keys() | ELSEWHERE.keys() == set(entries())
    assert not CASES.keys() & ELSEWHERE.keys()


def test_the_other_tests_are_there() -> None:
    for test in set(ELSEWHERE.values()):
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test
