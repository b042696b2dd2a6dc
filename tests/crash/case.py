"""What goes into the fork server and what comes out."""

from typing import Any

import msgspec


class Case(msgspec.Struct, kw_only=True):
    """Processes that execute one run after another died, until it has ended."""

    folder: str
    flow: str
    kills: tuple[int, ...] = ()
    """At which moment each process but the last dies."""
    synced: bool = False
    """Whether every commit waits for the disk."""
    cheat: str = ""
    """Name of a sabotage, of `cheats.py`."""
    reference: str = ""
    """File with the normal form of the run that nobody killed; written when it does not exist."""
    stranger: int = 0
    stranger_kind: str = "twin"
    letters_at: tuple[int, ...] = ()
    """Moments of an executing process at which another process sends the run a letter."""
    script: str = ""
    """Which letters, of `letters.py`; empty: those of the workflow."""
    patience_s: float = 60.0
    """A run that has not ended by then hangs: the longest takes a second, ten on a disk that others use."""


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a case."""

    problems: list[str]
    deaths: list[str]
    """At which moments processes died."""
    moments: int
    """How many moments the last process passed."""
    commits: int = 0
    refused: int = 0
    result: Any = None
