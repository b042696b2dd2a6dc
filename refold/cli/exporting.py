"""`refold export`: the log, or runs of it, as a file or into a pipe."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..engine.exporting import export as export_store
from ..events.errors import ConfigurationError, StoreError
from .exits import OK
from .screen import LiveLine, Screen
from .stores import looking
from .text import as_json, count, size, visible


def export(args: argparse.Namespace, screen: Screen) -> int:
    """`refold export [RUN …]`."""
    if args.runs and args.all:
        raise ConfigurationError("either single runs or --all")
    if args.format in ("mermaid", "dot") and not args.runs and not args.all:
        raise ConfigurationError(
            f"a graph of what? give runs: refold export RUN --format {args.format}; or --all"
        )
    if args.json and not args.output:
        raise ConfigurationError("--json tells about a file: give --output, too")
    with looking(args.store) as store, screen.live() as live:
        show = progress(live, "exporting")
        lines = export_store(store, args.runs or None, args.format, family=args.family, progress=show)
        if args.output:
            number, written = _write(Path(args.output), lines)
        else:
            _print(screen, lines)
            return OK
    if args.json:
        told = {"file": args.output, "format": args.format, "lines": number, "bytes": written}
        screen.raw(as_json(told))
    else:
        screen.print(screen.mark(True), f" {visible(args.output)}: {count(number, 'line')}, {size(written)}")
    return OK


def progress(live: LiveLine, what: str) -> Callable[[int, int], None]:
    """Shows how far something long has come."""

    def show(done: int, total: int) -> None:
        share = f", {done / total:.0%}" if total else ""
        live.update((f"{what} … {done:,} of {total:,} events{share}", "dim"))

    return show


def _print(screen: Screen, lines: Iterator[str]) -> None:
    """Bytes as they are into a pipe; on a terminal what would steer it is written out."""
    buffer: BinaryIO | None = getattr(screen.stream, "buffer", None)
    if screen.terminal or buffer is None:
        for line in lines:
            screen.raw("".join(c if c.isprintable() else _escaped(c) for c in line.removesuffix("\n")))
        return
    screen.flush()
    for line in lines:
        buffer.write(line.encode())


def _escaped(character: str) -> str:
    r"""As JSON and DOT write it, `\u001b`; beyond the first 65,536 characters nothing steers a terminal."""
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else "?"


def _write(path: Path, lines: Iterator[str]) -> tuple[int, int]:
    """Into a file beside it that takes its name when it is whole and on the disk."""
    number = written = 0
    try:
        with _replacing(path) as file:
            for line in lines:
                written += file.write(line.encode())
                number += 1
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; nothing is left of it") from error
    return number, written


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    if path.exists() and not path.is_file():  # a device or a pipe: there is nothing to replace
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
