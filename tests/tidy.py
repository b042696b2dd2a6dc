"""The rules of the house, as functions from a source file to findings; `test_tidy.py` applies them.

A finding reads `path:line: what is wrong, and what to do`. Limits live here; exceptions live in
`test_tidy.py`, each with its reason.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

LAYERS = ("events", "projections", "engine", "refold")
"""From the bottom to the top; a layer imports itself and what is below it."""
OLDEST_PYTHON = (3, 11)
FILE_LINES = 400
FUNCTION_LINES = 60
PUBLIC_NAMES = 40

Rule = Callable[["Source"], Iterator[str]]


class Source:
    """One Python file: where it is, what it says, and what it is called when installed."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        """Relative to the repository, with `/`."""
        self.text = text
        self.top = path.split("/", 1)[0]

    @classmethod
    def read(cls, root: Path, path: Path) -> "Source":
        return cls(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))

    @cached_property
    def tree(self) -> ast.Module:
        """Empty when the text is not valid: `is_valid_python` says so, and the other rules go on."""
        try:
            return parse(self.text)
        except SyntaxError:
            return ast.Module([ast.Expr(ast.Constant("Not valid."))], [])

    @property
    def installed(self) -> bool:
        """Whether the file belongs to the package, and not to its tests or benchmarks."""
        return self.top in LAYERS

    @cached_property
    def module(self) -> str:
        """`engine/loop.py` is `refold.engine.loop`."""
        parts = self.path.removesuffix(".py").removesuffix("/__init__").split("/")
        return ".".join(parts if parts[0] == "refold" else ("refold", *parts))

    @property
    def package(self) -> str:
        """What one leading dot of a relative import means."""
        return self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]

    def at(self, node: ast.AST | int, what: str) -> str:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {what}"

    def imports(self) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
        """Every import with the full names it may load: `from ..events import log` is `refold.events.log`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    anchor = self.package.split(".")
                    anchor = anchor[: len(anchor) - node.level + 1]
                    base = ".".join([*anchor, base] if base else anchor)
                yield from ((node, f"{base}.{alias.name}") for alias in node.names)


def parse(text: str) -> ast.Module:
    """Parse with the grammar of the oldest Python we support, whichever runs this."""
    return ast.parse(text, feature_version=OLDEST_PYTHON)


def is_valid_python(source: Source) -> Iterator[str]:
    """The file parses, on the oldest Python too."""
    try:
        parse(source.text)
    except SyntaxError as error:
        version = ".".join(map(str, OLDEST_PYTHON))
        yield source.at(error.lineno or 1, f"not valid Python {version}: {error.msg}")


def layer_of(module: str) -> str:
    """`refold.engine.loop` is of the layer `engine`; what is in no layer is of the door, `refold`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "refold"


def imports_point_down(source: Source) -> Iterator[str]:
    """A layer imports itself and the layers below it, by relative imports."""
    if not source.installed:
        return
    own = layer_of(source.module)
    for node, name in source.imports():
        root = name.split(".")[0]
        if root in LAYERS[:3]:
            yield source.at(node, f"import {name}: a layer is imported as refold.{root}, never by its folder")
        elif root == "refold" and own != "refold" and not getattr(node, "level", 0):
            yield source.at(node, f"import {name}: inside a layer write a relative import")
        elif root == "refold" and LAYERS.index(layer_of(name)) > LAYERS.index(own):
            yield source.at(
                node, f"{own} imports {name}: layers import only downwards ({' <- '.join(LAYERS)})"
            )


def imports_are_at_the_top(source: Source, lazy: Mapping[str, str] = {}) -> Iterator[str]:
    """No import inside a function, and none under TYPE_CHECKING: both hide a knot between modules.

    `lazy` lists the exceptions: a module's name, or `path: .module` for a relative import of one file.
    """
    if not source.installed:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and _imports(node.body):
            yield source.at(node, "TYPE_CHECKING hides an import cycle: move what both need below them")
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom) and not _is_lazy(source, inner, lazy):
                yield source.at(inner, f"import inside {node.name}(): move it to the top of the module")


def _imports(body: list[ast.stmt]) -> bool:
    return any(isinstance(statement, ast.Import | ast.ImportFrom) for statement in body)


def _is_lazy(source: Source, node: ast.Import | ast.ImportFrom, lazy: Mapping[str, str]) -> bool:
    if isinstance(node, ast.ImportFrom):
        names = ["." * node.level + (node.module or "")]
    else:
        names = [alias.name for alias in node.names]
    if names[0].startswith((".", "refold")) and source.path.startswith("refold/"):
        return True  # the door may open its rooms one by one
    listed = [known.removeprefix(f"{source.path}: ") for known in lazy]
    return all(any(name == known or name.startswith(f"{known}.") for known in listed) for name in names)


def file_is_short(source: Source, limit: int = FILE_LINES) -> Iterator[str]:
    """A file that outgrows the limit is two ideas."""
    lines = source.text.count("\n")
    if lines > limit:
        yield source.at(lines, f"{lines} lines, the limit is {limit}: which two ideas are in this file?")


def functions(source: Source) -> Iterator[tuple[str, int, int]]:
    """Qualified name, first line and number of lines of every function, nested ones included."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int, int]]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from walk(child, prefix)
                continue
            name = f"{prefix}{child.name}"
            if not isinstance(child, ast.ClassDef):
                yield name, child.lineno, (child.end_lineno or child.lineno) - child.lineno + 1
            yield from walk(child, f"{name}.")

    return walk(source.tree, "")


def functions_are_short(source: Source, limits: Mapping[str, int] = {}) -> Iterator[str]:
    """A function fits on a page. `limits` gives exceptions, as `path::qualified.name`."""
    for name, line, lines in functions(source):
        limit = limits.get(f"{source.path}::{name}", FUNCTION_LINES)
        if lines > limit:
            yield source.at(line, f"{name}() has {lines} lines, the limit is {limit}: split it")


def module_says_what_it_is(source: Source) -> Iterator[str]:
    """A module opens with a sentence."""
    docstring = ast.get_docstring(source.tree)
    if not docstring:
        yield source.at(1, "no docstring: a module opens with one sentence that says what it is")
    elif docstring.split("\n\n")[0].rstrip()[-1:] not in ".:;!?":
        yield source.at(1, "the docstring's first paragraph is not a sentence: it has no full stop")


CLOCKS = {"time", "random", "secrets", "uuid"}
CLOCK_CALLS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "os.urandom"}


def clock_is_the_only_clock(source: Source, allowed: Mapping[str, str] = {}) -> Iterator[str]:
    """Time, chance and ids come from events/clock.py, so that a test can replace them.

    `allowed` holds the exceptions, each with its reason: `uuid.UUID`, or `engine/x.py: time.monotonic`
    for one file, or `engine/x.py: time` for everything of a module in one file.
    """
    if not source.installed or source.path == "events/clock.py":
        return
    for node, name in _uses_of_clocks(source):
        module = name.split(".")[0]
        if not {name, f"{source.path}: {name}", f"{source.path}: {module}"} & allowed.keys():
            yield source.at(
                node,
                f"{name}: take time, chance and ids from events/clock.py, or list the exception",
            )


def _uses_of_clocks(source: Source) -> Iterator[tuple[ast.AST, str]]:
    local: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            local.update({a.asname or a.name: a.name for a in node.names if a.name in CLOCKS})
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in CLOCKS:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id in local:
                yield node, f"{local[node.value.id]}.{node.attr}"
            elif (name := ".".join(ast.unparse(node).split(".")[-2:])) in CLOCK_CALLS:
                yield node, name


UNSAFE_CALLS = {"eval", "exec"}
UNSAFE_MODULES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}


def nothing_runs_data(source: Source) -> Iterator[str]:
    """No eval, exec, pickle or shell: what is stored or given is data, never code."""
    for statement, name in source.imports():
        if name.split(".")[0] in UNSAFE_MODULES:
            yield source.at(statement, f"import {name}: it would run what it reads; values are JSON")
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
            yield source.at(node, f"{node.func.id}(): no text is ever run as code")
        for keyword in node.keywords:
            if keyword.arg == "shell" and getattr(keyword.value, "value", False) is True:
                yield source.at(node, "shell=True: give the program and its arguments as a list")


def errors_are_not_swallowed(source: Source) -> Iterator[str]:
    """`except Exception: pass` makes a failure look like success."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "everything"
        silent = all(isinstance(s, ast.Pass) or ast.unparse(s) == "..." for s in node.body)
        if silent and caught in ("everything", "Exception", "BaseException"):
            yield source.at(node, f"catches {caught} and says nothing: name the errors, or handle them")


FOREIGN = re.compile(
    r"""(?<![\w.~$}-])/(?:wo[r]k|ro[o]t|ho[m]e/\w+|Us[e]rs/\w+|t[m]p)(?=/|$|["'\s`),;])"""
    r"""|\b(?:py[p]i|python[h]osted|npm[j]s)\.(?:org|com)\b|\bproxy\.gola[n]g\.org\b"""
)
"""Absolute paths of somebody's machine, and hosts of package registries.

(The brackets keep this pattern from matching itself.)
"""


def names_no_machine(path: str, text: str) -> Iterator[str]:
    """Nothing committed depends on, or tells of, the machine it was written on."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in FOREIGN.finditer(line):
            yield f"{path}:{number}: {found[0]}: a machine's path or a registry host does not belong here"


LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(?:#[^)]*)?\)")


def links_lead_somewhere(root: Path, path: str, text: str) -> Iterator[str]:
    """Relative links of a page name files of this repository."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in LINK.finditer(line):
            target = (root / path).parent.joinpath(found[1]).resolve()
            if not target.is_relative_to(root) or not target.exists():
                yield f"{path}:{number}: the link {found[1]} leads nowhere in this repository"
