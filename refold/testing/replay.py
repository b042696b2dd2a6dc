"""Recorded histories replayed: would the runs that people have in flight go on with the code as it is now?"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from ..engine.activation import Activation
from ..engine.handle import Handle
from ..engine.loader import History, activations, whole_history
from ..engine.run import Run
from ..engine.settings import Settings
from ..engine.starting import Registry, register
from ..engine.workflow import Workflow
from ..events import types as t
from ..events.errors import ConfigurationError, RunNotFound
from ..events.memory import MemoryStore
from ..events.registry import Unknown
from ..events.store import Store
from ..events.stream import is_run
from ..events.transfer import import_log
from ..events.types import Event

Source = str | os.PathLike[str] | Handle[Any] | Store | Iterable[bytes | str] | Sequence[Event | Unknown]
"""Where a history comes from: see `replay_history`."""


class Replayed(Struct, frozen=True):
    """What was replayed."""

    runs: tuple[str, ...]
    activations: int
    """How often a handler went on: with its start, with a result, a timer, a message."""


def replay_history(
    workflow: Workflow[Any, Any] | Iterable[Workflow[Any, Any]], history: Source, *, run: str | None = None
) -> Replayed:
    """Replay what was recorded with the handlers as they are now; no step runs, nothing is written.

        replay_history(checkout, "histories/order-42.jsonl")

    Args:
        workflow: one, or several: other names, or the versions that are still in use. Children need not be
            listed.
        history: a file that `refold export` has written; its lines (`engine.export("order-42")`); a handle;
            an open store; or a list of one run's events.
        run: only this one of several in the history. Default: all whose workflow is among those given.

    Raises:
        NonDeterminismError: a handler asks for something else than the log has: the report says what, where,
            since when, and what to do.
        HandlerStuck: a handler goes round in circles.
        ConfigurationError: the history has no run of these workflows, or one of a version that is missing.
        RunNotFound: there is no such run in the history.
        StoreCorrupt, SchemaMismatch: the file is no export, or damaged.
    """
    flows = [workflow] if isinstance(workflow, Workflow) else list(workflow)
    registry = register(flows, Settings())
    found = _runs(history, run)
    with_flows = [(run_id, story, _flow(registry, story, run_id)) for run_id, story in found]
    chosen = [(run_id, story, flow) for run_id, story, flow in with_flows if flow is not None]
    if not chosen:
        names = sorted({_started(story, run_id).workflow for run_id, story in found})
        raise ConfigurationError(
            f"replay_history: expected a run of {', '.join(flow.name for flow in flows)}, "
            f"the history has runs of {', '.join(names) or 'nothing'}"
        )
    for run_id, story, flow in chosen:
        _replay(flow, run_id, story)
    return Replayed(tuple(run_id for run_id, _, _ in chosen), sum(len(story) for _, story, _ in chosen))


def _replay(flow: Workflow[Any, Any], run_id: str, story: Sequence[Activation]) -> None:
    run = Run(flow, run_id, _started(story, run_id))
    try:
        run.replay(story)
    finally:
        run.evict()


def _flow(registry: Registry, story: Sequence[Activation], run_id: str) -> Workflow[Any, Any] | None:
    """The workflow of a run; None when nobody asked for workflows of that name."""
    started = _started(story, run_id)
    flow = registry.get((started.workflow, started.workflow_version))
    if flow is None and (versions := sorted(v for name, v in registry if name == started.workflow)):
        raise ConfigurationError(
            f"run {run_id} began with version {started.workflow_version!r} of {started.workflow}, given is "
            f"version {', '.join(versions)}: give the old one, too, as an engine needs it for that run"
        )
    return flow


def _started(story: Sequence[Activation], run_id: str) -> t.RunStarted:
    if story and isinstance(story[0].cause, t.RunStarted):
        return story[0].cause
    raise _headless(run_id)


def _headless(run_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"replay_history: the history of {run_id} does not begin with {t.RunStarted.TAG}; give all of it"
    )


Stories = list[tuple[str, list[Activation]]]


def _runs(history: Source, run: str | None) -> Stories:
    """The runs of a history, each as what its handler went through."""
    if isinstance(history, Handle):
        return [_story(whole_history(history.engine.store, run or history.id))]
    if isinstance(history, str | os.PathLike):
        with Path(history).open("rb") as file:
            return _imported(file, os.fspath(history), run)
    if callable(getattr(history, "all_work", None)):
        return _runs_in(cast(Store, history), run)
    lines = list(cast(Iterable[Any], history))
    if lines and all(isinstance(line, Event) for line in lines):
        if not isinstance(lines[0], t.RunStarted):
            raise _headless(run or "the run")
        return [(run or "the run", activations(lines))]
    return _imported(lines, "the history", run)


def _imported(lines: Iterable[bytes | str], name: str, run: str | None) -> Stories:
    store = MemoryStore()
    import_log(store, lines, name=name)
    return _runs_in(store, run)


def _runs_in(store: Store, run: str | None) -> Stories:
    names = [run] if run is not None else [work.run_id for work, _ in store.all_work() if is_run(work.run_id)]
    for name in names:
        if not store.tail(name).version or not is_run(name):
            raise RunNotFound(name)
    return [_story(whole_history(store, name)) for name in names]


def _story(history: History) -> tuple[str, list[Activation]]:
    return history.run_id, history.activations


def history_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The histories (`*.jsonl`) in a folder, by name.

    Raises `ConfigurationError` when there is none: a test that finds nothing to replay must not pass.
    """
    found = sorted(Path(folder).glob("*.jsonl"))
    if not found:
        raise ConfigurationError(
            f"{os.fspath(folder)}: expected histories, found no *.jsonl; record one with "
            "`refold export RUN > FILE.jsonl`"
        )
    return found
