"""Sabotage: each breaks one mechanism in the process it is called in; the checks must notice."""

from collections.abc import Callable

BY_NAME: dict[str, Callable[[], None]] = {}


def cheat(fn: Callable[[], None]) -> Callable[[], None]:
    BY_NAME[fn.__name__] = fn
    return fn
