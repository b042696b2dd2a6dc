"""The read models as an engine keeps them: caught up as the log grows, asked through it."""

from collections.abc import Sequence
from typing import Any

from ..events.errors import ConfigurationError, RunNotFound, SchemaMismatch
from ..events.store import Store
from ..projections import own, queries, rebuild
from ..projections.core import CORE
from ..projections.projection import Projection
from ..projections.queries import Page, Record, Total
from ..projections.rebuild import Difference, Progress
from ..projections.runner import Lag, Runner
from ..projections.views_open import open_views
from .keeping_up import follower_of

BUSY_S = 0.05
"""How long to wait for another process that writes the same file: the host loop waits, too."""


class ReadModels:
    """`engine.projections`: queries, `wait`, `rebuild`, `check`."""

    def __init__(self, store: Store, projections: Sequence[Projection] = CORE) -> None:
        self.store = store
        self.projections = tuple(projections)
        self.views = open_views(store, busy_s=BUSY_S)
        try:
            self.runner: Runner = self._runner()
        except BaseException:
            self.views.close()
            raise
        self.follower = follower_of(self.runner, store)

    def _runner(self) -> Runner:
        try:
            return rebuild.open_runner(self.store, self.views, self.projections)
        except SchemaMismatch:
            if not self.views.shared:
                raise
            # Newer workers share them: this one executes all the same. Whoever asks it is told, and the log.
            return Runner(self.store, self.views, self.projections)

    # ---- keeping up

    def follow(self) -> None:
        """Catch up as the log grows, on the running loop, until `close`."""
        self.follower.start()

    def catch_up(self) -> None:
        """Fold everything there is, now. Raises a `StoreError`."""
        self.follower.catch_up()

    async def wait(self, position: int | None = None) -> None:
        """Wait until the read models stand at this position of the log (default: its end now)."""
        await self.follower.reach(self.store.position() if position is None else position)

    def lag(self) -> Lag:
        """How far behind the log they are, and which events could not be folded."""
        return self.runner.lag()

    def close(self) -> None:
        """Stop following."""
        self.follower.close()
        self.views.close()

    # ---- the proof, and starting over

    def rebuild(self, names: Sequence[str] | None = None, progress: Progress | None = None) -> int:
        """Build these (default: all) beside the live ones and swap; returns the number of events folded."""
        return rebuild.rebuild(self.store, self.views, self.projections, names, progress)

    def check(self, names: Sequence[str] | None = None, progress: Progress | None = None) -> list[Difference]:
        """Fold the log again and compare every value; no difference: the read models equal the log."""
        return rebuild.check(self.store, self.views, self.projections, names, progress)

    # ---- asking

    def query(self, name: str, *, limit: int = 1000, **equal: Any) -> list[Record]:
        """Rows of a read model, also one of your own, in the order of its key.

            engine.projections.query("failures", error="Timeout")

        Args:
            name: of the projection.
            equal: columns, and the values that they are to have; None: no value.

        Raises `ConfigurationError` for a projection or a column that there is not.
        """
        for projection in self.projections:
            if projection.name == name:
                return queries.read_table(self.views, projection.table, limit, **equal)
        known = ", ".join(projection.name for projection in self.projections)
        raise ConfigurationError(f"there is no projection {name!r}; there are {known}")

    def list_runs(self, **filters: Any) -> Page:
        """See `refold.projections.queries.list_runs`."""
        return queries.list_runs(self.views, **filters)

    def count_runs(self, by: str = "status") -> dict[str, int]:
        """How many runs there are of each status; see `refold.projections.queries.count_runs`."""
        return queries.count_runs(self.views, by)

    def edges(self, run_id: str) -> list[Record]:
        """Which step followed from which."""
        return queries.edges(self.views, run_id)

    def costs(self, run_id: str | None = None, *, by: str | None = None) -> dict[str, Total]:
        """Exact totals; see `refold.projections.queries.total_costs`."""
        return queries.total_costs(self.views, run_id, by=by)

    def fold_run(self, run_id: str) -> Record:
        """A run's row of `runs`, folded from its own stream: reads its own writes. Raises `RunNotFound`."""
        return own.fold_run(self._stream(run_id))

    def fold_steps(self, run_id: str) -> list[Record]:
        """A run's rows of `steps`, folded from its own stream. Raises `RunNotFound`."""
        return own.fold_steps(self._stream(run_id))

    def _stream(self, run_id: str) -> list[Any]:
        rows = self.store.read(run_id)
        if not rows:
            raise RunNotFound(run_id)
        return rows
