"""The columns of `fan_outs` and `fan_out_items`."""

from typing import Annotated

from msgspec import Struct

from .projection import column


class FanOutRow(Struct, gc=False):
    """A row of `fan_outs`."""

    run_id: Annotated[str, column("The run.")]
    fan_out: Annotated[
        int, column("Its number among the commands of the run; item i has the number `fan_out` + 1 + i.")
    ]
    name: Annotated[str, column("Of the step or workflow that each item goes through.")] = ""
    total: Annotated[int, column("Items.")] = 0
    pending: Annotated[int, column("Of these, not begun.")] = 0
    running: Annotated[int, column("Of these, under way: waiting for a start or a next attempt too.")] = 0
    completed: Annotated[int, column("Of these, completed.")] = 0
    failed: Annotated[int, column("Of these, failed.")] = 0
    skipped: Annotated[int, column("Of these, left out by a condition, or skipped by a person.")] = 0
    cancelled: Annotated[int, column("Of these, given up, or not begun when it ended.")] = 0
    at_once: Annotated[int, column("Items that may be under way at once; 0: all.")] = 0
    opened_at: Annotated[str, column("When it was opened.")] = ""
    closed_at: Annotated[str | None, column("When its last item had ended, or it was given up.")] = None
    task: Annotated[str, column("Path of the task that opened it; `m` is the handler itself.")] = ""
    site: Annotated[str, column("Where the handler opened it: `shop.py:41`.")] = ""
    closed_version: Annotated[int, column("Version of the run's stream at which it ended, or 0.")] = 0
    states: Annotated[bytes, column("Memory of the fold, not for users; may change.", "hidden")] = b""


class ItemRow(Struct, gc=False):
    """A row of `fan_out_items`."""

    run_id: Annotated[str, column("The run.")]
    fan_out: Annotated[int, column("Number of the `map` (`fan_outs.fan_out`).")]
    item: Annotated[int, column("Place in its items, from 0.")]
    number: Annotated[
        int, column("Of its step (`steps.step`) or child (`children.child`), once it has begun.")
    ] = 0
    value: Annotated[
        str | None, column("The item: JSON. Empty when the list was too large for its event.", "json")
    ] = None
    status: Annotated[
        str,
        column(
            "`pending`, `running`, `completed`, `failed`, `skipped` (left out by a condition, or by a "
            "person) or "
            "`cancelled` (given up, or not begun when the map ended)."
        ),
    ] = "pending"
    key: Annotated[str, column("Key of its step, or run id of its child; empty: not begun.")] = ""
    started_at: Annotated[str | None, column("When it was begun.")] = None
    ended_at: Annotated[str | None, column("When it ended.")] = None
    error_type: Annotated[str | None, column("Class of its error, once failed.")] = None
    error_message: Annotated[str | None, column("The message.")] = None
    begun_version: Annotated[int, column("Version of the run's stream at which it was begun, or 0.")] = 0
    ended_version: Annotated[int, column("Version at which it ended, or 0.")] = 0
