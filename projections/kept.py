"""Signals that came before anybody waited for them, as a fold keeps them."""

from collections.abc import Collection, Iterable

from msgspec import Struct

REMEMBERED = 64
"""Early signals that a rewind can put back in their place. A run that gets a million of them is not to
write a million numbers with every batch of events."""


class Early(Struct, array_like=True, gc=False):
    """One of them."""

    version: int
    """Of its event in the run's stream."""
    name: str
    wait: int = 0
    """The wait that took it later; 0: none has."""


class Kept(Struct, omit_defaults=True, gc=False):
    """How many there are of each name, and the last of them one by one."""

    counts: dict[str, int] = {}
    recent: list[Early] = []

    def add(self, name: str, version: int) -> None:
        """A signal that no wait takes now."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.recent.append(Early(version, name))
        del self.recent[:-REMEMBERED]

    def take(self, name: str, wait: int) -> bool:
        """Whether there is one for a wait that opens now; the first goes."""
        count = self.counts.get(name, 0)
        if not count:
            return False
        untaken = [early for early in self.recent if early.name == name and not early.wait]
        if len(untaken) == count:  # else the first of them is no longer remembered
            untaken[0].wait = wait
        self._change(name, -1)
        return True

    def rewind(self, to: int, dropped: Collection[int]) -> None:
        """Signals after version `to` never came; those taken by waits that never were are here again."""
        gone = set(dropped)
        for early in self.recent:
            if early.version > to:
                if not early.wait:
                    self._change(early.name, -1)
            elif early.wait in gone:
                early.wait = 0
                self._change(early.name, 1)
        self.recent = [early for early in self.recent if early.version <= to]

    def carry(self, names: Iterable[str]) -> None:
        """What the run before this one had received and not consumed."""
        for name in names:
            self.add(name, 1)

    def _change(self, name: str, by: int) -> None:
        count = self.counts.get(name, 0) + by
        if count > 0:
            self.counts[name] = count
        else:
            self.counts.pop(name, None)
