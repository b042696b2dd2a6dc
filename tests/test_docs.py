"""The pages keep their word: every Python block runs, every name, event and field has its place."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import refold
from refold.events.registry import TYPES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python(?: file=(?P<file>\S+))?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(file name or "", code) of each Python block, in order."""
    return [(m["file"] or "", m["code"]) for m in BLOCK.finditer(page.read_text())]


def run_page(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks as one program, from top to bottom, in an empty folder."""
    program: list[str] = []
    for name, code in blocks(page):
        if name:
            (folder / name).write_text(code)
        else:
            program.append(code)
    (folder / "page.py").write_text("\n".join(program))
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "page.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p)], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    done = run_page(page, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_page_with_a_broken_block_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "broken.md"
    page.write_text("```python\nfrom refold import nothing_of_the_kind\n```\n")
    assert run_page(page, tmp_path).returncode != 0


def test_every_public_name_has_its_heading() -> None:
    headings = re.findall(r"^###? `(\w+)`$", (ROOT / "docs/reference/api.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(refold.__all__)


def test_every_event_and_every_field_is_documented() -> None:
    text = (ROOT / "docs/reference/events.md").read_text()
    sections = {
        m[1]: m[2] for m in re.finditer(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    }
    assert sections.keys() == TYPES.keys()
    common = {"id", "at", "by", "cause", "trace"}
    for tag, kind in TYPES.items():
        documented = set(re.findall(r"^\| `(\w+)` \|", sections[tag], re.MULTILINE))
        assert documented == set(kind.__struct_fields__) - common, tag
