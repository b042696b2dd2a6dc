"""The log as lines of JSON: the one form in which it leaves a store and comes into another, unchanged.

    {"line":"header","n":1,"format":"refold.log","version":1,"refold":"0.1.0","schema":3,"scope":"store",…}
    {"line":"event","n":2,"stream":"order-42","version":1,"tag":"run.started","hash":"9f…","event":{…}}
    {"line":"content","n":3,"digest":"ab…","base64":"…"}
    {"line":"end","n":4,"events":1,"streams":1,"contents":1,"sha256":"…"}

An event's own bytes stand in its line as they are stored, so that `jq` can read them and nothing is lost;
bytes that are not JSON on one line stand there as `text`, those that are not even UTF-8 as `base64`.

Every line has exactly one spelling, and is checked against it: whoever changes a byte is told in which line.
Positions are left out, for they belong to a store; the order of the lines is that of the commits.
"""

from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import cast

import msgspec
from msgspec import Raw, Struct, field

from .errors import SchemaMismatch, StoreCorrupt
from .stream import GENESIS, Row, row_hash

FORMAT = "refold.log"
FORMAT_VERSION = 1


class Header(Struct, frozen=True, tag_field="line", tag="header", forbid_unknown_fields=True):
    """The first line."""

    n: int
    format: str
    version: int
    """Of the format."""
    refold: str
    """Version of the Refold that has written it."""
    schema: int
    """Of the stores of that Refold."""
    scope: str
    """`store`, or `runs`: then the file has these runs only."""
    runs: tuple[str, ...]
    events: int
    """How many will follow; for a progress bar, the last line says it again."""


class Content(Struct, frozen=True):
    """The content of a large value, by its SHA-256."""

    digest: str
    data: bytes


class End(Struct, frozen=True, tag_field="line", tag="end", forbid_unknown_fields=True):
    """The last line: without it a file that was cut off would look whole."""

    n: int
    events: int
    streams: int
    contents: int
    sha256: str
    """Over all lines before, their line feeds included."""


Item = Header | Row | Content | End
"""What a line says."""


class _Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes in one of three spellings."""

    n: int
    event: Raw = field(default_factory=Raw)
    text: str | None = None
    base64: str | None = None

    def data(self) -> bytes:
        if self.base64 is not None:
            return b64decode(self.base64, validate=True)
        return bytes(self.event) if self.text is None else self.text.encode()


class _Event(_Body, frozen=True, kw_only=True, tag_field="line", tag="event"):
    stream: str
    version: int
    tag: str
    hash: str


class _Content(_Body, frozen=True, kw_only=True, tag_field="line", tag="content"):
    digest: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Header | _Event | _Content | End).decode
_skip = msgspec.json.Decoder(Raw).decode


class Writer:
    """Makes the lines one after the other, and the digest of them all."""

    def __init__(self) -> None:
        self.lines = self.events = self.contents = 0
        self._digest = sha256()

    def header(self, refold: str, schema: int, runs: tuple[str, ...] | None, events: int) -> bytes:
        scope = "store" if runs is None else "runs"
        head = Header(1, FORMAT, FORMAT_VERSION, refold, schema, scope, runs or (), events)
        return self._line(_encode(head) + b"\n")

    def event(self, row: Row) -> bytes:
        self.events += 1
        return self._line(_event_line(self.lines + 1, row.stream, row.version, row.tag, row.hash, row.state))

    def content(self, digest: str, data: bytes) -> bytes:
        self.contents += 1
        return self._line(_content_line(self.lines + 1, digest, data))

    def end(self, streams: int) -> bytes:
        last = End(self.lines + 1, self.events, streams, self.contents, self._digest.hexdigest())
        return _encode(last) + b"\n"

    def _line(self, line: bytes) -> bytes:
        self.lines += 1
        self._digest.update(line)
        return line


def _event_line(n: int, stream: str, version: int, tag: str, hash: bytes, state: bytes) -> bytes:
    return b'{"line":"event","n":%d,"stream":%b,"version":%d,"tag":%b,"hash":"%b",%b}\n' % (
        n, _encode(stream), version, _encode(tag), hash.hex().encode(), _spelled(state)
    )  # fmt: skip


def _content_line(n: int, digest: str, data: bytes) -> bytes:
    return b'{"line":"content","n":%d,"digest":%b,%b}\n' % (n, _encode(digest), _spelled(data))


def _spelled(data: bytes) -> bytes:
    """The bytes as a member of a JSON object; exactly one of three ways is right for any bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return b'"base64":"%b"' % b64encode(data)
    # A carriage return ends a line for some readers, in which JSON admits it between two tokens.
    if b"\n" not in data and b"\r" not in data and _is_json(data):
        return b'"event":' + data
    return b'"text":' + _encode(text)


def _is_json(data: bytes) -> bool:
    try:
        return bytes(_skip(data)) == data
    except (msgspec.MsgspecError, RecursionError):
        return False


def read_log(lines: Iterable[bytes | str], name: str = "the log") -> Iterator[Item]:
    """What the lines of an export say, each checked before it is given: header, rows and contents, end.

    Takes a file opened for reading in binary, or any other lines. A row comes with position 0.

    Raises `StoreCorrupt`, naming the line, for one that was changed, left out, moved or added, and for a
    file that was cut off; `SchemaMismatch` for another format, or a newer version of this one.
    """
    reader = _Reader(name)
    for line in lines:
        yield reader.read(line.encode() if isinstance(line, str) else line)
    reader.over()


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.n = 0
        self.events = self.contents = 0
        self.ended = False
        self._digest = sha256()
        self._tails: dict[str, tuple[int, bytes]] = {}

    def read(self, line: bytes) -> Item:
        self.n += 1
        if self.ended:
            raise self.wrong("the log has ended in the line before; what follows does not belong to it")
        line = line.removesuffix(b"\n") + b"\n"
        item = self._decoded(line)
        if item.n != self.n:
            raise self.wrong(
                f"it says that it is line {item.n}: lines are missing before it, or were moved or repeated"
            )
        found = self._checked(item, line)
        self._digest.update(line)
        return found

    def over(self) -> None:
        if not self.ended:
            self.n += 1
            raise self.wrong(
                "there is nothing, and no line before says that the log ends: the file was cut off"
            )

    def wrong(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self.name}, line {self.n}: {what}; nothing of it can be trusted, export it again"
        )

    def _decoded(self, line: bytes) -> Header | _Event | _Content | End:
        try:
            item = _decode(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            if self.n == 1:
                raise self._foreign() from error
            raise self.wrong(f"it is no line of a log, or was cut or changed ({error})") from error
        if (self.n == 1) is not isinstance(item, Header):
            raise self._foreign() if self.n == 1 else self.wrong("a second header")
        return cast(Header | _Event | _Content | End, item)

    def _foreign(self) -> SchemaMismatch:
        return SchemaMismatch(
            f"{self.name}, line 1: expected the header of a {FORMAT!r} file, as `refold export` writes it "
            "(JSON Lines); found something else"
        )

    def _checked(self, item: Header | _Event | _Content | End, line: bytes) -> Item:
        match item:
            case _Event():
                return self._event(item, line)
            case _Content():
                return self._content(item, line)
            case Header():
                self._header(item, line)
            case End():
                self._end(item, line)
        return item

    def _header(self, header: Header, line: bytes) -> None:
        if header.format != FORMAT:
            raise self._foreign()
        if header.version != FORMAT_VERSION:
            raise SchemaMismatch(
                f"{self.name} has version {header.version} of the format, this Refold knows version "
                f"{FORMAT_VERSION}: it was written by Refold {header.refold}; upgrade this process"
            )
        self._spelled_so(line, _encode(header) + b"\n")

    def _event(self, event: _Event, line: bytes) -> Row:
        state, given = self._data(event), self._hex(event.hash)
        version, previous = self._tails.get(event.stream, (0, GENESIS))
        if event.version != version + 1:
            raise self.wrong(
                f"expected version {version + 1} of stream {event.stream!r}, found {event.version}: an event "
                "is missing, or was moved or repeated"
            )
        if row_hash(previous, event.stream, event.version, event.tag, state) != given:
            raise self.wrong(
                f"version {event.version} of stream {event.stream!r} ({event.tag}) does not match its hash: "
                "it was changed"
            )
        self._spelled_so(line, _event_line(self.n, event.stream, event.version, event.tag, given, state))
        self._tails[event.stream] = event.version, given
        self.events += 1
        return Row(event.stream, event.version, event.tag, state, given)

    def _content(self, content: _Content, line: bytes) -> Content:
        data = self._data(content)
        if sha256(data).hexdigest() != content.digest:
            raise self.wrong(f"the content {content.digest} does not match its digest: it was changed")
        self._spelled_so(line, _content_line(self.n, content.digest, data))
        self.contents += 1
        return Content(content.digest, data)

    def _end(self, end: End, line: bytes) -> None:
        self._spelled_so(line, _encode(end) + b"\n")
        said = end.events, end.streams, end.contents
        found = self.events, len(self._tails), self.contents
        if said != found:
            numbers = "{} events, {} streams and {} contents".format
            raise self.wrong(
                f"it counts {numbers(*said)}, before it stand {numbers(*found)}: lines are missing"
            )
        if end.sha256 != self._digest.hexdigest():
            raise self.wrong(
                "its digest is not that of the lines before it: the header (line 1) or this line was changed"
            )
        self.ended = True

    def _data(self, body: _Body) -> bytes:
        try:
            return body.data()
        except (BadBase64, ValueError) as error:
            raise self.wrong(f"what it holds cannot be read ({error})") from error

    def _hex(self, text: str) -> bytes:
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise self.wrong("its hash is not hexadecimal: it was changed") from error

    def _spelled_so(self, line: bytes, right: bytes) -> None:
        if line != right:
            raise self.wrong("it is not spelled as Refold spells it: it was changed")
