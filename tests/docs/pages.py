"""Pages as tests read them: their blocks, headings and links."""

import re
from collections.abc import Iterator
from difflib import ndiff
from pathlib import Path
from typing import NamedTuple

from tests.docs.shell import Server, terminal

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(
    r"""^(?P<tab> *)```(?P<kind>\w+)(?: (?:file=|title=")(?P<file>[^\s"]+)"?)?[^\n]*\n"""
    r"(?P<text>.*?)^(?P=tab)```$",
    re.MULTILINE | re.DOTALL,
)
MASKS = [
    (re.compile(r"(?<=  )(0 s |▼ |owner \d+ ▼).*|^ *· waiting .*"), ""),
    (re.compile(r"\b\d{4}-\d\d-\d\d(T| )?"), ""),
    (re.compile(r"\b\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b"), "ID"),
    (
        re.compile(r"(< ?)?\b\d+(\.\d+)? ?(ms|µs|s|min|h|seconds?|minutes?|MB/s)\b( \d+ ?(ms|s|min)\b)*"),
        "SPAN",
    ),
    (re.compile(r"\b(pid|process) \d+( on \S+)?"), r"\1 PID"),
    (re.compile(r"[\u2500-\u259f·▼]+"), ""),
    (re.compile(r"[ \t]+"), " "),
]


class Block(NamedTuple):
    """A fenced block: its language, the file it is to be saved as, its text."""

    kind: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order; those inside a list or a tab lose their indentation."""
    found = []
    for match in BLOCK.finditer(page.read_text()):
        text = re.sub(rf"^{match['tab']}", "", match["text"], flags=re.MULTILINE)
        found.append(Block(match["kind"], match["file"] or "", text))
    return found


class Told(NamedTuple):
    """A command of a page (none: its Python program), what the page shows, and what it printed."""

    typed: str
    command: str
    expected: str
    got: str
    fits: bool


def typed(text: str) -> Iterator[tuple[str, str]]:
    """(command as it is typed, what it prints) of a console block; a command may go on after a backslash."""
    for match in re.finditer(r"^\$ ((?:[^\n]*\\\n)*[^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", text, re.MULTILINE):
        yield match[1], match[2]


def masked(text: str) -> str:
    """Without what differs from time to time: clocks, spans, ids, digests, bars, padding."""
    lines = []
    for line in text.strip().splitlines():
        for pattern, instead in MASKS:
            line = pattern.sub(instead, line)
        lines.append(line.strip())
    return "\n".join(lines)


def same(expected: str, got: str) -> bool:
    """Whether a command has printed what the page shows; `…` stands for anything, alone for lines."""
    pattern = re.escape(masked(expected)).replace("…\\\n", "(?:.*\\n)*?").replace("…", ".*")
    return re.fullmatch(pattern, masked(got)) is not None


def perform(page: Path, server: Server, folder: Path) -> Iterator[Told]:
    """Do what a page says, from top to bottom, in an empty folder.

    Files are saved and console blocks typed where they stand; the rest is one Python program.
    """
    program: list[str] = []
    with terminal(server, folder) as there:
        for block in blocks(page):
            if block.file:
                (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.file).write_text(block.text)
            elif block.kind == "python":
                program.append(block.text)
            elif block.kind == "console":
                for line, expected in typed(block.text):
                    command = re.sub(r"\\\n\s*", "", line)
                    got = there.type(command, expected)
                    yield Told(line, command, expected, got, same(expected, got))
        if program:
            (folder / "page.py").write_text("\n".join(program))
            done = there.run("page.py")
            yield Told("", "", "", done.told, not done.code)


def difference(expected: str, got: str) -> str:
    return "\n".join(ndiff(masked(expected).splitlines(), masked(got).splitlines()))


def run_page(page: Path, server: Server, folder: Path) -> list[str]:
    """What goes otherwise than the page says."""
    return [
        f"$ {told.command}\n{told.got}\n" + difference(told.expected, told.got)
        for told in perform(page, server, folder)
        if not told.fits
    ]


SLUG = re.compile(r"[^\w\- ]")


def anchors(page: Path) -> set[str]:
    """What a link to a part of a page may name."""
    text = BLOCK.sub("", page.read_text())
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(SLUG.sub("", heading.lower()).strip().replace(" ", "-"))
    return found


LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")


def links(page: Path) -> list[tuple[str, str]]:
    """(page, part) of each link to a place of ours; the page is empty for a link within the page."""
    found = LINK.findall(BLOCK.sub("", page.read_text()))
    return [(target.partition("#")[0], target.partition("#")[2]) for target in found]
