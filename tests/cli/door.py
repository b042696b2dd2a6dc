"""Commands called in the test's own process: with an engine that executes the store beside them, or none."""

import json
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from refold import Engine, Workflow
from refold.cli import main
from tests.engine.kit import engine


class Door:
    """A store, and the command line at it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = str(folder / "runs.db")
        self.capsys = capsys

    def engine(self, *workflows: Workflow[Any, Any], **options: Any) -> Engine:
        return engine(self.path, *workflows, **options)

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run a command, check its exit code; what it printed, or its one line of complaint."""
        self.capsys.readouterr()
        found = main([*args, "--store", self.path])
        out, err = self.capsys.readouterr()
        assert found == code, f"{args} ended with {found}:\n{out}\n{err}"
        if code == 0:
            assert not err
            return out
        assert err.startswith("refold: ")
        assert err.count("\n") == 1, err
        return err.removeprefix("refold: ").rstrip()

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json"))

    async def beside(self, *args: str, code: int = 0) -> str:
        """The same while an engine executes the store on this test's loop."""
        return await anyio.to_thread.run_sync(lambda: self(*args, code=code))
