"""Whether two runs over the same tokens agree that computed a different number of them at once.

A chunk is measured in one batch, text is generated token by token, and a draft is accepted a few tokens at a time. Each
of them may take another kernel. A cache that is right in one and wrong in another has figures that nobody gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from turbotool.programs.divergence import Divergence

ERRORS = 3  # standard errors of a difference, which chance alone exceeds once in 370 times


@dataclass(frozen=True)
class Agreement:
    """`difference` is the mean KLD of the other run minus that of the batch (nats), `bound` how far it may be from 0.

    A bound of 0 asks for every printed digit.
    """

    identical: bool
    difference: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.identical or abs(self.difference) <= self.bound


def agreement(batch: Divergence, other: Divergence, *, floor: float = 0.0, exact: bool = False) -> Agreement:
    """Two comparisons with the same base logits; with `exact` nothing that was printed may differ.

    Else the bound is three standard errors of a difference of two means, or `floor` where that is more. Another order
    of the same sums changes a last bit, which weights that are multiplied with quantized activations amplify: the KLDs
    of a token by two kernels are then two draws. The error is that of independent draws, which is never too small: what
    both runs have in common, that the same tokens are hard, only makes their difference vary less.
    """
    identical = repr(batch) == repr(other)  # an error may be nan
    difference = other.mean.value - batch.mean.value
    chance = ERRORS * math.hypot(batch.mean.error, other.mean.error)
    return Agreement(identical, difference, 0.0 if exact else max(chance, floor))
