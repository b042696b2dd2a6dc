"""Notes, in every process of a cluster test, which appends were refused: none of them may be in the log."""

from collections.abc import Sequence

from refold.events.errors import AppendRefused, RefoldError
from refold.events.log import Done, Log
from refold.events.store import Store, Unit
from tests.crash.scene import Scene


def install(scene: Scene) -> None:
    """Have every refusal that a `Log` tells noted in the scene, with the hashes of what was refused."""
    append = Log.append

    def observed(self: Log, unit: Unit, done: Done, *, urgent: bool = True, retry: bool = True) -> None:
        def told(error: RefoldError | None) -> None:
            if isinstance(error, AppendRefused):
                note(scene, [unit])
            done(error)

        append(self, unit, told, urgent=urgent, retry=retry)

    Log.append = observed  # type: ignore[method-assign]


def note(scene: Scene, units: Sequence[Unit]) -> None:
    for unit in units:
        for each in unit.appends:
            for row in each.rows:
                scene.say("refused", each.stream, row.version, row.hash.hex())


def own_writes_reported_as_conflicts(scene: Scene, store: Store) -> list[str]:
    """What was refused, and is in the log all the same."""
    found: list[str] = []
    for stream, version, digest in scene.heard("refused"):
        rows = store.read(stream, version - 1, 1)
        if rows and rows[0].hash.hex() == digest:
            found.append(f"own write reported as a conflict: {stream} version {version} ({rows[0].tag})")
    return found
