"""The columns of `steps`."""

from typing import Annotated

from msgspec import Struct

from .projection import column


class StepRow(Struct, gc=False):
    """A row of `steps`."""

    run_id: Annotated[str, column("The run.")]
    step: Annotated[int, column("Number of the step: its place among the commands of the run.")]
    superseded: Annotated[
        int,
        column("0 for the latest attempt at the step; for an earlier one, its number; below 0 for an item of "
               "a `map` that a rewind has taken back. `superseded = 0` is a row per step."),
    ]  # fmt: skip
    attempt: Annotated[
        int, column("Number of the attempt, from 1; 0: called by the handler, not started yet.")
    ] = 0
    key: Annotated[str, column("Readable and unique in the run: name and ordinal, `charge#2`.")] = ""
    name: Annotated[str, column("Name of the step.")] = ""
    kind: Annotated[str, column("`step`, `call` or `custom:<kind>`.")] = "step"
    ordinal: Annotated[int, column("How many steps of this name the run had called, this one included.")] = 0
    iteration: Annotated[
        int, column("How often this task had called this step from this place before: 0, 1, 2 …")
    ] = 0
    status: Annotated[
        str,
        column(
            "`scheduled` (not begun), `running`, `completed`, `failed`, `timed_out`, `retrying` (failed, the "
            "next attempt is at `retry_at`), `cancelled` (given up), `interrupted` (the process "
            "ended while it ran), `unknown` (interrupted, and nobody knows what it did), `skipped` (by a "
            "person, or left out by a condition) or `compensated` (completed, and undone since).",
            "step_status",
        ),
    ] = "scheduled"
    task: Annotated[str, column("Path of the task that called it; `m` is the handler itself.")] = ""
    site: Annotated[str, column("Where the handler called it: `shop.py:41`.")] = ""
    pure: Annotated[int, column("1: declared to have no effect outside, so running it again is harmless.",
                                "flag")] = 0  # fmt: skip
    args: Annotated[str, column("Positional arguments: a JSON array.", "json")] = "[]"
    kwargs: Annotated[str, column("Keyword arguments: a JSON object.", "json")] = "{}"
    args_hash: Annotated[
        str, column("First 16 hex digits of the SHA-256 of `args` and `kwargs` as stored.")
    ] = ""
    result: Annotated[str | None, column("What it returned, once completed: JSON.", "json")] = None
    error_type: Annotated[str | None, column("Class of the error of this attempt.")] = None
    error_message: Annotated[str | None, column("Its message.")] = None
    error_class: Annotated[
        str | None,
        column("`error`, `non_retryable`, `timed_out`, `interrupted`, `value_refused` or `divergence`."),
    ] = None
    traceback: Annotated[str | None, column("Its traceback, cut to 8 KiB.")] = None
    scheduled_at: Annotated[str, column("When the handler called it.")] = ""
    started_at: Annotated[str | None, column("When this attempt was allowed to begin.")] = None
    ended_at: Annotated[
        str | None, column("When this attempt ended; for an interrupted one, when that was found out.")
    ] = None
    duration_s: Annotated[
        float | None,
        column("Seconds from `started_at` to `ended_at`; empty after a crash, for nobody knows."),
    ] = None
    retry_at: Annotated[str | None, column("When the next attempt is, or was, due.")] = None
    max_attempts: Annotated[int, column("How many attempts it may have.")] = 1
    timeout_s: Annotated[float, column("Limit of one attempt in seconds; 0: none.")] = 0.0
    idempotency_key: Annotated[str, column("`run_id/key`: the same for all attempts.")] = ""
    trace_id: Annotated[
        str, column("UUIDv5 of run and key: the same for all attempts and on every replay.")
    ] = ""
    cost_usd: Annotated[str, column("US dollars this attempt has spent: exact decimal text.", "money")] = "0"
    model: Annotated[str, column("The model last named in its costs.")] = ""
    input_tokens: Annotated[int, column("Tokens this attempt sent to models.")] = 0
    output_tokens: Annotated[int, column("Tokens it received from models.")] = 0
    cache_tokens: Annotated[int, column("Tokens served from a cache.")] = 0
    turns: Annotated[int, column("Turns of agents.")] = 0
    fan_out: Annotated[
        int, column("Number of the `map` that it is an item of (`fan_outs.fan_out`); 0: of none.")
    ] = 0
    item: Annotated[int, column("Place in that map's items, from 0.")] = 0
    compensate: Annotated[str, column("Name of the step that undoes it, or empty.")] = ""
    undoes: Annotated[str, column("Key of the step that this one undoes, or empty.")] = ""
    optional: Annotated[int, column("1: the run goes on without it when it fails.", "flag")] = 0
    total_timeout_s: Annotated[float, column("Limit of all attempts together in seconds; 0: none.")] = 0.0
    rewound: Annotated[
        int, column("1: the run was rewound to before it was called, so it is as if it never was.", "flag")
    ] = 0
    skipped_by: Annotated[str, column("Who skipped it, or empty.")] = ""
    reason: Annotated[str, column("Why it was skipped, or why nobody knows what it did; or empty.")] = ""
    resolved_by: Annotated[str, column("The person who said what it came to, or empty.")] = ""
    probe: Annotated[
        str, column("What its probe found after a crash: `happened`, `not_happened`, `unknown`, or empty.")
    ] = ""
    late: Annotated[
        str | None,
        column(
            'Evidence: what its body came to when nobody waited any more, `{"at":…,"result":…}` or '
            '`{"at":…,"error":…}`.',
            "json",
        ),
    ] = None
