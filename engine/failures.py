"""Errors on their way into the log, as text, and out of it again."""

import traceback

import msgspec
from msgspec import Raw

from ..events import codec, errors, types as t


def failure_of(error: BaseException, error_class: str = "error") -> t.Failure:
    """An exception as the log keeps it, whatever its own methods do."""
    return t.Failure(
        type=type(error).__name__[:200],
        message=_clean(_text_of(error))[:8_192],
        error_class=error_class,
        traceback=_clean("".join(traceback.format_exception(error)))[-8_192:],
        data=_data_of(error),
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:
        return f"(its own text cannot be had: {type(fault).__name__})"


def _data_of(error: BaseException) -> Raw:
    try:
        return codec.encode(getattr(error, "data", None))
    except Exception as fault:  # a property may raise anything
        return codec.encode(f"(cannot be stored: {_clean(_text_of(fault))[:8_192]})")


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def step_error(key: str, failure: t.Failure, attempt: int = 1) -> errors.StepFailed:
    """What the handler sees of a failure: the same live and on replay."""
    kinds = {"timed_out": errors.StepTimedOut, "interrupted": errors.StepInterrupted}
    kind = kinds.get(failure.error_class, errors.StepFailed)
    return kind(key, failure.type, failure.message, msgspec.json.decode(failure.data), attempt)
