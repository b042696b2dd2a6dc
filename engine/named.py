"""What the code of a handler names: the workflows and steps that an engine will have to execute for it."""

import contextlib
import dis
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..events.errors import ConfigurationError
from .step import Step
from .workflow import Workflow


def named_workflows(function: Callable[..., Any]) -> list[Workflow[Any, Any]]:
    """Workflows that a function's code names."""
    return [value for value in _named(function) if isinstance(value, Workflow)]


def named_steps(flow: Workflow[Any, Any]) -> list[Step[Any, Any]]:
    """Steps that the code of a workflow names, or the code of functions that it names, in its own package."""
    package = (flow.fn.__module__ or "").partition(".")[0]
    found: dict[int, Step[Any, Any]] = {}
    seen: set[int] = set()
    todo: list[Any] = list(flow.functions)
    while todo:
        function = todo.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        for value in _named(function):
            if isinstance(value, Step):
                found |= {id(step): step for step in (value, *_follow(value))}
            elif isinstance(value, FunctionType) and (value.__module__ or "").partition(".")[0] == package:
                todo.append(value)
    return list(found.values())


def _follow(step: Step[Any, Any]) -> list[Step[Any, Any]]:
    """The steps that it names."""
    with contextlib.suppress(ConfigurationError):  # it is said when the step is called
        step.look_up()
        named = (step.undo if step.undoable else None, step.failure_handler)
        return [other for other in named if other is not None]
    return []


def _named(function: Callable[..., Any]) -> list[Any]:
    """What a function's code names: as globals, in modules it names, or in its closure."""
    plain = inspect.unwrap(function)
    code, scope = getattr(plain, "__code__", None), getattr(plain, "__globals__", {})
    loads = list(_loads_in(code)) if code is not None else []
    # `ctx.approval(…)` names no global: a workflow of somebody's may well be called `approval`.
    found = [scope.get(name) for attribute, name in loads if not attribute]
    modules = [value for value in found if isinstance(value, ModuleType)]
    found += [vars(module).get(name) for module in modules for attribute, name in loads if attribute]
    for cell in getattr(plain, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not bound yet
            found.append(cell.cell_contents)
    return found


def _loads_in(code: CodeType) -> Iterator[tuple[bool, str]]:
    """(whether it is an attribute, its name): what a function loads, and those inside it."""
    for line in dis.get_instructions(code):
        if line.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "LOAD_METHOD"):
            yield line.opname in ("LOAD_ATTR", "LOAD_METHOD"), line.argval
    for nested in (constant for constant in code.co_consts if isinstance(constant, CodeType)):
        yield from _loads_in(nested)
