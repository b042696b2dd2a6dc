"""`python -m benchmarks [names] [--quick] [--peers] [--json FILE]`: run benches, print one table."""

import argparse
import dataclasses
import importlib
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from .harness import Figure, Scale, as_json, machine, table

BENCHES = {
    "bare": "bare",
    "step": "step",
    "runs": "runs",
    "parallel": "parallel",
    "map": "fan_out",
    "children": "children",
    "latency": "latency",
    "signals": "signals",
    "replay": "replay",
    "memory": "memory",
    "idle": "idle",
    "rebuild": "rebuild",
    "queries": "model_queries",
    "import": "imports",
    "show": "looking",
}
"""Name on the command line, and the module whose `run` it is."""
POSTGRES = {
    "step": "step",
    "runs": "runs",
    "workers": "workers",
    "latency": "latency",
    "idle": "idle",
    "history": "history",
    "rebuild": "rebuild",
    "queries": "model_queries",
    "standby": "standby",
}
"""Those of `--postgres`, modules in `benchmarks.postgres`."""
PEERS = "peers"
"""Installs other projects into environments of their own, so only on demand."""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"{', '.join(BENCHES)} (default: all), {PEERS}"
    )
    parser.add_argument(
        "--postgres", action="store_true", help=f"on a PostgreSQL server of our own: {', '.join(POSTGRES)}"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument(
        "--peers", action="store_true", help="also measure DBOS and unhinged, installed on demand"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="disk to measure (default: this folder)")
    chosen = parser.parse_args(argv)
    known = (*(POSTGRES if chosen.postgres else BENCHES), PEERS)
    if unknown := set(chosen.names) - {*known}:
        parser.error(f"no bench named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return chosen


def one(name: str, scale: Scale) -> list[Figure]:
    """Run one bench; its figures carry the command that repeats them."""
    module = importlib.import_module(f"benchmarks.{BENCHES.get(name, name)}")
    figures: list[Figure] = module.run(scale)
    return [dataclasses.replace(figure, command=f"./dev bench {name}") for figure in figures]


def one_on_postgres(name: str, scale: Scale) -> list[Figure]:
    """The same on a server, new for each bench."""
    place = importlib.import_module("benchmarks.postgres.place")  # psycopg and the tests' server: not always
    module = importlib.import_module(f"benchmarks.postgres.{POSTGRES.get(name, name)}")
    with place.server() as dsn:
        figures: list[Figure] = module.run(scale, dsn)
    return [dataclasses.replace(figure, command=f"./dev bench --postgres {name}") for figure in figures]


def main(argv: list[str] | None = None) -> int:
    chosen = arguments(argv)
    names = chosen.names or list(POSTGRES if chosen.postgres else BENCHES)
    if chosen.peers and PEERS not in names:
        names.append(PEERS)
    figures: list[Figure] = []
    crashed = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the folder would stay behind
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=chosen.dir) as root:
        for name in names:
            folder = Path(root, name)
            folder.mkdir()
            began = time.perf_counter()
            scale = Scale(folder, chosen.quick)
            try:
                figures += one_on_postgres(name, scale) if chosen.postgres else one(name, scale)
            except Exception:
                crashed = True
                traceback.print_exc()
            print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(f"{about}\n\n{table(figures)}")
    if chosen.json:
        chosen.json.write_text(as_json(figures))
    return int(crashed)


if __name__ == "__main__":
    raise SystemExit(main())
