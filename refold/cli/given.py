"""What somebody gives on a command line: their name, and JSON."""

import getpass
from typing import Any

import msgspec

from ..events.errors import ConfigurationError


def principal() -> str:
    """Who sits at this terminal, for the log."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):  # no entry in the password database, as in many containers
        return "user"


def parse_json(text: str, what: str) -> Any:
    """A JSON value from the command line. Raises `ConfigurationError` with a hint."""
    try:
        return msgspec.json.decode(text.encode(errors="surrogateescape"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"{what}: not JSON: {error}; a text needs quotes of its own: '\"like this\"'"
        ) from None
