"""The columns of `gates`."""

from typing import Annotated

from msgspec import Struct

from .projection import column


class GateRow(Struct, gc=False):
    """A row of `gates`."""

    run_id: Annotated[str, column("The run.")]
    gate: Annotated[int, column("Its number among the commands of the run.")]
    kind: Annotated[str, column("`approval` or `input`.")] = "approval"
    name: Annotated[str, column("Readable and unique in the run: `approval#1`.")] = ""
    status: Annotated[
        str,
        column(
            "`open`, `approved`, `rejected`, `answered`, `timed_out` (see `timeout_means`), `cancelled` "
            "(given up) or "
            "`ended` (the run did)."
        ),
    ] = "open"
    prompt: Annotated[str, column("What is asked.")] = ""
    shown: Annotated[str, column("What is put before the people who decide: JSON.", "json")] = "null"
    digest: Annotated[str, column("SHA-256, in hex, of all that is shown: what a decision is bound to.")] = ""
    options: Annotated[str, column("What may be selected: a JSON array.", "json")] = "[]"
    schema: Annotated[str, column("JSON Schema of an answer, or `null`.", "json")] = "null"
    token: Annotated[str, column("Names the gate to whoever answers from outside, or empty.")] = ""
    approvals_needed: Annotated[int, column("Approvals needed, at this stage.")] = 1
    approvals: Annotated[int, column("Approvals so far.")] = 0
    voters: Annotated[str, column("Who may vote, at this stage: a JSON array; `[]`: anybody.", "json")] = "[]"
    excluded: Annotated[str, column("Who may not: a JSON array.", "json")] = "[]"
    stage: Annotated[int, column("How often it was escalated.")] = 0
    opened_at: Annotated[str, column("When it was opened.")] = ""
    due_at: Annotated[str | None, column("Until when, at this stage.")] = None
    on_timeout: Annotated[
        str, column("What happens then: `reject`, `approve`, `fail` or `continue`; or empty.")
    ] = ""
    votes: Annotated[
        str,
        column(
            "In order: "
            '`[{"by":"user:ana","at":…,"vote":"approve","selections":[],"feedback":"","answer":null,'
            '"digest":…,"version":12}]`; `vote` is `approve`, `reject` or `answer`, `version` that of the '
            "event.",
            "json",
        ),
    ] = "[]"
    decided_at: Annotated[str | None, column("When it was no longer open.")] = None
    decided_by: Annotated[str, column("Whose vote decided, or empty.")] = ""
    selections: Annotated[str, column("What that vote selected: a JSON array.", "json")] = "[]"
    feedback: Annotated[str, column("What it said.")] = ""
    answer: Annotated[str, column("What it answered: JSON.", "json")] = "null"
    timeout_means: Annotated[str, column("Once it timed out: `reject`, `approve`, `fail` or `continue`.")] = (
        ""
    )
    task: Annotated[str, column("Path of the task that opened it; `m` is the handler itself.")] = ""
    site: Annotated[str, column("Where the handler opened it: `shop.py:41`.")] = ""
    stages: Annotated[
        str,
        column(
            'Its stages in order, the first one as opened: `[{"voters":[],"approvers":1,"due_at":null,"at":…,'
            '"version":9}]`.',
            "json",
        ),
    ] = "[]"
