"""The web app of the embedding page behind a real server: killed and started again, its runs go on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import httpx
import pytest

from tests.docs.pages import DOCS, blocks

PATIENCE_S = 60


class Served:
    """`uvicorn web:app` on a port of its own choice, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "uvicorn", "web:app", "--port", "0", "--ws", "none"]
        environment = {**os.environ, "PYTHONWARNINGS": "error"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.patience = Timer(PATIENCE_S, self.process.kill)
        self.patience.start()
        self.http = httpx.Client(base_url=self._address(), trust_env=False, timeout=PATIENCE_S)

    def _address(self) -> str:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found[0]
        raise AssertionError("".join(said))

    def end(self, number: int) -> int:
        self.http.close()
        self.process.send_signal(number)
        self.process.communicate()
        self.patience.cancel()
        return self.process.returncode

    def status(self, run: str) -> str:
        return str(self.http.get(f"/orders/{run}").json()["status"])

    def until(self, run: str, status: str) -> None:
        while self.status(run) != status:
            assert self.process.poll() is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (program,) = [block.text for block in blocks(DOCS / "how-to/embedding.md") if block.file == "web.py"]
    program = program.replace(
        '    return f"receipt for',
        '    print("charged", file=open("effects.txt", "a"))\n    return f"receipt for',
    )
    (tmp_path / "web.py").write_text(program)
    return tmp_path


def test_a_killed_app_started_again_goes_on(folder: Path) -> None:
    app = Served(folder)
    order = {"number": 7, "item": "tea"}
    for _ in range(2):  # sent twice: one run
        answer = app.http.post("/orders", json=order)
        assert (answer.status_code, answer.json()) == (202, {"run": "order-7"})
    assert app.http.get("/orders/none").status_code == 404
    app.until("order-7", "waiting")
    assert app.end(signal.SIGKILL) == -signal.SIGKILL

    again = Served(folder)
    assert again.status("order-7") == "waiting"
    again.http.post("/orders/order-7/packed")
    again.until("order-7", "completed")
    assert again.http.get("/orders/order-7").json()["result"] == ["receipt for tea", "tea is on its way"]
    assert again.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert (folder / "effects.txt").read_text() == "charged\n"
