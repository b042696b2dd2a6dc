"""What is not the whole log, byte for byte, is refused, and the line is named."""

import re
from collections.abc import Callable, Iterable
from io import BytesIO

import pytest
from hypothesis import given, settings, strategies as st

from refold.events.errors import (
    RefoldError,
    SchemaMismatch,
    StoreCorrupt,
)
from refold.events.lines import Writer, read_log
from refold.events.memory import MemoryStore
from refold.events.stream import Row
from refold.events.transfer import import_log
from tests.events.transfers import DIGEST, contents, exported, mail, put, sample, scheduled, started

# ---- what is refused ------------------------------------------------------------------------------------


def refused(lines: Iterable[bytes], error: type[RefoldError] = StoreCorrupt) -> str:
    """The message; and nothing was stored."""
    store = MemoryStore()
    with pytest.raises(error) as found:
        import_log(store, lines, name="log.jsonl")
    assert contents(store) == ([], [], {})
    assert not store.holding()
    return str(found.value)


def change(at: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    def changed(lines: list[bytes]) -> list[bytes]:
        assert old in lines[at]
        return [*lines[:at], lines[at].replace(old, new, 1), *lines[at + 1 :]]

    return changed


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str]] = {
    "an event": (change(4, b"pay", b"pax"), 5, "version 2 of stream 'a' .* does not match its hash"),
    "a space in an event": (change(4, b'"key":', b'"key": '), 5, "does not match its hash"),
    "a space in a line": (change(4, b'"tag":"step', b'"tag": "step'), 5, "not spelled"),
    "one member more": (change(4, b'"tag":"step', b'"more":1,"tag":"step'), 5, "no line of a log"),
    "a kind of line": (change(4, b'"line":"event"', b'"line":"evens"'), 5, "no line of a log"),
    "a content": (change(9, b"xxxx", b"xxxy"), 10, f"content {DIGEST} does not match its digest"),
    "the header": (
        change(0, b'"refold":"', b'"refold":"9'),
        11,
        "digest .* the header .line 1. or this line",
    ),
    "the end": (
        change(10, b'"contents":1', b'"contents":2'),
        11,
        "counts 8 events, 4 streams and 2 contents",
    ),
    "dropped": (lambda lines: lines[:4] + lines[5:], 5, "says that it is line 6: lines are missing"),
    "swapped": (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], 5, "says that it is line 6"),
    "repeated": (lambda lines: [*lines[:5], *lines[4:]], 6, "says that it is line 5"),
    "cut": (lambda lines: lines[:-1], 11, "the file was cut off"),
    "cut in a line": (lambda lines: [*lines[:7], lines[7][:30]], 8, "was cut or changed"),
    "more behind the end": (lambda lines: [*lines, lines[3]], 12, "the log has ended in the line before"),
    "a second header": (lambda lines: [*lines[:2], lines[0], *lines[3:]], 3, "second header"),
    "another file": (lambda lines: [b"\xff", *lines[1:]], 1, "expected the header"),
    "no header": (lambda lines: lines[1:], 1, "expected the header"),
    "empty": (lambda lines: [], 1, "cut off"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_file_that_is_not_as_it_was_is_refused_and_the_line_is_named(what: str) -> None:
    damage, line, words = DAMAGES[what]
    kind = SchemaMismatch if words == "expected the header" else StoreCorrupt
    message = refused(damage(exported(sample())), kind)
    assert message.startswith(f"log.jsonl, line {line}: ")
    assert re.search(words, message), message


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_byte_is_changed_its_line_is_named(data: st.DataObject) -> None:
    store = MemoryStore()
    put(store, "a", started(), scheduled(1))
    put(store, "a/inbox", mail(1))
    whole = b"".join(exported(store))
    at = data.draw(st.integers(0, len(whole) - 2))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    changed = BytesIO(whole[:at] + bytes([new]) + whole[at + 1 :])
    line, last = whole[:at].count(b"\n") + 1, whole.count(b"\n")
    message = refused(changed, RefoldError)
    named = re.match(r"log.jsonl, line (\d+): |log.jsonl has version ", message)
    assert named, message
    # A header that still reads as one is found out by the digest in the last line.
    assert int(named[1] or 1) in ((1, last) if line == 1 else (line,)), message


def test_a_newer_format_is_refused() -> None:
    lines = exported(sample())
    lines[0] = lines[0].replace(b'"version":1', b'"version":2')
    assert "version 2 of the format, this Refold knows version 1" in refused(lines, SchemaMismatch)


def test_a_reference_without_its_content_is_refused() -> None:
    store = sample()
    whole = [item for item in read_log(exported(store)) if isinstance(item, Row)]
    writer = Writer()
    lines = [writer.header("0", 3, None, 8), *map(writer.event, whole), writer.end(4)]
    assert f"without the content {DIGEST} that version 4 of stream 'a'" in refused(lines)
