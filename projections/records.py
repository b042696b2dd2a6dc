"""Rows as people and programs read them: JSON parsed, money as `Decimal`, words as enums."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from ..events.errors import SchemaMismatch
from .projection import Column, Form, Table
from .status import Attention, RunStatus, StepStatus
from .views import Views

Record = dict[str, Any]


def _word(kind: type[StrEnum], column: str) -> Callable[[Any], StrEnum]:
    def decode(value: Any) -> StrEnum:
        try:
            return kind(value)
        except ValueError as error:
            known = ", ".join(kind)
            raise SchemaMismatch(
                f"{column} {value!r} is none that this Refold knows ({known}): it was written by a newer "
                "one, or by hand; upgrade this process, or rebuild the read models"
            ) from error

    return decode


def _json(value: Any) -> Any:
    """Parsed; what is not JSON, as it is: one damaged value must not hide all the other rows."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, TypeError, RecursionError, UnicodeDecodeError):
        return value


_FORMS: dict[Form, Callable[[Any], Any]] = {
    "json": _json,
    "money": Decimal,
    "flag": bool,
    "run_status": _word(RunStatus, "run status"),
    "step_status": _word(StepStatus, "step status"),
    "attention": _word(Attention, "attention"),
}


def record(columns: Sequence[Column], values: Sequence[Any]) -> Record:
    """One row as a dict. Raises `SchemaMismatch` for a status that this code does not know."""
    found: Record = {}
    for column, value in zip(columns, values, strict=True):
        if column.form != "hidden":
            decode = _FORMS.get(column.form)
            found[column.name] = value if decode is None or value is None else decode(value)
    return found


def shown(table: Table) -> tuple[str, ...]:
    """Names of the columns that are for users."""
    return tuple(column.name for column in table.columns if column.form != "hidden")


def select(
    views: Views, table: Table, tail: str, *parameters: Any, columns: Sequence[str] = ()
) -> list[Record]:
    """Rows of a table; `tail` is what comes after its name."""
    if not views.has(table.name):
        return []
    names = columns or shown(table)
    by_name = {column.name: column for column in table.columns}
    chosen = [by_name[name] for name in names]
    listed = ", ".join(f"{table.name}.{name}" for name in names)
    sql = f"SELECT {listed} FROM {table.name} {tail}"
    return [record(chosen, values) for values in views.query(sql, parameters)]
