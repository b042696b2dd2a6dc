"""Functions that another process can find: by the name of their module, and their own in it."""

import sys
from typing import Any

from ..events.errors import ConfigurationError


def check_importable(function: Any, where: str) -> None:
    """Raises `ConfigurationError` for a function that another process cannot find by its name."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found = sys.modules.get(module) if isinstance(module, str) else None
    why = ""
    if found is None or not isinstance(name, str):
        why = "it has no module and name"
    elif "<" in name:
        why = "it is defined inside a function, or is a lambda"
    elif module == "__main__" and where != "process":
        why = "it is defined in the program that is run, which other machines have not got"
    elif module == "__main__" and not getattr(found, "__file__", None):
        why = "it is defined at a prompt or in a notebook"
    if why:
        raise ConfigurationError(
            f"@step(run_in={where!r}) {name or function!r}: {why}; another process finds it by its name "
            "alone: put it at the top of a module that can be imported"
        )
