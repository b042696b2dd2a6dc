"""Finds every place in the package that makes one of our errors, and the text it gives it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from refold import errors

ROOT = Path(__file__).parent.parent.parent
LAYERS = ("events", "projections", "engine", "refold")
HOLE = "…"
"""What stands for a part of a text that is only known at run time, here and in the catalogue."""


@dataclass(frozen=True)
class Site:
    """A call of an error class: where, which, with what text."""

    place: str
    kind: str
    text: str


@cache
def sites() -> tuple[Site, ...]:
    """Every call of a class of `refold.errors` in the four layers."""
    return tuple(_sites())


def _sites() -> Iterator[Site]:
    for path, node in _calls():
        if (kind := _name(node.func)) in errors.__all__:
            text = _text(node.args[0], constants_of(path)) if node.args else ""
            yield Site(_place(path, node), kind, text)


def texts_of(kind: str) -> list[str]:
    """Texts that a class makes itself, out of what it is given; empty: it takes its message as it is."""
    tree = modules()[ROOT / "events" / "errors.py"]
    found = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind)
    own = [n for n in found.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if not own:
        return []
    calls = [n for n in ast.walk(own[0]) if isinstance(n, ast.Call) and _name(n.func) == "__init__"]
    text = _text(calls[0].args[0], constants_of(ROOT / "events" / "errors.py"))
    return [text] if set(text) - {HOLE} else []


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the package by its path; `refold` holds links to the layers, which are not followed."""
    found: dict[Path, ast.Module] = {}
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            if not (layer == "refold" and path.relative_to(ROOT / layer).parts[0] in LAYERS):
                found[path] = ast.parse(path.read_text())
    return found


@cache
def constants_of(path: Path) -> dict[str, str]:
    """Texts that a module keeps under a name in capitals; those of others where it has none of that name."""
    return _every_constant() | _constants_in(modules()[path])


@cache
def _every_constant() -> dict[str, str]:
    return {name: text for tree in modules().values() for name, text in _constants_in(tree).items()}


def _constants_in(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in tree.body:
        text = isinstance(node, ast.Assign) and isinstance(
            node.value, ast.Constant | ast.JoinedStr | ast.BinOp
        )
        if text and isinstance(target := node.targets[0], ast.Name) and target.id.isupper():  # type: ignore[attr-defined]
            found[target.id] = _text(node.value, {})  # type: ignore[attr-defined]
    return found


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(node: ast.expr, known: dict[str, str]) -> str:
    """The literal parts of an expression that makes a text, with holes between them."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Subscript):  # cut to a length
        return _text(node.value, known)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, known) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, known) if _name(node.value) in known else HOLE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, known) + _text(node.right, known)
    return known.get(_name(node), HOLE)


def logged() -> Iterator[tuple[str, str]]:
    """(place, message) of every warning and error for a logger; `%s` becomes a hole."""
    for path, node in _calls():
        if not (isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr in ("warning", "error", "exception") and _name(node.func.value) in ("_log", "log"):
            yield _place(path, node), re.sub(r"%(\.\d)?[sdf]", HOLE, _text(node.args[0], {}))


def skipped() -> Iterator[tuple[str, str]]:
    """(place, reason) wherever a message is noted as skipped."""
    for path, node in _calls():
        name, reason = _name(node.func), None
        if name == "skip" and path.name == "inbox.py":
            reason = node.args[2]
        elif name == "InboxSkipped":
            reason = next((word.value for word in node.keywords if word.arg == "reason"), None)
        if reason is not None and (text := _text(reason, constants_of(path))) != HOLE:
            yield _place(path, node), text


@cache
def _calls() -> tuple[tuple[Path, ast.Call], ...]:
    """Every call in the package; walking it all takes most of a second."""
    return tuple(
        (path, node)
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )


def _place(path: Path, node: ast.Call) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
