"""A data job: read every file of a folder, clean it, add it all up, and leave a report."""

import asyncio
import csv
import sys
import time
from collections import Counter
from pathlib import Path

from refold import Artifact, Context, Engine, Settings, StepFailed, current_step, step, workflow


@step
def files_of(folder: str) -> list[str]:
    """What is there is for a step to say: the handler must find the same files after a restart."""
    return sorted(str(path) for path in Path(folder).glob("*.csv"))


@step
def clean(path: str) -> dict[str, int]:
    """Read one file, keep its good lines as a file of the run, return what each product sold."""
    print(f"reading {path}")
    time.sleep(0.2)  # a file in earnest takes longer
    sold: Counter[str] = Counter()
    with open(path, newline="") as source:
        for row in csv.DictReader(source):
            sold[row["product"].strip().lower()] += int(row["count"])
    kept = current_step().artifacts_dir / f"{Path(path).stem}.clean.csv"
    kept.write_text("".join(f"{name},{count}\n" for name, count in sorted(sold.items())))
    current_step().artifact(kept.stem, path=kept, media_type="text/csv")
    return dict(sold)


@step
def report(totals: dict[str, int], bad: list[str]) -> Artifact:
    """Write what it all comes to."""
    lines = [f"{name},{count}" for name, count in sorted(totals.items())]
    lines += [f"# left out: {text}" for text in bad]
    path = current_step().artifacts_dir / "report.csv"
    path.write_text("\n".join(lines) + "\n")
    return current_step().artifact("report", path=path, media_type="text/csv")


@workflow
async def sales(ctx: Context, folder: str) -> str:
    files = await files_of(folder)
    parts = await ctx.map(clean, files, limit=4, on_error="continue")
    totals: Counter[str] = Counter()
    for part in parts:
        totals.update(part or {})
    bad = [f"{files[place]}: {reason(error)}" for place, error in parts.failures.items()]
    return (await report(dict(totals), bad)).path


def reason(error: Exception) -> str:
    return f"{error.type} {error.message}" if isinstance(error, StepFailed) else str(error)


async def main(folder: str) -> None:
    async with Engine("etl.db", workflows=[sales], settings=Settings(files="files")) as engine:
        run = await engine.start(sales, folder, id=f"sales-{Path(folder).name}")
        print("written to", await run.result())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
