"""How far what a server predicts is from what it ought to predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.programs.server import Prediction

# Where cells lie decides which of them are added first. That is rounding, but what is rounded is stored, in few bits,
# and read by the next layer: in the end a quantized cache has drawn its noise anew, and two draws are twice as far from
# each other as each is from what they are drawn around; the third is for chance, as there are a dozen predictions.
# Measured with turbo4: .025 to .031 where it loses .026 to .027. What is wrong is wrong by whole nats.
MOST_DRAWS = 3.0
MOST_F16 = 0.02  # nats; its sums are in f16. Measured: .003


@dataclass(frozen=True)
class Twice:
    """What is predicted for the same prompts in two ways that ought to be the same."""

    plain: Sequence[Prediction]
    other: Sequence[Prediction]

    @property
    def apart(self) -> float:
        return mean_kld(self.plain, self.other)


@dataclass(frozen=True)
class Likeness:
    """Mean KLD (nats) of one way from the other with f16 and with turbo4, and what turbo4 loses in the plain way."""

    f16: float
    turbo4: float
    loss: float

    @property
    def ok(self) -> bool:
        return self.f16 <= MOST_F16 and self.turbo4 <= MOST_DRAWS * self.loss

    @property
    def bound(self) -> str:
        return f"<= {MOST_DRAWS:g} times what turbo4 loses, f16 <= {MOST_F16:g}"

    def __str__(self) -> str:
        return f"mean KLD: f16 {self.f16:.4f}, turbo4 {self.turbo4:.4f} where it loses {self.loss:.4f}"


def likeness(f16: Twice, turbo4: Twice) -> Likeness:
    return Likeness(f16.apart, turbo4.apart, mean_kld(f16.plain, turbo4.plain))


def mean_kld(base: Sequence[Prediction], other: Sequence[Prediction]) -> float:
    return sum(kld(a, b) for a, b in zip(base, other, strict=True)) / len(base)


def kld(base: Prediction, other: Prediction) -> float:
    """KLD over the likeliest tokens of `base`; one that `other` does not list counts as its least likely one."""
    least = min(other.tokens.values())
    return sum(math.exp(p) * (p - other.tokens.get(token, least)) for token, p in base.tokens.items())
