"""One attempt's body somewhere else: what goes there, what comes back, and the function that runs it there.

Both ways it is JSON, by the codec of the log. The function is found by module and name, both taken from the
function object that the caller holds; a row of the log never says what is imported.
"""

import asyncio
import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..events import codec, types as t
from ..events.blobs import Contents
from ..events.errors import ConfigurationError, ValueRefused
from .callee import Callee
from .failures import failure_of
from .step import Step
from .step_info import CURRENT, Owner

MAIN = "__refold_main__"
"""What a process for steps calls the program's main module: `if __name__ == "__main__":` is false there."""


class Call(Struct, frozen=True, kw_only=True):
    """An attempt to make somewhere else."""

    module: str
    qualname: str
    args: Raw
    kwargs: Raw
    count: int
    """Of positional arguments."""
    step: str
    """Name of the step."""
    key: str
    run_id: str
    attempt: int
    workflow: str
    trace: str
    files: str


class Record(Struct, frozen=True, tag="record"):
    """A fact that the body has put on record: costs, an artifact, a note."""

    kind: str
    fields: Raw
    contents: Contents


class Said(Struct, frozen=True, tag="said"):
    """A record of `logging`."""

    logger: str
    level: int
    message: str


class Ready(Struct, frozen=True, tag="ready"):
    """A process has imported what it needs."""


class Done(Struct, frozen=True, tag="done"):
    """The body has returned."""

    result: Raw


class Failed(Struct, frozen=True, tag="failed"):
    """The body has raised."""

    failure: t.Failure
    kinds: tuple[str, ...]
    """`module:name` of the error's class and of those above it."""


class Reply(Struct, frozen=True):
    """What an executor brings back."""

    end: Done | Failed
    records: tuple[Record, ...] = ()


Frame = Record | Said | Ready | Done | Failed

encode = msgspec.json.Encoder().encode
decode_call = msgspec.json.Decoder(Call).decode
decode_frame: Callable[[bytes | bytearray], Frame] = msgspec.json.Decoder(Frame).decode
decode_reply = msgspec.json.Decoder(Reply).decode

_KINDS: dict[str, type[t.Event]] = {
    kind.TAG: kind for kind in (t.CostRecorded, t.DebugRecorded, t.ArtifactRecorded)
}


class RemoteFailure(Exception):
    """What the body raised there, as text."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(f"{failed.failure.type}: {failed.failure.message}")
        self.failure, self.kinds = failed.failure, failed.kinds

    def is_one_of(self, classes: tuple[type[BaseException], ...]) -> bool:
        """Whether `except classes` would catch it."""
        return any(_name_of(kind) in self.kinds for kind in classes)


# ---- at the caller


def call_of(body: Any, files: str = "") -> Call:
    """What an attempt asks for. Raises `ConfigurationError` when the name is not the function's."""
    step, command = body.command.step, body.command
    _check_name_leads_here(step)
    return Call(
        module=step.fn.__module__, qualname=step.fn.__qualname__, args=command.args, kwargs=command.kwargs,
        count=command.count, step=step.name, key=command.key, run_id=body.run_id, attempt=body.attempt,
        workflow=body.owner.workflow, trace=body.owner.trace, files=files,
    )  # fmt: skip


@functools.lru_cache(maxsize=10_000)
def _check_name_leads_here(step: Step[Any, Any]) -> None:
    module, name = step.fn.__module__, step.fn.__qualname__
    found = _attribute(sys.modules[module], name)
    if found is not step.fn and getattr(found, "fn", None) is not step.fn:
        raise ConfigurationError(
            f"@step(run_in={step.options.run_in!r}) {step.name}: {module}.{name} is something else "
            "now, and another process finds it by its name alone: give each a name of its own"
        )


def record_in(owner: Any, body: Any, record: Record) -> None:
    """Put on record here what a body there has said."""
    kind = _KINDS[record.kind]
    hints = _hints(kind)
    raws: dict[str, Raw] = msgspec.json.decode(record.fields, type=dict[str, Raw])
    fields = {name: msgspec.json.decode(raw, type=hints[name]) for name, raw in raws.items()}
    owner.record(body, kind, fields, record.contents)


@functools.cache
def _hints(kind: type[t.Event]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


# ---- where the body runs

_loading: list[str] = []


@contextlib.contextmanager
def loading_main(script: str) -> Iterator[None]:
    """While a process for steps imports the program, which must not begin its work there."""
    _loading.append(script)
    try:
        yield
    finally:
        _loading.pop()


def check_not_loading_main() -> None:
    """Raises `ConfigurationError` in such a process: the program begins its work when it is imported."""
    if _loading:
        raise ConfigurationError(
            f"{_loading[-1]} makes an engine when it is imported, and a process for its steps imports it: "
            'put what it does under `if __name__ == "__main__":`, or the steps into a module of their own'
        )


class _Owner:
    """The run, as far as a body somewhere else can see it."""

    def __init__(self, call: Call, tell: Callable[[Record], None]) -> None:
        self.files, self.workflow, self.trace = call.files, call.workflow, call.trace
        self._tell = tell

    def record(self, body: Any, kind: type[t.Event], fields: dict[str, Any], contents: Contents = ()) -> None:
        self._tell(Record(kind.TAG, Raw(encode(fields)), contents))


class _Attempt:
    """The attempt, for `current_step()`."""

    started_id = ""

    def __init__(self, call: Call, owner: Owner) -> None:
        self.run_id, self.attempt, self.key, self.step_name = call.run_id, call.attempt, call.key, call.step
        self.owner = owner


def perform(call: Call, tell: Callable[[Record], None]) -> Done | Failed:
    """Run the body; `tell` hears what it puts on record."""
    token = CURRENT.set(_Attempt(call, _Owner(call, tell)))
    try:
        callee = _callee(call.module, call.qualname, call.step)
        args, kwargs = callee.decode_call(call.args, call.kwargs, call.count)
        value = callee.fn(*args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
        return Done(codec.encode(value, f"result of step {call.key}"))
    except BaseException as error:  # SystemExit and its like fail the step, as they do in a thread
        return failed(error)
    finally:
        CURRENT.reset(token)


def failed(error: BaseException) -> Failed:
    """An error, to be sent."""
    kind = "value_refused" if isinstance(error, ValueRefused) else "error"
    return Failed(failure_of(error, kind), tuple(map(_name_of, type(error).__mro__)))


def execute(payload: bytes) -> bytes:
    """Run one attempt's body: what executors call on the machines of their cluster."""
    records: list[Record] = []
    end = perform(decode_call(payload), records.append)
    return encode(Reply(end, tuple(records)))


async def _awaited(value: Any) -> Any:
    return await value


@functools.cache
def _callee(module: str, qualname: str, step: str) -> Callee:
    found = _attribute(importlib.import_module(module), qualname)
    function = found.fn if isinstance(found, Step) else found
    if not callable(function):
        raise ConfigurationError(
            f"step {step}: there is no function {module}.{qualname} where it is to run; install the same "
            "code there"
        )
    return Callee(function, step)


def _attribute(module: ModuleType | None, qualname: str) -> Any:
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _name_of(kind: type[BaseException]) -> str:
    module = "__main__" if kind.__module__ == MAIN else kind.__module__
    return f"{module}:{kind.__qualname__}"
