"""Golden histories: files that every later Refold must replay. `python -m tests.replay.golden` for help.

A file is JSON lines: first what to run (`workflow`, `args`, `run_id`, and who recorded it), then one event
a line as it was stored. Recorded once and never again; a handler that changes gets a new name and new files.
"""

import argparse
import platform
import random
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from refold.engine.workflow import Workflow

from . import model_programs
from .model_programs import model_program
from .model_workflows import MODEL
from .model_world import play_and_go_back
from .play import History, check, play
from .programs import generate, program
from .workflows import HANDWRITTEN

FOLDER = Path(__file__).parents[1] / "histories"
WORKFLOWS: dict[str, Workflow[Any, Any]] = {
    program.name: program,
    model_program.name: model_program,
    **{name: flow for name, (flow, _) in {**HANDWRITTEN, **MODEL}.items()},
}
SMALLEST, LARGEST = 8, 60
"""Activations of a random program worth keeping."""


def write(path: Path, history: History, note: str) -> None:
    """Store a history; the first event says what to run."""
    head = {
        "run_id": history.run_id,
        "recorded_by": f"Python {platform.python_version()}, anyio {version('anyio')}",
        "note": note,
    }
    lines = [head, *({"tag": tag, "event": _portable(tag, state)} for tag, state in history.rows)]
    path.write_bytes(msgspec.json.Encoder().encode_lines(lines))


def _portable(tag: str, state: bytes) -> Any:
    """Without the traceback of a failed run: it names folders of the machine that recorded it."""
    event = msgspec.json.decode(state)
    if error := event.get("error"):
        error.pop("traceback", None)
    return event


def read(path: Path) -> tuple[Workflow[Any, Any], History]:
    """The workflow and its history."""
    head, *rows = (
        msgspec.json.decode(line, type=dict[str, msgspec.Raw]) for line in path.read_bytes().splitlines()
    )
    stored = [(msgspec.json.decode(row["tag"], type=str), bytes(row["event"])) for row in rows]
    started = msgspec.json.decode(stored[0][1])
    history = History(msgspec.json.decode(head["run_id"], type=str), stored)
    return WORKFLOWS[started["workflow"]], history


def record(name: str, seed: int) -> History:
    """Play a workflow (`program`: a random tree) in a random world."""
    rng = random.Random(seed)
    if name == model_program.name:
        return play_and_go_back(model_program, [model_programs.generate(rng)], rng)
    if name in MODEL:
        return play_and_go_back(*MODEL[name], rng)
    args = [generate(rng)] if name == program.name else HANDWRITTEN[name][1]
    return play(WORKFLOWS[name], args, rng, rng.choice([0, 0, 0.06]))


def replay_files(paths: Iterable[Path]) -> tuple[int, int]:
    """Crash and replay each at several places; returns how many histories and replays that were."""
    histories = replays = 0
    for path in paths:
        workflow, history = read(path)
        length = len(history.activations())
        replays += check(workflow, history, range(1, length + 1, max(1, length // 12)))
        replays += check(workflow, history, [length])
        histories += 1
    return histories, replays


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.replay.golden", description=__doc__)
    parser.add_argument("action", choices=["record", "replay"])
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--programs", type=int, default=24, help="random programs to record")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--junk", type=int, default=0, help="objects to allocate first, so that addresses differ"
    )
    options = parser.parse_args()
    junk = [[object() for _ in range(number % 97)] for number in range(options.junk)]
    if options.action == "replay":
        print("histories {} replays {}".format(*replay_files(sorted(options.folder.glob("*.jsonl")))))
    else:
        _record_all(options.folder, options.programs, options.seed)
    del junk


def _record_all(folder: Path, programs: int, seed: int) -> None:
    """Record what is not there yet."""
    folder.mkdir(exist_ok=True)
    wanted = [(name, seed + number) for name in (*HANDWRITTEN, *MODEL) for number in range(2)]
    for kind, count in ((program.name, programs), (model_program.name, programs // 2)):
        found, tried = 0, seed
        while found < count:
            tried += 1
            if SMALLEST <= len(record(kind, tried).activations()) <= LARGEST:
                found += 1
                wanted.append((kind, tried))
    for name, chosen in wanted:
        path = folder / f"{name}-{chosen}.jsonl"
        if not path.exists():
            write(path, record(name, chosen), f"python -m tests.replay.golden record --seed {chosen}")


if __name__ == "__main__":
    main()
