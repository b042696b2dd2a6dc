"""What `Engine.export` and `refold export` write, by its format."""

from collections.abc import Iterator, Sequence

from ..events.errors import ConfigurationError, RunNotFound
from ..events.store import Reading
from ..events.stream import Row, is_run
from ..events.transfer import Progress, export_log, family_of, merged, read_stream, scan_log, streams_of
from ..projections.exports.cloud_events import cloud_events
from ..projections.exports.graph import dot, mermaid
from ..projections.exports.trace import trace

FORMATS = ("jsonl", "cloudevents", "trace", "mermaid", "dot")


def export(
    store: Reading,
    runs: Sequence[str] | None,
    format: str,
    *,
    family: bool = False,
    progress: Progress | None = None,
) -> Iterator[str]:
    """The runs (None: all) in this format, line by line. Raises `RunNotFound`, `ConfigurationError`."""
    if format not in FORMATS:
        raise ConfigurationError(f"export: expected one of {', '.join(FORMATS)}, found {format!r}")
    if family and runs is not None:
        runs = family_of(store, runs)
    if format == "jsonl":
        return export_log(store, runs, progress=progress)
    for run_id in runs or ():
        if "/" in run_id or not store.tail(run_id).version:
            raise RunNotFound(run_id)
    if format == "cloudevents":
        return cloud_events(_rows(store, runs))
    if runs is None:
        runs = [work.run_id for work, _ in store.all_work() if is_run(work.run_id)]
    ids = list(dict.fromkeys(runs))
    draw = {"trace": trace, "mermaid": mermaid, "dot": dot}[format]
    return draw(ids, lambda run_id: read_stream(store, run_id, store.tail(run_id).version))


def _rows(store: Reading, runs: Sequence[str] | None) -> Iterator[Row]:
    if runs is None:
        return scan_log(store, store.position())
    tails = {name: version for run_id in runs for name, version in streams_of(store, run_id).items()}
    return merged(store, tails)
