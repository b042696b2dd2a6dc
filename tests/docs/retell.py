"""Put what commands really print into the console blocks of pages: `python -m tests.docs.retell PAGE …`.

What still fits stays as it is; with `--anew` only if it has an `…`. Read the difference before committing it.
"""

import sys
import tempfile
from pathlib import Path

from tests.docs.pages import perform
from tests.docs.shell import Server


def retold(page: Path, server: Server, folder: Path, anew: bool) -> str:
    """The page's text, with what its commands print."""
    text, place = page.read_text(), 0
    for told in perform(page, server, folder):
        if told.command:
            place = text.index(f"$ {told.typed}", place) + len(f"$ {told.typed}")
        if not told.command or (told.fits and not (anew and "…" not in told.expected)):
            continue
        before, after = text[:place], text[place:].removeprefix("\n").removeprefix(told.expected)
        got = told.got.replace(str(folder), "…").strip()
        text = f"{before}\n{got}".rstrip() + "\n" + after
    return text


def main() -> None:
    server = Server()
    names = [name for name in sys.argv[1:] if name != "--anew"]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(name)
            page.write_text(retold(page, server, Path(folder) / "empty", len(names) < len(sys.argv) - 1))
    server.close()


if __name__ == "__main__":
    main()
