"""The pages keep their word: every block runs, every name, event and field has its place."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import refold
from refold.events.registry import TYPES
from tests.docs.pages import DOCS, PAGES, ROOT, anchors, blocks, links, masked, run_page, same
from tests.docs.shell import Server

TYPED = [page for page in PAGES if any(block.kind == "console" for block in blocks(page))]
RUN = [page for page in PAGES if any(b.kind == "python" for b in blocks(page)) and page not in TYPED]


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(page: Path, server: Server, tmp_path: Path) -> None:
    problems = run_page(page, server, tmp_path / "empty")
    assert not problems, "\n\n".join(problems)


def test_what_pages_type_prints_what_they_show(server: Server, tmp_path: Path) -> None:
    """All at once: they mostly wait."""
    with ThreadPoolExecutor(len(TYPED)) as threads:
        folders = [tmp_path / str(number) for number in range(len(TYPED))]
        found = list(threads.map(lambda page, folder: run_page(page, server, folder), TYPED, folders))
    problems = [
        f"{page.relative_to(ROOT)}: {p}" for page, some in zip(TYPED, found, strict=True) for p in some
    ]
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nfrom refold import nothing_of_the_kind\n```\n",
        "```console\n$ refold runs --store nowhere.db\nno runs\n```\n",
        "```console\n$ echo hello\ngoodbye\n```\n",
        '```python file=app.py\nprint("hello", flush=True)\n```\n```console\n$ python app.py\nHello\n```\n',
    ],
)
def test_a_page_that_is_not_true_is_noticed(text: str, server: Server, tmp_path: Path) -> None:
    page = tmp_path / "broken.md"
    page.write_text(text)
    assert run_page(page, server, tmp_path / "empty")


def test_what_differs_from_time_to_time_is_left_out_and_nothing_else() -> None:
    assert masked("took 1.24 s at 14:03:55.120") == masked("took  3 min 2 s at 09:00:00")
    assert same("a\n…\nd", "a\nb\nc\nd")
    assert not same("a\n…\nd", "a\nb\nc\ne")
    assert not same("2 completed", "3 completed")


EXAMPLES = sorted((DOCS / "examples").glob("*/*.py"))


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda p: p.name)
def test_an_example_is_shown_whole_on_its_page(program: Path) -> None:
    page = DOCS / "examples" / f"{program.parent.name}.md"
    assert [b.text for b in blocks(page) if b.file == program.name] == [program.read_text()]


def test_every_example_is_killed_and_run_again() -> None:
    pages = [page for page in (DOCS / "examples").glob("*.md") if page.stem != "index"]
    assert len(pages) == 5
    for page in [*pages, DOCS / "tutorial" / "first-run.md"]:
        typed_lines = "".join(b.text for b in blocks(page) if b.kind == "console")
        assert re.search(r"kill -9 \$!\n(.*\n)*\$ (refold run|python) ", typed_lines), page


def test_every_link_leads_to_a_page_and_a_part_of_it() -> None:
    dead = []
    for page in PAGES:
        for target, part in links(page):
            goal = (page.parent / target).resolve() if target else page
            if not goal.exists() or (part and goal.suffix == ".md" and part not in anchors(goal)):
                dead.append(f"{page.relative_to(ROOT)}: {target}#{part}")
    assert not dead, dead


def test_every_public_name_has_its_heading() -> None:
    headings = re.findall(r"^###? `(\w+)`$", (DOCS / "reference/api.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(refold.__all__)


def test_every_event_and_every_field_is_documented() -> None:
    text = (DOCS / "reference/events.md").read_text()
    sections = {
        m[1]: m[2] for m in re.finditer(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    }
    assert sections.keys() == TYPES.keys()
    common = {"id", "at", "by", "cause", "trace"}
    for tag, kind in TYPES.items():
        documented = set(re.findall(r"^\| `(\w+)` \|", sections[tag], re.MULTILINE))
        assert documented == set(kind.__struct_fields__) - common, tag
