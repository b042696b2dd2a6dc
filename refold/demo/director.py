"""`refold demo`: starts the worker, sees it die, starts another, asks for the approval, shows the proofs."""

import argparse
import asyncio
import contextlib
import select
import subprocess
import sys
import termios
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..cli.exits import FAILED, OK
from ..cli.following import Following
from ..cli.given import principal
from ..cli.screen import LiveLine, Screen
from ..cli.text import as_json, size, visible
from ..engine.engine import Engine
from ..events.clock import SystemClock, to_datetime
from ..events.errors import ConfigurationError, RefoldError, RunEnded
from ..events.open import open_store
from ..events.store import Store
from ..projections.own import fold_run
from . import effects, report
from .flow import source_count
from .proofs import Evidence, Proof, gather_evidence, prove

WORKER = (sys.executable, "-m", "refold.demo.worker")
LOOK_S = 0.05
EVENT = "approve"


class Stopped(RefoldError):
    """The demo cannot go on; the message says why."""


def demo(args: argparse.Namespace, screen: Screen) -> int:
    """`refold demo`."""
    stage = Screen(sys.stderr) if args.json else screen
    show = Demo(Path(args.folder), stage, yes=args.yes)
    try:
        fine = show.play()
        if args.json:
            screen.raw(as_json(show.outcome()))
        return OK if fine else FAILED
    except Stopped as stopped:
        stage.print(stage.mark(False), " ", visible(stopped))
        if args.json:
            screen.raw(as_json({"ok": False, "run": show.run_id, "error": str(stopped)}))
        return FAILED
    finally:
        show.close()


class Demo:
    """One performance, in one folder."""

    def __init__(self, folder: Path, screen: Screen, *, yes: bool, worker: Sequence[str] = WORKER) -> None:
        self.folder, self.screen, self.yes, self.worker = folder, screen, yes, worker
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--folder {folder}: {error.strerror}") from None
        self.path = folder / report.STORE
        self.store: Store = open_store(self.path)
        self.store.hold("refold demo")  # refused while another demo plays in this folder
        self.store.release()
        self._leave_nothing_behind()
        number = 1
        while self.store.work(f"release-{number}") is not None or (folder / f"release-{number}").exists():
            number += 1
        self.run_id = f"release-{number}"
        self.place = (folder / self.run_id).resolve()
        self.place.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.began = to_datetime(SystemClock().now())
        self.killed_at: datetime = self.began
        self.kill: Evidence | None = None
        self.pids: list[int] = []
        self.proofs: list[Proof] = []
        self.following = Following(self.store, self.run_id)

    def close(self) -> None:
        """Leave no process behind."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()
        self.store.close()

    def _leave_nothing_behind(self) -> None:
        """An earlier demo that was stopped half-way is asked to end: our worker would take it up."""
        for work, _ in self.store.all_work():
            if work.state != "done":
                self._send(lambda engine, run=work.run_id: engine.cancel(run, "a new demo began"))

    # ---- the play

    def play(self) -> bool:
        """All of it; whether every proof holds."""
        report.title(self.screen, self.folder)
        kill_at = max(source_count() * 2 // 5, 2)
        self._first_worker(kill_at)
        self._second_worker()
        self.proofs = prove(self.store, self.run_id, self.place, self.kill) if self.kill else []
        report.finale(self.screen, self.store, self.path, self.run_id, self.killed_at, self.proofs)
        return all(proof.holds for proof in self.proofs)

    def _first_worker(self, kill_at: int) -> None:
        self._spawn(str(kill_at))
        with self.screen.live() as live:
            self._follow(live, until_waiting=True)
        if self.process is not None and self.process.poll() is None:  # it did not die: do not wait for ever
            self.process.terminate()
        code = self._end()
        self.killed_at = to_datetime(SystemClock().now())
        if code != -9:
            raise Stopped(f"the first worker was to die of SIGKILL and ended with {code}{self._last_words()}")
        last = [line for line in effects.read(self.place) if line.what == "kill"]
        if last:
            self.killed_at = to_datetime(last[-1].at)
        self.kill = gather_evidence(self.store, self.run_id, self.place)
        report.died(self.screen, self.pids[0], self.kill)

    def _second_worker(self) -> None:
        self._spawn()
        with self.screen.live() as live:
            self._follow(live, until_waiting=True)
        report.revived(self.screen, self.pids[-1], self.run_id, self.store, self.killed_at)
        if self.process is not None and self.process.poll() is None:
            self._approve()
            with self.screen.live() as live:
                self._follow(live, until_waiting=False)
        if (code := self._end()) != 0:
            raise Stopped(f"the second worker ended with {code}{self._last_words()}")

    def _spawn(self, *more: str) -> None:
        log = self.place / f"worker-{len(self.pids) + 1}.log"
        with log.open("wb") as file:
            command = [
                *self.worker,
                str(self.path.resolve()),
                self.run_id,
                str(self.place),
                __version__,
                *more,
            ]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.pids.append(self.process.pid)

    def _end(self) -> int:
        assert self.process is not None
        return self.process.wait()

    def _last_words(self) -> str:
        text = (self.place / f"worker-{len(self.pids)}.log").read_text(errors="replace").strip()
        return f"; its last words:\n{text[-2_000:]}" if text else ""

    def _follow(self, live: LiveLine, *, until_waiting: bool) -> None:
        """Look on from here, as any other process could, until the worker ends or waits for a person."""
        while True:
            assert self.process is not None
            alive = self.process.poll() is None
            self.following.read()
            live.update(("  ", ""), self.following.line())
            if not alive or (until_waiting and EVENT in self.following.waits.values()):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LOOK_S)

    # ---- the approval

    def _approve(self) -> None:
        if self.yes:
            self.screen.print("  approval   ", self._question(), (" yes (--yes)", "bold"))
            approved: bool | None = True
        else:
            self.screen.print("  approval   ", self._question())
            approved = self._ask()
        if approved is None:
            return
        payload = {"approved": approved, "by": principal()}
        with contextlib.suppress(RunEnded):  # somebody else answered at the same time
            self._send(lambda engine: engine.signal(self.run_id, EVENT, payload, id="demo", by=principal()))

    def _question(self) -> str:
        archives = [*self.place.glob("*.zip")]
        what = f"{archives[0].name} ({size(archives[0].stat().st_size)})" if archives else "the archive"
        return f"the run waits for the event `{EVENT}`. Release {what}?"

    def _ask(self) -> bool | None:
        """The answer given here; None when somebody gave one from another terminal meanwhile."""
        command = f"{report.refold()} signal {self.run_id} {EVENT} --payload '{{\"approved\": true}}'"
        self.screen.print(("             answer here, or from another terminal with", "dim"))
        self.screen.print(f"  {command} --store {report.quoted(self.path)}")
        if sys.stdin.isatty():
            termios.tcflush(
                sys.stdin, termios.TCIFLUSH
            )  # a key pressed before the question is no answer to it
        self.screen.stream.write("             [y/N] ")
        self.screen.flush()
        while not select.select([sys.stdin], [], [], LOOK_S * 2)[0]:
            self.following.read()
            if EVENT not in self.following.waits.values():
                self.screen.print("answered from elsewhere")
                return None
        answer = sys.stdin.readline()
        if not sys.stdin.isatty():
            self.screen.print(visible(answer.strip()))
        if not answer:
            self._give_up()
        return answer.strip().lower() in ("y", "yes")

    def _give_up(self) -> None:
        self._send(lambda engine: engine.cancel(self.run_id, "nobody was there to approve"))
        self._end()
        raise Stopped(
            f"nobody is there to approve the release (end of input), so run {self.run_id} was cancelled; "
            f"answer with `{report.refold()} demo --yes`, or from another terminal while it waits"
        )

    def _send(self, act: Any) -> None:
        async def send() -> None:
            async with Engine(self.store, execute=False) as engine:
                await act(engine)

        asyncio.run(send())

    # ---- the outcome

    def outcome(self) -> dict[str, Any]:
        """For `--json`."""
        run = fold_run(self.store.read(self.run_id))
        kill = self.kill
        assert kill is not None
        return {
            "ok": all(proof.holds for proof in self.proofs),
            "run": self.run_id,
            "store": str(self.path),
            "status": run["status"],
            "result": run["result"],
            "seconds": run["wall_s"],
            "cost_usd": run["cost_usd"],
            "workers": self.pids,
            "kill": {
                "at": self.killed_at,
                "completed": len(kill.completed),
                "in_flight": len(kill.in_flight),
            },
            "proofs": [{"claim": p.claim, "holds": p.holds, "detail": p.detail} for p in self.proofs],
        }
