"""Finds clocks, chance and files in handlers, by reading them beforehand and by watching their calls.

`scan` reads what is called and follows functions of the same top-level package, on every Python. It reads
source, not bytecode: what matters is whether `time.time` is called or handed to `ctx.call`, and every Python
spells that differently in bytecode. `arm` (3.12+) watches the calls of the handler's own code while it runs,
which also sees what went through a variable. Both are blind to what third-party helpers do inside; that
shows as a divergence when the run is replayed.
"""

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any

from msgspec import Struct

from ..events.errors import ForbiddenInHandler
from ._compat import REMEDY
from .loop import running

_NOW = "`ctx.now()` is the time that replay sees again"
_CHANCE = "`ctx.random` gives the same numbers on every replay"
_STEP = f"{REMEDY}, so that its result is recorded"
_RULES = {
    "time": ("time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time", _NOW),
    "uuid": ("uuid1 uuid4 uuid6 uuid7", "`ctx.uuid4()` gives the same ids on every replay"),
    "os": ("urandom getrandom getpid getppid", _STEP),
    "secrets": ("choice randbelow randbits token_bytes token_hex token_urlsafe SystemRandom", _STEP),
    "builtins": ("open input", _STEP),
}
_TODAY = ("now", "utcnow", "today")
_HANDED_OVER = ("call",)
"""Methods whose argument runs as a step."""
_SPAWNING = ("start_soon", "start")
"""Methods whose argument runs in the handler."""
_TOOL = "refold"


class Finding(Struct, frozen=True):
    """A place in a handler that replay cannot repeat: what is there, and what to write instead."""

    file: str
    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what} in a handler: {self.remedy}"


def scan(function: Callable[..., Any]) -> list[Finding]:
    """What `function`, and what it calls of its own top-level package, should leave to steps or to `ctx`.

    Empty for a function whose source cannot be found.
    """
    start = inspect.unwrap(function)
    package = (start.__module__ or "").split(".")[0]
    found: dict[tuple[str, int, str], Finding] = {}
    seen, waiting = set[Any](), [start]
    while waiting:
        current = waiting.pop()
        if current.__code__ in seen:
            continue
        seen.add(current.__code__)
        reader = _Reader(current)
        for finding in reader.findings():
            found.setdefault((finding.file, finding.line, finding.what), finding)
        waiting += [f for f in reader.called if (f.__module__ or "").split(".")[0] == package]
    return sorted(found.values(), key=lambda finding: (finding.file, finding.line, finding.what))


def arm(function: Callable[..., Any]) -> bool:
    """From now on a forbidden call in the code of `function`, nested functions included, raises in a handler.

    Outside of a running handler, and in all other code, nothing changes. False before Python 3.12 and when
    all six tool ids of `sys.monitoring` are taken.
    """
    monitoring: Any = getattr(sys, "monitoring", None)
    tool = monitoring and _tool(monitoring)
    if tool is None:
        return False
    waiting = [inspect.unwrap(function).__code__]
    while waiting:
        code = waiting.pop()
        monitoring.set_local_events(tool, code, monitoring.events.CALL)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return True


def _tool(monitoring: Any) -> int | None:
    mine = [number for number in range(6) if monitoring.get_tool(number) == _TOOL]
    if mine:
        return mine[0]
    for number in (
        4,
        3,
        5,
        2,
        1,
        0,
    ):  # the last ones are meant for optimizers, profilers, coverage, debuggers
        if monitoring.get_tool(number) is None:
            monitoring.use_tool_id(number, _TOOL)
            monitoring.register_callback(number, monitoring.events.CALL, _on_call)
            return number
    return None


def _on_call(code: CodeType, offset: int, target: object, first: object) -> None:
    known = forbidden(target, first)
    if known is not None and running() is not None:
        name, remedy = known
        line = next(
            (n for low, high, n in code.co_lines() if low <= offset < high and n), code.co_firstlineno
        )
        raise ForbiddenInHandler(f"{name}() in a handler, at {code.co_filename}:{line}: {remedy}")


# ---- what is forbidden ------------------------------------------------------------------------


def forbidden(target: Any, first: Any = None) -> tuple[str, str] | None:
    """Name and remedy, if calling `target` with this first argument is nothing that replay can repeat."""
    table = _table()
    try:
        known = table.get(target)
    except TypeError:  # a callable that cannot be hashed
        return None
    if known is not None:
        return known
    owner = getattr(target, "__self__", None)
    if owner is None:
        # Up to 3.13 `random.choice` arrives as a bound method, later as the function and its generator.
        return table.get(getattr(first, target.__name__, None)) if first is _generator() else None
    if isinstance(owner, type) and issubclass(owner, date) and target.__name__ in _TODAY:
        return f"{owner.__name__}.{target.__name__}", _NOW
    return None


@cache
def _generator() -> Any:
    return import_module("random").choice.__self__


@cache
def _table() -> dict[Any, tuple[str, str]]:
    table: dict[Any, tuple[str, str]] = {}
    for module, (names, remedy) in _RULES.items():
        there = import_module(module)
        prefix = "" if module == "builtins" else module + "."
        table.update({getattr(there, n): (prefix + n, remedy) for n in names.split() if hasattr(there, n)})
    table[import_module("time").sleep] = "time.sleep", "`await anyio.sleep(…)` is durable and blocks nobody"
    table[id] = "id", "addresses differ in every process: compare by a name or number of your own"
    chance = import_module("random")
    for name in chance.__all__:
        if getattr(getattr(chance, name), "__self__", None) is _generator():
            table[getattr(chance, name)] = f"random.{name}", _CHANCE
    table[chance.SystemRandom] = "random.SystemRandom", _STEP
    return table


# ---- reading the source -----------------------------------------------------------------------


class _Reader:
    """One function: what is called in it directly. `called` are the Python functions among that."""

    def __init__(self, function: FunctionType) -> None:
        self.called: list[FunctionType] = []
        self._file, self._first = function.__code__.co_filename, function.__code__.co_firstlineno
        self._tree = _parse(function)
        self._names = {**vars(builtins), **function.__globals__, **_closure(function)}
        self._own = set[str]()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._own.add(node.id)
            elif isinstance(node, ast.arg):
                self._own.add(node.arg)
        for name in self._own:
            self._names.pop(name, None)
        for node in ast.walk(self._tree):
            self._names.update(_imported(node))
        self._bodies = _step_bodies(self._tree)

    def findings(self) -> Iterator[Finding]:
        for node in self._walk(self._tree):
            if isinstance(node, ast.Call):
                known = self._call(node)
                if known is not None:
                    yield self._finding(node, f"{known[0]}()", known[1])
            elif isinstance(node, ast.For | ast.AsyncFor) and self._is_set(node.iter):
                yield self._finding(
                    node, "a loop over a set", "its order differs in every process: sort it first"
                )

    def _walk(self, node: ast.AST) -> Iterator[ast.AST]:
        """Everything below `node` that runs in the handler: not what runs as a step."""
        for child in ast.iter_child_nodes(node):
            if child not in self._bodies:
                yield child
                yield from self._walk(child)

    def _call(self, node: ast.Call) -> tuple[str, str] | None:
        target = self._resolve(node.func)
        if isinstance(target, FunctionType):
            self.called.append(inspect.unwrap(target))
        if isinstance(node.func, ast.Attribute) and node.func.attr in _SPAWNING and node.args:
            spawned = self._resolve(node.args[0])
            if isinstance(spawned, FunctionType):
                self.called.append(inspect.unwrap(spawned))
        if target is import_module("random").Random and not node.args:
            return "random.Random", _CHANCE
        return None if target is None else forbidden(target)

    def _resolve(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self._resolve(node.value)
            if isinstance(base, ModuleType):
                return vars(base).get(node.attr)
            if isinstance(base, type):
                return getattr(base, node.attr, None)
        return None

    def _is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set):  # small integers hash to themselves
            return not all(isinstance(e, ast.Constant) and isinstance(e.value, int) for e in node.elts)
        called = self._resolve(node.func) if isinstance(node, ast.Call) else None
        return isinstance(node, ast.SetComp) or called is set or called is frozenset

    def _finding(self, node: ast.stmt | ast.expr, what: str, remedy: str) -> Finding:
        return Finding(self._file, self._first + node.lineno - 1, what, remedy)


def _parse(function: FunctionType) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # typed in at a prompt, or a lambda in mid-expression
        return ast.Module([], [])


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            found[name] = None
    return found


def _imported(node: ast.AST) -> dict[str, Any]:
    """Names that an import statement binds, as far as the modules are loaded already."""
    if isinstance(node, ast.Import):
        return {a.asname or a.name.split(".")[0]: _module(a.name, a.asname) for a in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        there = sys.modules.get(node.module)
        return {a.asname or a.name: vars(there).get(a.name) for a in node.names} if there else {}
    return {}


def _module(name: str, alias: str | None) -> ModuleType | None:
    return sys.modules.get(name if alias else name.split(".")[0])


def _step_bodies(tree: ast.AST) -> set[ast.AST]:
    """Nested functions and lambdas that run as steps: handed to `ctx.call`, or decorated with `step`."""
    handed: set[ast.AST] = set()
    names: set[str] = set()
    called: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            called.add(node.func.id)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _HANDED_OVER and node.args:
            handed.add(node.args[0])
            names.update(n.id for n in node.args[:1] if isinstance(n, ast.Name))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
            is_step = any(ast.unparse(d).split(".")[-1] == "step" for d in decorators)
            if is_step or node.name in names - called:
                handed.add(node)
    return handed
