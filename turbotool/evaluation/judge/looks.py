"""The numbers of chunks at which one looks at the figures, and what that costs in confidence.

Who looks again and again, and stops when he likes what he sees, is wrong more often than one interval says. So the
chance of being wrong is spent over the looks: by Lan and DeMets (1983, Biometrika 70) with their function of Pocock's
type, each increment at its look. By Bonferroni's inequality all intervals of a quantity then hold together, whatever
their distribution, if each holds at its look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile

from turbotool.evaluation.judge.interval import CONFIDENCE

FIRST = 4  # chunks


@dataclass(frozen=True)
class Looks:
    """Growing numbers of chunks, planned before anything is measured; intervals of all of them hold with `confidence`.

    One look alone spends nothing: its intervals are those of an evaluation without looks.
    """

    chunks: tuple[int, ...]
    confidence: float = CONFIDENCE

    def at(self, chunks: int) -> float:
        """The confidence of an interval over so many chunks: that of the first look which wants as many."""
        before = tuple(takewhile(lambda look: look < chunks, self.chunks[:-1]))
        number = len(before)
        spent = self._spent(self.chunks[number]) - (self._spent(before[-1]) if before else 0.0)
        return 1 - (1 - self.confidence) * spent

    def _spent(self, chunks: int) -> float:
        """The share of the chance of being wrong that is spent up to a look: 1 at the last one."""
        return math.log1p((math.e - 1) * chunks / self.chunks[-1])


def doubling(most: int, first: int = FIRST) -> Looks:
    """From the first look on twice as many chunks at each, until there are as many as there may be."""
    found = [min(first, most)]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return Looks(tuple(found))
