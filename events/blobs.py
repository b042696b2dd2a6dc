"""Values too large for their events: their content lies beside the log, the event says which it is.

A log that is read from end to end (by read models, by `verify`, by recovery) would otherwise be as
slow as its largest values are large.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar, get_args, get_type_hints

from msgspec import Raw, Struct
from msgspec.structs import replace

from .errors import StoreCorrupt, UnknownEvent
from .registry import decode_event
from .types import ArtifactRecorded, CauseHeld, Event

BLOB_BYTES = 256 * 1024
"""A value longer than this is put away."""
Contents = tuple[tuple[str, bytes], ...]
"""Digests (SHA-256, hex) with what they stand for."""

MARK = b'{"$blob":"'
_REFERENCE = re.compile(rb'\{"\$blob":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,18})\}')
_LENGTHS = range(len(MARK) + 64 + len('","size":0}'), len(MARK) + 64 + len('","size":}') + 19 + 1)
"""How long a reference can be; any other value is told by its length alone."""

S = TypeVar("S", bound=Struct)


def put_away(event: Event, limit: int = BLOB_BYTES) -> tuple[Event, Contents]:
    """The event with references in the place of all values above `limit` bytes, and their contents."""
    values, structs = _FIELDS.get(type(event)) or _fields(type(event))
    if not structs:
        for name in values:
            if len(getattr(event, name)) > limit:
                break
        else:
            return event, ()
    contents: list[tuple[str, bytes]] = []

    def refer(value: Raw) -> Raw:
        if len(value) <= limit or reference(value):
            return value
        content = bytes(value)
        digest = sha256(content).hexdigest()
        contents.append((digest, content))
        return Raw(b'%b%b","size":%d}' % (MARK, digest.encode(), len(content)))

    return _change(event, refer), tuple(contents)


def put_all_away(events: Iterable[Event]) -> tuple[list[Event], Contents]:
    """The events as they are stored together, and the contents that go with them."""
    stored: list[Event] = []
    contents: Contents = ()
    for event in events:
        small, found = put_away(event)
        stored.append(small)
        contents += found
    return stored, contents


def bring_back(event: Event, read: Callable[[str], bytes]) -> Event:
    """The event with the contents in the place of their references; `read` gives them by digest."""

    values, structs = _FIELDS.get(type(event)) or _fields(type(event))
    if not structs:
        for name in values:
            if len(getattr(event, name)) in _LENGTHS:
                break
        else:
            return event

    def look_up(value: Raw) -> Raw:
        digest = reference(value)
        return value if digest is None else Raw(read(digest))

    return _change(event, look_up)


def reference(value: Raw) -> str | None:
    """The digest when this value stands for a content that was put away."""
    if len(value) not in _LENGTHS:
        return None
    found = _REFERENCE.fullmatch(memoryview(value))
    return None if found is None else found[1].decode()


def references(tag: str, state: bytes) -> set[str]:
    """Digests of all contents that a stored event refers to. Raises `StoreCorrupt`."""
    if tag == ArtifactRecorded.TAG:
        artifact: Any = decode_event(tag, state)
        return set() if artifact.path else {artifact.digest}
    if MARK not in state:
        return set()
    try:
        event = decode_event(tag, state)
    except UnknownEvent:  # of a newer Refold: what its fields mean is not known here
        return set()
    found: set[str] = set()

    def note(value: Raw) -> Raw:
        if digest := reference(value):
            found.add(digest)
        return value

    _change(event, note)
    if isinstance(event, CauseHeld):  # an event in an event
        found |= references(event.tag, bytes(event.body))
    return found


def checked(digest: str, content: object, place: str) -> bytes:
    """The content as a store has it. Raises `StoreCorrupt` when it is missing or not what it was."""
    if content is None:
        raise StoreCorrupt(f"{place}: the content {digest} of a large value is missing; restore a backup")
    found = sha256(content).hexdigest() if isinstance(content, bytes) else "none, it is no bytes"
    if not isinstance(content, bytes) or found != digest:
        raise StoreCorrupt(
            f"{place}: the content {digest} of a large value has the digest {found}: it was changed; "
            "restore a backup"
        )
    return content


# ---- where values are in an event ------------------------------------------------------------------

_Fields = tuple[tuple[str, ...], tuple[str, ...]]
_FIELDS: dict[type[Struct], _Fields] = {}
"""By type: names of the fields that are values, and of those that are structs with values in them."""


def _fields(kind: type[Struct]) -> _Fields:
    hints = get_type_hints(kind)
    values = tuple(name for name in kind.__struct_fields__ if hints[name] is Raw)
    structs = tuple(name for name in kind.__struct_fields__ if any(map(_has_values, _parts(hints[name]))))
    found = _FIELDS[kind] = (values, structs)
    return found


def _parts(annotation: Any) -> Iterator[Any]:
    """What an annotation such as `Failure | None` or `tuple[Carried, ...]` is made of."""
    yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


@cache
def _has_values(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Struct) and _fields(part) != ((), ())


def _change(struct: S, change: Callable[[Raw], Raw]) -> S:
    """The struct with all its values as `change` makes them; itself when that changes nothing."""
    values, structs = _FIELDS.get(type(struct)) or _fields(type(struct))
    changed: dict[str, Any] = {}
    for name in values:
        old = getattr(struct, name)
        new = change(old)
        if new is not old:
            changed[name] = new
    for name in structs:
        inner = getattr(struct, name)
        if not inner:
            continue
        if isinstance(inner, Struct):
            made: Any = _change(inner, change)
            different = made is not inner
        else:
            made = tuple(_change(item, change) for item in inner)
            different = any(new is not old for new, old in zip(made, inner, strict=True))
        if different:
            changed[name] = made
    return replace(struct, **changed) if changed else struct
