"""Step wrappers: functions of the user's that run around the body of every step."""

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

from ..events.errors import ConfigurationError
from .bodies import Call, StepInfo, StepWrapper


def compose(wrappers: Iterable[StepWrapper]) -> StepWrapper | None:
    """All of them as one, the first outermost; None when there are none.

    Raises `ConfigurationError` for what is no `async` function of two arguments.
    """
    inside: StepWrapper | None = None
    for wrapper in reversed([_checked(wrapper) for wrapper in wrappers]):
        inside = wrapper if inside is None else _around(wrapper, inside)
    return inside


def _around(outer: StepWrapper, inner: StepWrapper) -> StepWrapper:
    async def both(info: StepInfo, call: Call) -> Any:
        return await outer(info, partial(inner, info, call))

    return both


def _checked(wrapper: Any) -> StepWrapper:
    function = wrapper if inspect.isroutine(wrapper) else getattr(wrapper, "__call__", None)  # noqa: B004
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"step_wrappers=[…] expects `async def wrapper(info, call)`, got {wrapper!r}; it awaits `call()` "
            "and returns what that gives"
        )
    try:
        inspect.signature(wrapper).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(
            f"step wrapper {wrapper!r} is called with two arguments, (info, call): {error}"
        ) from None
    checked: StepWrapper = wrapper
    return checked
