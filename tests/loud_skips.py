"""A skip that matters cannot pass in silence.

A test that cannot run where it is (no compiler, no second Python, no PostgreSQL) says so with
`pytest.skip("LOUD: …")`. On a developer's machine that is a skip; with `CI` set it is a failure.
"""

import os
from collections.abc import Generator

import pytest

LOUD = "Skipped: LOUD"


def _loud(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a loud skip into a failure when CI is set."""
    if not (os.environ.get("CI") and report.skipped and isinstance(report.longrepr, tuple)):
        return
    path, line, reason = report.longrepr
    if reason.startswith(LOUD):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: {reason} (loud skips are failures when CI is set)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _loud(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _loud(report)
    return report
