"""What every step of a command works with: where things are, how it speaks to people, and the locks that it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from turbotool.layout import Layout
from turbotool.system.output import Output


@dataclass(frozen=True)
class Session:
    """One command at work.

    `keep` are file descriptors of held locks that children inherit, so that a child which outlives a killed turbotool
    still holds the lock until it ends; `locks.work_lock` gives a session that has them.
    """

    layout: Layout
    out: Output
    keep: tuple[int, ...] = ()

    def at(self, layout: Layout) -> Session:
        """The same command in another place, with what it holds here."""
        return replace(self, layout=layout)

    def quietly(self) -> Session:
        """The same command without a word to people."""
        return replace(self, out=replace(self.out, quiet=True))
