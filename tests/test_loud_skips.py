"""A skip whose reason begins with LOUD is a skip for a developer and a failure in CI."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SKIPS = """
import pytest

def test_that_skips_loudly():
    pytest.skip("LOUD: no compiler here")

@pytest.mark.skipif(True, reason="LOUD: no second Python here")
def test_that_a_mark_skips_loudly():
    pass

def test_that_skips_quietly():
    pytest.skip("not on this system")
"""


def outcomes(pytester: pytest.Pytester) -> dict[str, int]:
    pytester.makeconftest(Path(__file__).with_name("loud_skips.py").read_text())
    pytester.makepyfile(SKIPS)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider").parseoutcomes()


def test_loud_skips_fail_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    # a mark skips in the set-up of a test, and a set-up that fails is an error
    assert outcomes(pytester) == {"failed": 1, "errors": 1, "skipped": 1}


def test_loud_skips_skip_elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert outcomes(pytester) == {"skipped": 3}


def test_a_module_that_skips_itself_loudly_fails_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makeconftest(Path(__file__).with_name("loud_skips.py").read_text())
    pytester.makepyfile("import pytest\npytest.skip('LOUD: nothing here', allow_module_level=True)")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["*LOUD: nothing here*"])
