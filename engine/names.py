"""What may be a name: of a run, a key, an event, a step, a principal. Checked before anything is written."""

import re
from typing import Any

from ..events.errors import ConfigurationError, RunNotFound
from ..events.stream import NO_RUNS

_TAKEN = re.compile(r"~r?[0-9]+$")
LONGEST = 200
"""Characters of a name."""
LONGEST_TEXT = 8_192
"""Characters of a reason."""


def check_name(value: Any, what: str) -> str:
    """The value, if it can be a name. Raises `ConfigurationError`."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isprintable():
        raise ConfigurationError(
            f"{what} {shown(value)}: expected 1 to {LONGEST} printable characters, got {_found(value)}"
        )
    return value


def check_run_id(value: Any) -> str:
    """The value, if it can be a run's id. Raises `ConfigurationError`."""
    name = check_name(value, "run id")
    if "/" in name or name != name.strip() or f"{name}/" in NO_RUNS:
        raise ConfigurationError(
            f"run id {name!r}: expected no '/', no spaces around it, and not the word "
            f"{' or '.join(repr(prefix[:-1]) for prefix in NO_RUNS)} alone"
        )
    if _TAKEN.search(name):
        raise ConfigurationError(
            f"run id {name!r}: ids that end so are those of children, or of runs that go on"
        )
    return name


def check_text(value: Any, what: str) -> str:
    """The value, if it is text that can be stored. Raises `ConfigurationError`."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not _is_unicode(value):
        raise ConfigurationError(
            f"{what} {shown(value)}: expected text of at most {LONGEST_TEXT} characters, got {_found(value)}"
        )
    return value


def is_number(value: Any) -> bool:
    """Whether it is an int or a float; True and False are neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seconds(value: Any, what: str) -> None:
    """Raises `ConfigurationError` for what is no number of seconds, a `timedelta` for one."""
    if not is_number(value) or value != value:
        raise ConfigurationError(f"{what}={value!r:.80}): expected seconds, as an int or a float")


def run_to_find(value: Any) -> str:
    """The value, if a run could have this id: a store cannot look for anything else. Raises `RunNotFound`."""
    if not isinstance(value, str) or not _is_unicode(value) or value.startswith(NO_RUNS):
        raise RunNotFound(value)
    return value


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def shown(value: Any) -> str:
    """For a message: however long the value is, its beginning will do."""
    text = repr(value[:80] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _found(value: Any) -> str:
    return f"{len(value):,} characters" if isinstance(value, str) else type(value).__name__
