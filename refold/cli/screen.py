"""Where output goes: plain text into a pipe, colours on a terminal (through rich, loaded only then)."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from .text import Line, Span, clip, visible, width_of

MIN_WIDTH = 60
PIPE_WIDTH = 100
"""Width of what is drawn to fit (bars) when there is no terminal to ask."""

Cell = str | Span | Line


class Screen:
    """One output stream. Everything printed through it must have gone through `visible`, or be our own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stdout
        self.terminal = self.stream.isatty()
        self.colours = self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if self.terminal else PIPE_WIDTH
        self.width = max(columns, MIN_WIDTH)
        self.unicode = _can_show(self.stream, "█▓▒▄▚·╌✓✗▼┊…")
        self._console: Any = None

    @property
    def console(self) -> Any:
        """The rich console; only when `colours`."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.stream, highlight=False, markup=False, emoji=False)
        return self._console

    def print(self, *parts: Cell) -> None:
        """One line, of texts and styled spans."""
        line = [span for part in parts for span in _spans(part)]
        if self.colours:
            self.console.print(_text(line), soft_wrap=True)
        else:
            self.stream.write(self._encodable("".join(text for text, _ in line)).rstrip() + "\n")

    def block(self, lines: Sequence[str], style: str = "", indent: int = 2) -> None:
        """Lines that are visible already, indented."""
        for line in lines:
            self.print((" " * indent + line, style))

    def raw(self, text: str) -> None:
        """Text as it is, with a newline: JSON, in which nothing is left to escape."""
        self.stream.write(self._encodable(text) + "\n")

    def flush(self) -> None:
        self.stream.flush()

    def mark(self, fine: bool) -> Span:
        """A tick or a cross."""
        if self.unicode:
            return ("✓", "green") if fine else ("✗", "bold red")
        return ("ok", "green") if fine else ("FAILED", "bold red")

    def _encodable(self, text: str) -> str:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: str = "", flex: int = -1
    ) -> None:
        """Columns under a header; `right` names those aligned right, `flex` is cut to fit a terminal."""
        cells = [[_spans(cell) for cell in row] for row in rows]
        widths = [
            max(len(name), *(width_of(row[i]) for row in cells)) if cells else len(name)
            for i, name in enumerate(header)
        ]
        if self.terminal and flex >= 0:
            others = sum(widths) - widths[flex] + 2 * (len(widths) - 1)
            widths[flex] = max(min(widths[flex], self.width - others), len(header[flex]), 8)
        aligned = [name in right.split() for name in header]
        self.print(_row([[(name, "dim")] for name in header], widths, aligned))
        for row in cells:
            self.print(_row(row, widths, aligned))

    @contextmanager
    def live(self) -> Iterator["LiveLine"]:
        """A line at the bottom that changes, on a terminal; nothing elsewhere."""
        line = LiveLine(self)
        try:
            yield line
        finally:
            line.stop()


class Page(Screen):
    """Lines that are collected, to be shown together, for as much of a terminal as there is now."""

    def __init__(self, screen: Screen) -> None:
        self.stream, self.terminal, self.colours = screen.stream, screen.terminal, screen.colours
        self.unicode, self._console = screen.unicode, screen._console
        size = shutil.get_terminal_size((PIPE_WIDTH, 24))
        self.width, self.height = max(size.columns, MIN_WIDTH), size.lines
        self.lines: list[Line] = []

    def print(self, *parts: Cell) -> None:
        """Keep one line."""
        self.lines.append([span for part in parts for span in _spans(part)])


class LiveLine:
    """The changing lines; `update` is cheap and does nothing where there is no terminal."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._live: Any = None

    def update(self, *parts: Cell) -> None:
        """Replace the line."""
        if not self.screen.colours:
            return
        line = [span for part in parts for span in _spans(part)]
        self._replace(_text(_cut(line, self.screen.width - 1)))

    def show(self, page: Page) -> None:
        """Replace the line by all of these."""
        if not self.screen.colours:
            return
        text = _text([])
        for line in page.lines:
            text.append(_text(_cut(line, page.width - 1))).append("\n")
        text.rstrip()
        self._replace(text)

    def _replace(self, text: Any) -> None:
        if not _in_the_foreground(self.screen.stream):
            return
        if self._live is None:
            from rich.live import Live

            self._live = Live(text, console=self.screen.console, transient=True, auto_refresh=False)
            self._live.start()
            self.screen.console.show_cursor()  # after kill -9 nobody would bring it back
        self._live.update(text, refresh=True)

    def stop(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _in_the_foreground(stream: TextIO) -> bool:
    """Whether the terminal is this process's to draw on; not after `refold run … &`, where somebody types."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # not the terminal that controls us
        return True


def _spans(part: Cell) -> Line:
    if isinstance(part, str):
        return [(part, "")]
    return [part] if isinstance(part, tuple) else part


def _text(line: Line) -> Any:
    from rich.text import Text

    text = Text(no_wrap=True)
    for piece, style in line:
        text.append(piece, style or None)
    return text


def _row(cells: Sequence[Line], widths: Sequence[int], right: Sequence[bool]) -> Line:
    line: Line = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        cell = _cut(cell, width)
        padding = (" " * (width - width_of(cell)), "")
        line += [padding, *cell] if right[i] else [*cell, padding]
        if i < len(widths) - 1:
            line.append(("  ", ""))
    return line


def _cut(line: Line, width: int) -> Line:
    if width_of(line) <= width:
        return line
    left, shorter = width, []
    for text, style in line:
        shorter.append((clip(text, left), style))
        left -= len(text)
        if left <= 0:
            break
    return shorter


def _can_show(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def complain(text: object, screen: Screen | None = None) -> None:
    """`refold: …` on stderr; further lines indented."""
    screen = screen or Screen(sys.stderr)
    first, *rest = str(text).split("\n")
    screen.print(("refold: ", "bold red"), visible(first))
    screen.block([visible(line.expandtabs(4)) for line in rest], indent=0)
