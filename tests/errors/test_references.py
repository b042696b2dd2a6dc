"""The reference pages and the code say the same: signatures, options, settings, variables, exit codes."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import refold
from refold import Context, Engine, Handle, Settings, StepInfo
from refold.cli import exits
from refold.cli.parser import build
from refold.engine.lookup import Runs
from tests.errors.sites import ROOT, modules

API = (ROOT / "docs" / "reference" / "api.md").read_text()
SETTINGS = (ROOT / "docs" / "reference" / "settings.md").read_text()
CLI = (ROOT / "docs" / "reference" / "cli.md").read_text()

OBJECTS: dict[str, type] = {
    "ctx": Context,
    "engine": Engine,
    "engine.runs": Runs,
    "handle": Handle,
    "current_step()": StepInfo,
}
"""What the page calls an object, and its class."""

TYPES = {name: kind.__name__ for name, kind in OBJECTS.items()} | {"engine.runs": "Engine"}

NOT_FOR_USERS = {
    "engine": {"worker", "check_loop"},
    "engine.runs": set[str](),
    "ctx": set[str](),
    "handle": set[str](),
    "current_step()": {"record"},
}
"""Public only for the other modules of the engine."""


def section(heading: str, level: str = "###") -> str:
    """What stands under a heading of api.md, up to the next one of that level or above."""
    end = rf"^#{{1,{len(level)}}} "
    found = re.search(rf"^{level} `{re.escape(heading)}`\n(.*?)(?={end}|\Z)", API, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def methods() -> list[tuple[str, str]]:
    """(object, member) of every public method and property of what a user holds in hand."""
    return [
        (name, member)
        for name, kind in OBJECTS.items()
        for member in dir(kind)
        if not member.startswith("_") and member not in NOT_FOR_USERS[name]
    ]


def signature_on_page(text: str, name: str) -> dict[str, str]:
    """Parameter and default, as the first code block of a section has them."""
    found: dict[str, str] = {}
    for part in _parts(text.split("```py\n", 1)[1].split("```")[0].split(f"{name}(", 1)[1]):
        parameter, _, default = part.partition(" = ") if " = " in part else part.partition("=")
        found[parameter.partition(":")[0].strip("* ")] = default.strip()
    return {parameter: default for parameter, default in found.items() if parameter not in ("", "/")}


def _parts(text: str) -> list[str]:
    """What stands between the commas, up to the closing bracket."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in (re.sub(r"\s+", " ", part).strip() for part in parts) if part]


def signature_in_code(function: Callable[..., Any]) -> dict[str, str]:
    return {
        p.name: "" if p.default is p.empty else repr(p.default)
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "fn") or (p.name == "fn" and p.default is p.empty)
    }


@pytest.mark.parametrize(("name", "member"), methods(), ids=lambda part: part)
def test_every_method_has_its_heading_and_the_signature_it_has(name: str, member: str) -> None:
    found = inspect.getattr_static(OBJECTS[name], member)
    text = section(f"{name}.{member}", "####")
    if not text:
        told = f"{name}.{member} is not in docs/reference/api.md"
        assert re.search(rf"`(?:\w+\.)*{member}[`(]", section(TYPES[name])), told
        return
    if not inspect.isfunction(found):
        return
    assert normal(signature_on_page(text, member)) == normal(signature_in_code(found))


def normal(signature: dict[str, str]) -> dict[str, str]:
    return {name: default.replace("'", '"').replace("typing.", "") for name, default in signature.items()}


FUNCTIONS: dict[str, Any] = {
    "workflow": refold.workflow, "step": refold.step, "record_cost": refold.record_cost, "run": refold.run,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_and_decorator_has_the_signature_it_has(name: str) -> None:
    on_page, in_code = signature_on_page(section(name), name), signature_in_code(FUNCTIONS[name])
    assert normal(on_page) == normal(in_code)
    said = section(name)
    for parameter in in_code.keys() - {"workflow", "args"}:
        assert f"- `{parameter}`:" in said or f"`{parameter}`" in said.split("```")[2], parameter


def test_every_argument_of_the_engine_is_explained() -> None:
    explained = re.findall(r"^- `(\w+)`:", section("Engine").split("\n####")[0], re.MULTILINE)
    arguments = [name for name in inspect.signature(Engine.__init__).parameters if name != "self"]
    assert explained[: len(arguments)] == arguments


@pytest.mark.parametrize("name", ["Retry", "Stage", "Branch", "Happened"])
def test_every_field_of_a_value_is_documented_with_its_default(name: str) -> None:
    fields = msgspec.structs.fields(getattr(refold, name))
    rows = re.findall(r"^\| `(\w+)[:`]", section(name), re.MULTILINE)
    assert rows == [field.name for field in fields]


# ---- settings


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", SETTINGS.split("## Variables")[0], re.MULTILINE))
    fields = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert list(rows) == list(fields)
    for name, default in fields.items():
        shown = rows[name].strip("`")
        of_the_machine = name in ("step_threads", "step_processes")
        assert of_the_machine or shown == f"{default:_}" if type(default) is int else True, name
        assert type(default) is int or shown.replace('"', "'") == repr(default), name
    assert all(f"`{name}" in section("Settings") for name in fields)


def test_every_variable_of_the_environment_is_documented() -> None:
    read = {
        name
        for path in modules()
        for name in re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", path.read_text())
        if not path.is_relative_to(ROOT / "refold" / "demo")
    }
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", SETTINGS, re.MULTILINE))
    assert "REFOLD_STORE" in read, "the pattern finds nothing"
    assert documented == read


# ---- exit codes


def test_the_help_tells_the_exit_codes() -> None:
    text = build().format_help()
    for code in (exits.OK, exits.FAILED, exits.USAGE, exits.REFUSED, exits.INTERRUPTED, exits.TERMINATED):
        assert re.search(rf"exit codes:.*\b{code} ", text, re.DOTALL), code
        assert re.search(rf"^\| (?:{code}|.*\b{code}\b.*) \| ", CLI, re.MULTILINE), code
