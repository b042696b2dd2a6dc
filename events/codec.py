"""Values on their way into the log and out of it: JSON by msgspec, decoded by annotation.

A handler or a step never sees the object somebody returned, always `decode(encode(x))`: a tuple
that only becomes a list after a crash would be a divergence.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from .errors import ValueRefused

REMEDY = (
    "return plain data (dict, list, str, int, float, bool, None), a dataclass, a msgspec.Struct, "
    "an enum, datetime, Decimal, UUID or bytes, or convert it first"
)
TOO_DEEP = "nested too deeply, or contains itself; flatten it"
MAX_BYTES = 64 * 1024 * 1024
"""Largest value in bytes; above it the step fails and nothing is written."""

_BLOB = b'{"$blob"'
"""So begin references (`events/blobs.py`), for which no value of a user's may pass."""

_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="deterministic").encode


def encode(value: Any, what: str = "value", *, max_bytes: int = MAX_BYTES) -> Raw:
    """The value as JSON, in insertion order.

    Raises `ValueRefused`, with the path, for what JSON cannot carry: unknown types, NaN and
    infinities (msgspec would write `null`), lone surrogates, nesting beyond the recursion limit.
    """
    try:
        data = _encode(value)
        # Looking through it recurses in Python, which from 3.12 on gives up long before msgspec does.
        path = _not_finite(value) if b"null" in data else ""
    except RecursionError as error:
        raise ValueRefused(f"{what} is {TOO_DEEP}") from error
    except Exception as error:
        raise _refused(value, what, error) from error
    if data.startswith(_BLOB) and _like_a_reference(data):
        raise ValueRefused(
            f'{what} is an object with the keys "$blob" and "size" only, which stands for a large value '
            "in the log; add a key or put it into a list"
        )
    if path:
        raise ValueRefused(
            f"{what} at {path} is NaN or infinite, which JSON cannot carry; use None or a string", path
        )
    if len(data) > max_bytes:
        raise ValueRefused(
            f"{what} has {len(data):,} bytes, the limit is {max_bytes:,}: "
            "store it elsewhere and return a reference"
        )
    return Raw(data)


def _like_a_reference(data: bytes) -> bool:
    return bool(msgspec.json.decode(data).keys() == {"$blob", "size"})


def _refused(value: Any, what: str, error: Exception) -> ValueRefused:
    try:
        path, found = _culprit(value)
    except RecursionError:
        return ValueRefused(f"{what} is {TOO_DEEP}")
    return ValueRefused(f"{what} at {path}: {found or error}; {REMEDY}", path)


def decoder(annotation: Any) -> Callable[[bytes | Raw, str], Any]:
    """A function that decodes JSON to `annotation`; what msgspec does not know decodes as plain data.

    The function raises `ValueRefused` with path, expected and found.
    """
    try:
        decode = _cached_decoder(annotation)
    except TypeError:
        decode = _cached_decoder(Any)

    def decode_value(data: bytes | Raw, what: str = "value") -> Any:
        try:
            return decode(data)
        except Exception as error:  # also whatever a dataclass raises in __post_init__
            told = (
                str(error) if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: {error}"
            )
            raise ValueRefused(f"{what} does not fit its annotation: {told}", _path(error)) from error

    return decode_value


def decodable(annotation: Any) -> Any:
    """The annotation, or `Any` when it names something that msgspec does not know."""
    try:
        _cached_decoder(annotation)
    except TypeError:
        return Any
    return annotation


@functools.cache
def _cached_decoder(annotation: Any) -> Callable[[bytes | Raw], Any]:
    return msgspec.json.Decoder(annotation).decode


def same_value(one: bytes | Raw, other: bytes | Raw, annotation: Any = Any) -> bool:
    """Whether two JSON texts mean the same value: object keys in any order, sets in any order.

    Only asked when the bytes differ, which for well-behaved handlers never happens.
    """
    read = decoder(annotation)
    try:
        return _canonical(read(one, "value")) == _canonical(read(other, "value"))
    except ValueRefused:
        return False


def same_decoded(one: Any, other: Any) -> bool:
    """Whether two decoded values have the same JSON, object keys and sets in any order."""
    return _canonical(one) == _canonical(other)


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations; names that cannot be resolved here count as not annotated."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation may name anything, and evaluating it may raise anything
        return {}


def _path(error: BaseException) -> str:
    text = str(error)
    at = text.rfind("`$")
    return text[at + 1 : text.rfind("`")] if at >= 0 else "$"


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f".{k}" if isinstance(k, str) else f"[{k!r}]", v) for k, v in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{i}]", v) for i, v in enumerate(value)]
    if isinstance(value, msgspec.Struct):
        return [(f".{n}", getattr(value, n)) for n in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value)]
    return []


def _culprit(value: Any, path: str = "$") -> tuple[str, str]:
    """Path and description of the first leaf that cannot be encoded."""
    for step, child in _children(value):
        try:
            _encode(child)
        except Exception:  # whatever it is, it is what we are looking for
            return _culprit(child, path + step)
    if isinstance(value, dict):
        for key in value:
            try:
                _encode({key: None})
            except Exception:
                return path, f"a dict key of type {type(key).__qualname__} has no JSON form"
    if isinstance(value, str):
        return path, "a string with a lone surrogate has no UTF-8 form"
    return path, f"{type(value).__module__}.{type(value).__qualname__} has no JSON form"


def _not_finite(value: Any, path: str = "$") -> str:
    if isinstance(value, float):
        return "" if math.isfinite(value) else path
    for step, child in _children(value):
        if found := _not_finite(child, path + step):
            return found
    return ""
