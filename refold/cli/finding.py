"""What `refold doctor` says of one thing that it looked at."""

from typing import Literal

from msgspec import Struct

State = Literal["ok", "warning", "broken", "unknown"]


class Finding(Struct, frozen=True):
    """One line of the report."""

    name: str
    """What was looked at."""
    state: State
    found: str
    advice: str = ""
    """What to do about it."""
