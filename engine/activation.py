"""What a history is replayed from: each cause with what the handler asked for on it."""

from collections.abc import Mapping
from typing import NamedTuple

from ..events.types import Event


class Floors(NamedTuple):
    """Numbers that the rewound part of a history has used up: what is asked for anew gets others."""

    number: int = 0
    children: int = 0
    ordinals: Mapping[str, int] = {}


class Activation(NamedTuple):
    """One cause and the commands that were recorded with it."""

    cause: Event
    commands: list[Event]
    open: bool = False
    """Stored without its commands: they are still to come."""
    floors: Floors | None = None
    """The run was rewound to just before this cause."""
    began: float | None = None
    """Of the start of a run that did not begin at once: the epoch seconds its time counts from."""
