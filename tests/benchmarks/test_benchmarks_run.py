"""The benches still run. What they measure here means nothing, and nothing is asserted about it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHES = ("bare", "step", "runs", "parallel", "map", "children", "latency", "signals",
           "replay", "memory", "idle", "rebuild", "queries", "import", "show")  # fmt: skip


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("names", [BENCHES[:7], BENCHES[7:]], ids=lambda names: "+".join(names))
def test_every_bench_runs_and_each_figure_says_how_to_reproduce_it(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    report = tmp_path / "figures.json"

    done = bench(*names, "--quick", "--json", str(report), "--dir", str(tmp_path))

    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())["figures"]
    assert {figure["command"] for figure in figures} == {f"./dev bench {name}" for name in names}
    assert all(figure["value"] >= 0 for figure in figures if figure["unit"] != "KiB")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"], "benches leave files behind"


def test_a_bench_that_does_not_exist_is_refused_by_name() -> None:
    done = bench("fly")

    assert done.returncode == 2
    assert "no bench named fly" in done.stderr


def test_the_test_above_knows_every_bench() -> None:
    done = bench("--help")

    assert ", ".join(BENCHES) in " ".join(done.stdout.split())
