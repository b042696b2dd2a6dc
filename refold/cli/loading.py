"""The user's file for `refold run app.py:checkout`: code named on the command line, never by a row."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from ..engine.workflow import Workflow
from ..events.errors import ConfigurationError

FORM = "expected FILE.py:WORKFLOW or MODULE:WORKFLOW, such as app.py:checkout"


def load_workflows(target: str) -> tuple[Workflow[Any, Any], list[Workflow[Any, Any]]]:
    """The workflow that is meant, and every workflow in its module: all of those can be executed.

    Raises `ConfigurationError` for whatever is wrong with the name or the file.
    """
    place, separator, name = target.rpartition(":")
    if not separator or (len(place) == 1 and name.startswith(("\\", "/"))):
        place, name = target, ""
    module = _load(place)
    found: list[Workflow[Any, Any]] = []
    for value in vars(module).values():
        if isinstance(value, Workflow) and value not in found:
            found.append(value)
    return _choose(place, name, module, found), found


def load_files(places: list[str]) -> list[Workflow[Any, Any]]:
    """Every workflow in these files (or modules), each once. Raises as `load_workflows`."""
    every: list[Workflow[Any, Any]] = []
    for place in places:
        if ":" in place and not Path(place).is_file():
            file = place.rpartition(":")[0]
            raise ConfigurationError(f"{place}: expected a file: a worker executes all workflows of {file}")
        module = _load(place)
        found = [value for value in vars(module).values() if isinstance(value, Workflow)]
        if not found:
            raise ConfigurationError(f"{place}: it has no workflows; decorate one with @workflow")
        every += [flow for flow in dict.fromkeys(found) if flow not in every]
    return every


def _choose(place: str, name: str, module: ModuleType, found: list[Workflow[Any, Any]]) -> Workflow[Any, Any]:
    names = [key for key, value in vars(module).items() if isinstance(value, Workflow)]
    listed = ", ".join(f"{place}:{key}" for key in names) or "none; decorate one with @workflow"
    if not name:
        if len(found) == 1:
            return found[0]
        raise ConfigurationError(f"{place}: which workflow? There are: {listed}")
    chosen = getattr(module, name, None)
    if isinstance(chosen, Workflow):
        return chosen
    by_name = [flow for flow in found if flow.name == name]
    if len(by_name) == 1:
        return by_name[0]
    what = "is no @workflow" if chosen is not None else "is not there"
    raise ConfigurationError(f"{place}: {name} {what}. Its workflows: {listed}")


def _load(place: str) -> ModuleType:
    if not place:
        raise ConfigurationError(FORM)
    path = Path(place)
    try:
        if path.suffix == ".py" or path.is_file():
            return _load_file(path)
        if not all(part.isidentifier() for part in place.split(".")):
            raise ConfigurationError(f"{place!r}: {FORM}")
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the user's module may raise anything at import, SystemExit included
        raise ConfigurationError(
            f"cannot load {place}: {_place_of(error)}{type(error).__name__}: {error}"
        ) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"no file {path}; {FORM}")
    full = path.resolve()
    name = (
        full.stem if full.stem.isidentifier() and not _taken(full.stem) else f"_refold_app_{len(sys.modules)}"
    )
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is not a Python file; {FORM}")
    sys.path.insert(0, str(full.parent))  # as `python app.py` does: its neighbours can be imported
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are resolved there
    spec.loader.exec_module(module)
    return module


def _taken(name: str) -> bool:
    return name in sys.modules or name in sys.stdlib_module_names


def _place_of(error: BaseException) -> str:
    """`app.py:12: `, where the user's code stood."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""
