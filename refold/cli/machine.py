"""What `refold doctor` looks at whatever the store: Python, packages, SQLite, the terminal."""

import os
import platform
import re
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .finding import Finding
from .screen import Screen

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 35, 0)
"""What the tests run with is 3.40; older than this lacks features that are used."""
_SPEC = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")


def check_machine(screen: Screen) -> Iterator[Finding]:
    """One after the other."""
    yield _python()
    yield from _packages()
    yield _copies()
    yield _sqlite()
    yield _terminal(screen)


def _python() -> Finding:
    kind, version = platform.python_implementation(), platform.python_version()
    found = f"{kind} {version} on {platform.system()} ({sys.executable})"
    if sys.version_info < OLDEST_PYTHON or kind != "CPython":
        return Finding("python", "broken", found, "use CPython 3.11 or newer")
    if platform.system() not in ("Linux", "Darwin"):
        return Finding(
            "python", "broken", found, "use Linux or macOS: locks of files work otherwise elsewhere"
        )
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    try:
        needed = metadata.requires("refold") or []
        names = [f"refold {metadata.version('refold')}"]
    except metadata.PackageNotFoundError:
        advice = "install it: pip install refold; or use the environment that has it"
        yield Finding("packages", "broken", "refold runs from files that were never installed", advice)
        return
    wrong: list[str] = []
    for requirement in needed:
        if ";" in requirement:  # of an extra, or not for this machine
            continue
        matched = re.match(r"[A-Za-z0-9._-]+", requirement)
        name = matched[0] if matched else requirement
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        names.append(f"{name} {version}")
        if not fits(version, requirement):
            wrong.append(f"{name} {version} is not {requirement.removeprefix(name)}")
    if wrong:
        yield Finding("packages", "broken", "; ".join(wrong), "pip install --upgrade refold")
    else:
        yield Finding("packages", "ok", ", ".join(names))


def fits(version: str, requirement: str) -> bool:
    """Whether a version is one that a requirement such as `anyio<5,>=4.9` admits.

    >>> fits("4.9.0", "anyio<5,>=4.9"), fits("4.10.1", "anyio<5,>=4.9"), fits("5.0", "anyio<5,>=4.9")
    (True, True, False)
    """
    own = _numbers(version)
    for sign, bound in _SPEC.findall(requirement):
        other = _numbers(bound)
        admitted = {
            ">=": own >= other, "<=": own <= other, "==": own == other, "!=": own != other, "<": own < other,
            ">": own > other,
        }[sign]  # fmt: skip
        if not admitted:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in re.findall(r"\d+", version)[:4]]
    return (*parts, *[0] * (4 - len(parts)))


def _copies() -> Finding:
    """An old copy beside the installed one is the usual reason why a change does nothing."""
    own = Path(__file__).resolve().parent.parent
    others: dict[Path, None] = {}
    for entry in sys.path:
        place = Path(entry or os.curdir, "refold")
        if (place / "__init__.py").is_file() and (found := place.resolve()) != own:
            others[found] = None
    if not others:
        return Finding("code", "ok", f"imported from {own}")
    told = ", ".join(map(str, others))
    advice = "remove one, or start Python elsewhere: two copies of an event type are two types"
    return Finding("code", "warning", f"imported from {own}, but there are also {told}", advice)


def _sqlite() -> Finding:
    found = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        return Finding(
            "sqlite", "broken", found, f"use a Python that was built with SQLite {oldest} or newer"
        )
    if sqlite3.threadsafety != 3:
        advice = "use a Python whose SQLite was compiled for several threads (SQLITE_THREADSAFE=1)"
        return Finding("sqlite", "broken", f"{found}, not for several threads", advice)
    return Finding("sqlite", "ok", found)


def _terminal(screen: Screen) -> Finding:
    encoding = getattr(screen.stream, "encoding", None) or "unknown"
    kind = f"{screen.width} columns" if screen.terminal else "not a terminal"
    colours = "with colours" if screen.colours else "without colours"
    found = f"{kind}, {colours}, {encoding}"
    if not screen.unicode:
        return Finding(
            "terminal", "warning", found, "set LANG to a UTF-8 locale; until then bars are drawn in ASCII"
        )
    return Finding("terminal", "ok", found)
