"""The row of a run as its fold sees it, and how it goes in and out."""

from collections.abc import Sequence
from typing import Any

import msgspec

from .projection import Value
from .run_open import NOTHING, Open, decode_open, derive, encode
from .run_row import RunRow


class RunState(RunRow, gc=False):
    """The row with the hidden column parsed."""

    state: Open = msgspec.field(default_factory=Open)


def load(values: Sequence[Any]) -> RunState:
    """Stored values to the row."""
    row = RunState(*values)
    if row.open:
        row.state = decode_open(row.open)
    return row


def dump(row: RunState) -> tuple[Value, ...]:
    """The row to the values to store."""
    if row.ended_at is None:
        derive(row, row.state)
    packed = encode(row.state)
    row.open = None if packed == NOTHING and row.ended_at is not None else packed.decode()
    return msgspec.structs.astuple(row)[:-1]
