"""Other engines on SQLite beside this one, on the same disk in the same minutes.

Each peer has a requirements file and a script that prints JSON. The script runs in a virtual environment
of its own under the user's cache folder, so nothing of a peer is ever installed beside the project.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bare import Bare, step_bytes
from ..harness import Figure, Scale, at_least, run_async
from ..runs import many_runs

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """One engine in one setting."""

    name: str
    """Names `requirements-NAME.txt` and `bench_NAME.py`."""
    journal: str
    label: str
    w2_runs: int
    """As many as it does in some ten seconds; the figure is per second."""
    bar: float | None = None
    """How many times its W2 ours should reach."""


PEERS = (
    Peer("dbos", "delete", "DBOS 3, as installed (rollback journal)", 200),
    Peer("dbos", "wal", "DBOS 3, file put in WAL mode", 200, 20.0),
    Peer("unhinged", "wal", "unhinged 0.2", 1000, 2.0),
)
IN_FLIGHT = 200
STEPS = 5


def python_of(name: str) -> Path:
    """The interpreter of the peer's environment, made on first use and whenever its requirements change."""
    requirements = HERE / f"requirements-{name}.txt"
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "refold-bench" / f"{name}-{mark}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "-r",
            requirements,
        ]
        subprocess.run(install, check=True, stdout=sys.stderr)
        done.touch()
    return python


def measure(peer: Peer, folder: Path, workload: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """What the peer's script reports for one workload, from a fresh process and an empty store."""
    folder.mkdir()
    script = HERE / f"bench_{peer.name}.py"
    command: list[str | Path] = [
        python_of(peer.name),
        script,
        folder,
        workload,
        json.dumps(sizes),
        peer.journal,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{peer.label}, {workload}: ended with {done.returncode}\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def sizes_of(scale: Scale, peer: Peer) -> Iterator[tuple[str, dict[str, Any]]]:
    """The three workloads, and how much of each."""
    yield "w1", {"steps": scale.pick(300, 5)}
    yield "w2", {"runs": scale.pick(peer.w2_runs, 4), "steps": STEPS, "in_flight": IN_FLIGHT}
    yield "w3", {"times": scale.pick(15, 2), "idle_s": 0.05}


def run(scale: Scale) -> list[Figure]:
    """Every peer under every workload, rounds taking turns with our own W2 and with bare commits."""
    bare = Bare(scale.path("bare"), step_bytes())
    bare.warm_up(scale)
    bases: list[float] = []
    ours: list[float] = []
    theirs: dict[tuple[Peer, str], list[float]] = {}
    for round_ in range(scale.pick(3, 1)):
        runs = scale.pick(2000, 4)
        ours.append(run_async(many_runs(f"sqlite:///{scale.path('refold')}", runs, STEPS, IN_FLIGHT)))
        for at, peer in enumerate(PEERS):
            bases.append(bare.commits(scale.pick(300, 5)))
            for workload, sizes in sizes_of(scale, peer):
                answer = measure(peer, scale.folder / f"{at}-{workload}-{round_}", workload, sizes)
                key = {"w1": "ms_per_step", "w2": "steps_per_s", "w3": "p50_ms"}[workload]
                theirs.setdefault((peer, workload), []).append(answer[key])
    bare.close()
    return list(_figures(statistics.median(bases) * 1000, ours, theirs))


def _figures(
    base_ms: float, ours: list[float], theirs: dict[tuple[Peer, str], list[float]]
) -> Iterator[Figure]:
    middle = {key: statistics.median(values) for key, values in theirs.items()}
    for peer in PEERS:
        step, rate, latency = (middle[peer, workload] for workload in ("w1", "w2", "w3"))
        yield Figure(f"{peer.label}: sequential step", step, "ms", ratio=step / base_ms)
        yield Figure(f"{peer.label}: {STEPS}-step runs, {IN_FLIGHT} in flight", rate, "steps/s")
        yield Figure(f"{peer.label}: start to result, idle, p50", latency, "ms", ratio=latency / base_ms)
    yield Figure("Refold: 2,000 5-step runs, 200 in flight", statistics.median(ours), "steps/s")
    for peer in PEERS:
        if peer.bar:
            ratio = statistics.median(
                mine / other for mine, other in zip(ours, theirs[peer, "w2"], strict=True)
            )
            yield at_least(
                f"Refold ÷ {peer.label}", statistics.median(ours), "steps/s", peer.bar, ratio=ratio, of="peer"
            )
