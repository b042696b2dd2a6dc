"""A store on PostgreSQL whose process dies at chosen moments, for the workflows of `tests/crash`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.store import Refusal, Unit
from tests.cluster.kit import Office
from tests.crash.case import Case, Outcome
from tests.crash.scene import RUN, Scene
from tests.crash.server import executor


class MortalStore(PostgresStore):
    """Passes a moment before each commit, between its writes and its COMMIT, and right after it."""

    def __init__(self, scene: Scene, stranger: int = 0, kind: str = "") -> None:
        super().__init__(scene.postgres)
        self.scene, self.commits, self.refused = scene, 0, 0
        self.opened: Counter[str] = Counter()
        self.requested = False
        self._what = ""
        self._learn([row.event() for row in self.read(RUN)])

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        self.commits += 1
        appended = [row.tag for unit in units for append in unit.appends for row in append.rows]
        self._what = ", ".join(appended + [post.tag for unit in units for post in unit.posts])
        self.scene.moment(f"before the commit of {self._what}")
        refusals = super().commit(units)
        stored = [u for u, refusal in zip(units, refusals, strict=True) if refusal is None]
        self._learn([r.event() for u in stored for a in u.appends if a.stream == RUN for r in a.rows])
        self.scene.moment(f"after the commit of {self._what}")
        return refusals

    def _append(self, connection: Any, batch: Any, *, prepare: bool = False) -> bool:
        with connection.transaction():
            stored = super()._append(connection, batch, prepare=prepare)
            self.scene.moment(f"inside the commit of {self._what}")
        return stored

    def _learn(self, events: Sequence[t.Event]) -> None:
        for event in events:
            if isinstance(event, t.WaitOpened):
                self.opened[event.name] += 1
            elif isinstance(event, t.RunCancelRequested):
                self.requested = True


def execute(scene: Scene, url: str, case: str, kill_at: str) -> None:
    """A role: one process of a case; it is the last one when nothing kills it."""
    here = Scene(scene.folder, int(kill_at), url)
    executor(msgspec.json.decode(case, type=Case), here, last=not here.kill_at, make=MortalStore)


def play(office: Office, flow: str, *kills: int) -> Outcome:
    """Process after process, each of which but the last is killed at its moment."""
    case, scene = msgspec.json.encode(Case(folder=str(office.folder), flow=flow)).decode(), office.scene
    problems: list[str] = []
    for kill_at in (*kills, 0):
        code = office.wait(office.hire("mortal", case, kill_at))
        if code and not (code == -9 and kill_at):
            problems.append(f"a process that was to die at {kill_at} ended with {code}")
            break
    problems += [line[0] for file in ("problems", "errors") for line in scene.heard(file)]
    moments, commits, _ = (scene.heard("tally") or [[0, 0, 0]])[-1]
    results = [rest[0] for what, *rest in scene.heard("acks") if what == "result"]
    return Outcome(
        problems=problems, deaths=[line[0] for line in scene.heard("deaths")], moments=moments,
        commits=commits, result=results[-1] if results else None,
    )  # fmt: skip
