"""Runs in memory that wait for a timer or a message: which of them leave first when memory runs short."""

from collections import OrderedDict

from .live import LiveRun

LOOK_BACK = 32
"""Of so many that have waited longest, the one that is cheapest to replay leaves."""


class Idle:
    """The idle live runs, least recently used first, with their sizes in bytes."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, tuple[LiveRun, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, live: LiveRun) -> None:
        """The run is idle (again)."""
        self.discard(live.run_id)
        size = live.size
        self._runs[live.run_id] = (live, size)
        self.bytes += size

    def discard(self, run_id: str) -> None:
        """The run is busy, or gone."""
        if (found := self._runs.pop(run_id, None)) is not None:
            self.bytes -= found[1]

    def cheapest(self) -> str:
        """Of those that have waited longest, the one with the shortest history."""
        candidates = [run_id for run_id, _ in zip(self._runs, range(LOOK_BACK), strict=False)]
        return min(candidates, key=lambda run_id: self._runs[run_id][0].tail.version)
