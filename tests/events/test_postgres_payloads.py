"""Values that are hard to carry, on a real PostgreSQL server, as on a file: NUL, deep, and very large."""

from collections.abc import Callable
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from refold import Context, RunFailed, step, workflow
from refold.events.codec import MAX_BYTES
from refold.events.open import open_store
from refold.events.postgres_batch import name_of, text_of
from refold.events.store import Unit
from tests.engine.kit import engine


def deep(depth: int) -> Any:
    value: Any = "\0 in the \\0 depth"
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "NUL": lambda: {"\0": "a\0b", "\\0": ["\\", "\0\\0"]},
    "deep": lambda: deep(400),
    "too deep": lambda: deep(100_000),
    "a large one": lambda: "x" * 3_000_000,
    "one above the limit": lambda: "x" * (MAX_BYTES + 1),
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", VALUES)
async def test_a_server_carries_and_refuses_what_a_file_does(
    what: str, postgres: str, tmp_path: Path
) -> None:
    @step
    async def make() -> Any:
        return VALUES[what]()

    @workflow
    async def carry(ctx: Context) -> int:
        value = await make()
        assert value == VALUES[what]()
        return len(value)

    said: list[object] = []
    for place in (str(tmp_path / "log.db"), postgres):
        async with engine(place, carry) as e:
            handle = await e.start(carry, id="run \\0")
            try:
                said.append(await handle.result(timeout=60))
            except RunFailed as failed:
                said.append(str(failed))
            assert not e.verify().problems
    assert said[0] == said[1]


@pytest.mark.slow
def test_a_hundred_megabytes_go_there_and_back(postgres: str) -> None:
    content = bytes(range(256)) * (100 * 4096)
    digest = sha256(content).hexdigest()
    store = open_store(postgres)
    assert store.commit([Unit(blobs=((digest, content),))]) == [None]
    assert store.blob(digest) == content
    store.close()


def test_every_name_comes_back_from_the_text_that_stands_for_it() -> None:
    for length in range(1, 6):
        for letters in product("\\\0\x010a", repeat=length):
            name = "".join(letters)
            assert "\0" not in text_of(name)
            assert name_of(text_of(name)) == name
