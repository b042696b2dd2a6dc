"""A function that is called with recorded arguments: its parameters and its result, by annotation."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from ..events import codec

NO_KWARGS = Raw(b"{}")


class Callee:
    """A function under a name. Annotations are resolved at the first use, when all names exist."""

    place = ""
    """Where it runs: empty for here, or what `@step(run_in=…)` says."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn, self.name = fn, name
        self._arguments = f"arguments of step {name}"
        self._decoders: dict[int, Callable[[bytes | Raw, str], Any]] = {}
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
            getattr(fn, "__call__", None)  # noqa: B004 - asks what kind it is, not whether
        )

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        return codec.hints(self.fn)

    @functools.cached_property
    def decode_result(self) -> Callable[[bytes | Raw, str], Any]:
        """JSON of a result to the annotated return type."""
        return codec.decoder(self._hints.get("return", Any))

    @functools.cached_property
    def _parameters(self) -> tuple[list[Any], Any, dict[str, Any], Any]:
        positional: list[Any] = []
        star: Any = Any
        named: dict[str, Any] = {}
        double_star: Any = Any
        try:
            parameters = inspect.signature(self.fn).parameters.values()
        except (ValueError, TypeError):
            return positional, star, named, double_star
        for p in parameters:
            hint = self._hints.get(p.name, Any)
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                positional.append(hint)
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                named[p.name] = hint
            elif p.kind is p.VAR_POSITIONAL:
                star = hint
            elif p.kind is p.VAR_KEYWORD:
                double_star = hint
        return positional, star, named, double_star

    @functools.cached_property
    def _positional_names(self) -> list[str]:
        found = inspect.signature(self.fn).parameters.values()
        return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def parameter_types(self, count: int) -> Any:
        """The annotations of the first `count` positional arguments, as one tuple type."""
        positional, star, _, _ = self._parameters
        kinds = [positional[i] if i < len(positional) else star for i in range(count)]
        return tuple[tuple(map(codec.decodable, kinds))] if kinds else list[Any]  # type: ignore[misc]

    def decode_call(self, args: Raw, kwargs: Raw, count: int) -> tuple[Sequence[Any], dict[str, Any]]:
        """Recorded arguments (`count` positional ones), each by its parameter's annotation.

        Raises `ValueRefused`.
        """
        decode = self._decoders.get(count)
        if decode is None:
            decode = self._decoders[count] = codec.decoder(self.parameter_types(count))
        plain: Sequence[Any] = decode(args, self._arguments)
        return plain, {} if kwargs == NO_KWARGS else self._decode_kwargs(kwargs)

    def _decode_kwargs(self, kwargs: Raw) -> dict[str, Any]:
        _, _, named, double_star = self._parameters
        raws: dict[str, Raw] = _decode_dict(kwargs, self._arguments)
        return {
            key: codec.decoder(named.get(key, double_star))(raw, f"argument {key!r} of step {self.name}")
            for key, raw in raws.items()
        }

    def with_result(self, kwargs: Raw, count: int, result: Raw) -> Raw:
        """Keyword arguments with `result`, if the function takes one that is not given already."""
        if "result" not in self._parameters[2] or "result" in self._positional_names[:count]:
            return kwargs
        return codec.encode({"result": result, **_decode_dict(kwargs, self._arguments)})


_decode_dict = codec.decoder(dict[str, Raw])
