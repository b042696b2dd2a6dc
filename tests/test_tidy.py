"""The repository keeps its own rules: layers, sizes, one clock, an exact front door.

The rules are in `tidy.py`; what they allow is listed here with the reason beside it.
"""

import doctest
import importlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import pytest

import refold
from tests import tidy
from tests.tidy import Rule, Source

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = (*tidy.LAYERS, "tests", "benchmarks")

# ---- exceptions, each with its reason ---------------------------------------------------------

LONG_FILES: dict[str, int] = {}
"""Path: the lines it has. The numbers only shrink."""

LONG_FUNCTIONS: dict[str, int] = {}
"""`path::qualified.name`: the lines it has. The numbers only shrink."""

LAZY = {
    "events/open.py: .memory": "a store's recorders cost 0.1 s; `import refold` should not pay for them",
    "events/open.py: .sqlite": "the same",
    "events/open.py: .postgres": "the driver is an extra, and 0.1 s",
    "events/open.py: .sqlite_reader": "the same: sqlite3 alone is 20 ms",
    "engine/engine.py: .exporting": "22 ms for four formats, and only an export needs them",
    "engine/closing.py: anyio": "0.1 s, and only a shutdown needs it",
    "jsonschema_rs": "35 ms, and only an answer to `wait_for_input` needs it",
    "engine/handle.py: ..projections": "the picture of a run, 8 ms, and only a notebook shows one",
    "projections/run_list.py: .picture": "the same",
    "projections/views_open.py: .views_postgres": "the driver is an extra, and 0.1 s",
    "refold/cli/sql.py: .sql_postgres": "the same",
    "engine/engine.py: ..projections.why_of": "the words of `why`, 10 ms, and only who asks needs them",
    "cronsim": "an extra",
    "zoneinfo": "12 ms, and only a cron expression needs it",
    "argparse": "only the command line needs it, and the library must not pay for it",
    "hypothesis": "only `schedules` of the test kit needs it, and not every user has it",
    "importlib.metadata": "47 ms, and only `__version__` needs it",
    "rich": "only a terminal needs it",
    "uvloop": "optional",
}
"""What may be imported inside a function."""

CLOCK_USES = {
    "uuid.UUID": "a type, not a source of ids",
    "random.Random": "seeded from the log: the same numbers on every replay",
    "time.perf_counter": "measures a duration for a person, decides nothing and is never stored",
    "time.perf_counter_ns": "the same",
    "events/sqlite_file.py: time.sleep": "between two tries to open a file that another process holds",
    "projections/runner.py: time.sleep": "between two looks whether another process has got on",
    "projections/rebuild.py: time.sleep": "the same",
    "time.monotonic": "deadlines of the host: how long to wait, never what time it is",
}
"""What may be used outside events/clock.py."""

THIRD_PARTY = {
    "anyio": "handlers are written with it",
    "eventsourcing": "the recorders",
    "idna": "anyio",
    "msgspec": "every event and value",
    "sniffio": "anyio, before 4.12",
    "typing_extensions": "eventsourcing and anyio",
}
"""What `import refold` may load, and who needs it. Peers load half a thousand modules: 2 s and more."""

# ---- the files ----------------------------------------------------------------------------------


def python_files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("**/*.py")):  # glob does not follow the links in refold/
            if not (folder == "refold" and path.relative_to(ROOT).parts[1] in tidy.LAYERS):
                yield path


@cache
def sources() -> list[Source]:
    return [Source.read(ROOT, path) for path in python_files()]


@cache
def modules() -> list[str]:
    return [source.module for source in sources() if source.installed]


def committed_texts() -> Iterator[tuple[str, str]]:
    """Path and text of everything that is, or is about to be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # an unpacked sdist has no git
        paths = [p.relative_to(ROOT).as_posix() for f in FOLDERS for p in (ROOT / f).glob("**/*.*")]
    else:
        paths = listed.stdout.split("\0")
    for path in paths:
        file = ROOT / path
        if not file.is_file() or file.is_symlink():
            continue
        data = file.read_bytes()
        if b"\0" not in data:  # not text: databases and archives among the golden files
            yield path, data.decode("utf-8", "replace")


def found(rule: Rule) -> str:
    return "\n".join(finding for source in sources() for finding in rule(source))


# ---- rules over every file ------------------------------------------------------------------------

RULES: dict[str, Rule] = {
    "files are valid Python 3.11": tidy.is_valid_python,
    "layers import only downwards": tidy.imports_point_down,
    "imports are at the top": partial(tidy.imports_are_at_the_top, lazy=LAZY),
    "functions are short": partial(tidy.functions_are_short, limits=LONG_FUNCTIONS),
    "modules say what they are": tidy.module_says_what_it_is,
    "one clock": partial(tidy.clock_is_the_only_clock, allowed=CLOCK_USES),
    "nothing runs data": tidy.nothing_runs_data,
    "errors are not swallowed": tidy.errors_are_not_swallowed,
    "files are short": lambda source: tidy.file_is_short(
        source, LONG_FILES.get(source.path, tidy.FILE_LINES)
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_every_file_keeps_the_rule(name: str) -> None:
    findings = found(RULES[name])
    assert not findings, f"\n{findings}"


def test_exceptions_shrink_and_leave() -> None:
    """A file or function that has become shorter takes its number with it."""
    lines = {source.path: source.text.count("\n") for source in sources()}
    spans = {f"{s.path}::{name}": size for s in sources() for name, _, size in tidy.functions(s)}
    for listed, actual, limit in (
        (LONG_FILES, lines, tidy.FILE_LINES),
        (LONG_FUNCTIONS, spans, tidy.FUNCTION_LINES),
    ):
        for name, allowed in listed.items():
            now = actual.get(name, 0)
            assert now > limit, f"{name} has {now} lines now: take it off the list"
            assert now > allowed - 20, f"{name} has {now} lines now: lower its number from {allowed}"


def test_nothing_committed_tells_of_a_machine() -> None:
    findings = "\n".join(f for path, text in committed_texts() for f in tidy.names_no_machine(path, text))
    assert not findings, f"\n{findings}"


def test_links_in_pages_lead_somewhere() -> None:
    pages = [(path, text) for path, text in committed_texts() if path.endswith(".md")]
    findings = "\n".join(f for path, text in pages for f in tidy.links_lead_somewhere(ROOT, path, text))
    assert not findings, f"\n{findings}"


# ---- controls: each rule finds what it is for -------------------------------------------------------

BAD = [
    (tidy.is_valid_python, "events/a.py", "class Table[R]:\n    x: R", "not valid Python 3.11"),
    (tidy.imports_point_down, "events/log.py", "from ..engine import run", "layers import only downwards"),
    (tidy.imports_point_down, "events/log.py", "from .. import projections", "layers import only downwards"),
    (tidy.imports_point_down, "engine/loop.py", "from .. import Engine", "layers import only downwards"),
    (tidy.imports_point_down, "engine/loop.py", "from ..cli import main", "layers import only downwards"),
    (tidy.imports_point_down, "projections/runs.py", "import refold.events", "relative import"),
    (tidy.imports_point_down, "refold/cli/demo.py", "from engine import run", "never by its folder"),
    (tidy.imports_are_at_the_top, "engine/a.py", "def f():\n    import json", "import inside f()"),
    (tidy.imports_are_at_the_top, "engine/a.py", "def f():\n    from .b import c", "import inside f()"),
    (tidy.imports_are_at_the_top, "events/a.py", "if TYPE_CHECKING:\n    import x", "import cycle"),
    (tidy.file_is_short, "engine/a.py", "x = 1\n" * 401, "401 lines, the limit is 400"),
    (tidy.functions_are_short, "a.py", "class C:\n    def f():\n" + "        x\n" * 60, "C.f() has 61 lines"),
    (tidy.functions_are_short, "a.py", "def f():\n  def g():\n" + "    x\n" * 60, "f.g() has 61 lines"),
    (tidy.functions_are_short, "a.py", "if x:\n  def f():\n" + "    x\n" * 60, "f() has 61 lines"),
    (tidy.module_says_what_it_is, "events/a.py", "import os", "no docstring"),
    (tidy.module_says_what_it_is, "events/a.py", '"""Some helpers"""', "not a sentence"),
    (tidy.clock_is_the_only_clock, "engine/a.py", "import time\ntime.time()", "time.time"),
    (tidy.clock_is_the_only_clock, "engine/a.py", "import time as t\nt.time()", "time.time"),
    (tidy.clock_is_the_only_clock, "engine/a.py", "from uuid import uuid4", "uuid.uuid4"),
    (tidy.clock_is_the_only_clock, "engine/a.py", "x = datetime.datetime.now(UTC)", "datetime.now"),
    (tidy.clock_is_the_only_clock, "refold/a.py", "import os\nos.urandom(8)", "os.urandom"),
    (tidy.nothing_runs_data, "tests/a.py", "eval('1')", "eval()"),
    (tidy.nothing_runs_data, "engine/a.py", "from pickle import loads", "import pickle"),
    (tidy.nothing_runs_data, "engine/a.py", "run('ls', shell=True)", "shell=True"),
    (
        tidy.errors_are_not_swallowed,
        "engine/a.py",
        "try:\n    x\nexcept Exception:\n    pass",
        "says nothing",
    ),
    (tidy.errors_are_not_swallowed, "engine/a.py", "try:\n    x\nexcept:\n    ...", "says nothing"),
]

GOOD = [
    (tidy.imports_point_down, "engine/loop.py", "from ..events.log import Log\nfrom .step import step"),
    (tidy.imports_point_down, "refold/__init__.py", "from .engine import run\nfrom .events import Event"),
    (tidy.imports_point_down, "tests/test_a.py", "from refold.engine import loop"),
    (partial(tidy.imports_are_at_the_top, lazy=LAZY), "refold/a.py", "def f():\n    import rich.table"),
    (tidy.functions_are_short, "a.py", "def f():\n" + "    x\n" * 59),
    (tidy.module_says_what_it_is, "a.py", '"""What happened: the types."""'),
    (tidy.clock_is_the_only_clock, "events/clock.py", "import time\ntime.time()"),
    (
        tidy.clock_is_the_only_clock,
        "engine/a.py",
        "def f(time):\n    return time.time() + self.random.random()",
    ),
    (
        partial(tidy.clock_is_the_only_clock, allowed={"engine/a.py: time": "it names what it refuses"}),
        "engine/a.py",
        "import time\nREFUSED = [time.time]",
    ),
    (tidy.errors_are_not_swallowed, "a.py", "try:\n    x\nexcept OSError:\n    pass"),
]


@pytest.mark.parametrize(("rule", "path", "text", "expected"), BAD)
def test_the_rule_finds_a_breach(rule: Rule, path: str, text: str, expected: str) -> None:
    findings = list(rule(Source(path, text)))
    assert findings
    assert findings[0].startswith(f"{path}:")
    assert expected in "\n".join(findings)


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_the_rule_leaves_good_code_alone(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


@pytest.mark.parametrize("place", ["work/main", "root/.venv", "tmp/x", "home/ana/refold"])
def test_a_path_of_a_machine_is_found(place: str) -> None:
    assert list(tidy.names_no_machine("a.md", f"see `/{place}` there"))
    assert not list(tidy.names_no_machine("a.md", f"see `demo/{place}` and $DIR/{place} there"))


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    page = "[good](there.md#part), [web](https://example.org), [dead](gone.md), [out](../elsewhere.md)"
    findings = list(tidy.links_lead_somewhere(tmp_path, "page.md", page))
    assert [finding.split()[3] for finding in findings] == ["gone.md", "../elsewhere.md"]


# ---- the package as installed ---------------------------------------------------------------------


def test_every_package_and_every_data_file_is_listed_in_pyproject() -> None:
    inits = [source for source in sources() if source.path.endswith("__init__.py") and source.installed]
    assert {source.module for source in inits} == set(SETUP["packages"]), (
        "packages in pyproject.toml and folders with __init__.py differ"
    )
    listed = [
        f"{SETUP['package-dir'].get(package, package.replace('.', '/'))}/{pattern}"
        for package, patterns in SETUP["package-data"].items()
        for pattern in patterns
    ]
    for folder in tidy.LAYERS:
        for path in (ROOT / folder).glob("**/*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(fnmatch(name, pattern) for pattern in listed), f"{name} would miss from the wheel"


def test_every_module_belongs_to_a_package() -> None:
    for source in sources():
        if source.installed:
            assert source.package in SETUP["packages"], f"{source.path}: its folder has no __init__.py"


@pytest.mark.parametrize("name", [name for name in modules() if not name.endswith("__main__")])
def test_examples_in_docstrings_are_true(name: str) -> None:
    if name == "refold.executors.ray":
        pytest.importorskip("ray", reason='pip install "refold[ray]"')  # 70 MB, and not for every Python
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("folder", tidy.LAYERS[:3])
def test_a_layer_cannot_be_imported_under_a_second_name(folder: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert f"import refold.{folder}, not {folder}" in run.stderr


def test_links_for_type_checkers_are_relative() -> None:
    for folder in tidy.LAYERS[:3]:
        assert os.readlink(ROOT / "refold" / folder) == f"../{folder}"


def test_the_front_door_is_exact() -> None:
    public = {n for n, v in vars(refold).items() if not n.startswith("_") and not isinstance(v, ModuleType)}
    public.discard("TYPE_CHECKING")
    assert list(refold.__all__) == sorted(public)
    assert len(public) <= tidy.PUBLIC_NAMES, f"{len(public)} public names: what can be one, or leave?"


def test_the_version_is_known_and_nothing_else_is_made_up() -> None:
    assert refold.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(refold, "no_such_name")  # noqa: B009 - the name is not known to type checkers


LOADED = """
import json, sys
before = set(sys.modules)
import {module}
tops = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(tops - sys.stdlib_module_names - {{"refold"}})))
"""


def loaded_by(module: str) -> set[str]:
    """Third-party packages that importing `module` loads, in a fresh process."""
    run = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module)],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(run.stdout))


@pytest.mark.parametrize("module", ["refold", "refold.cli"])
def test_importing_it_loads_only_what_is_listed(module: str) -> None:
    surplus = loaded_by(module) - THIRD_PARTY.keys()
    assert not surplus, f"import {module} loads {sorted(surplus)}: import it where it is used, or list it"


def test_the_import_budget_notices_a_module_too_many() -> None:
    assert "pytest" in loaded_by("pytest")
