"""Measurements whose figures are known: one as a real program printed it, and any that a test makes up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from recordings import recorded

from turbotool.evaluation.cell import Measured
from turbotool.programs.divergence import Divergence, Estimate, Running, parse_divergence

_found = parse_divergence(recorded("kld-q8_0-turbo4.log"))
assert isinstance(_found, Divergence)
DIVERGENCE: Divergence = _found
MEASURED = Measured(DIVERGENCE, {"caches": [{"k": "q8_0"}]}, 1.5)


def running(klds: Sequence[float], ratios: Sequence[float], top: float) -> Iterable[Running]:
    """The table of chunks of these values, rounded as the program rounds it."""
    for n in range(1, len(klds) + 1):
        kld, ratio = math.fsum(klds[:n]) / n, math.fsum(ratios[:n]) / n
        yield Running(n, Estimate(1), Estimate(round(ratio, 5)), Estimate(round(kld, 5)), Estimate(1), Estimate(top))


def cell(
    kld: float,
    ratio: float,
    *,
    error: float = 0.01,
    spread: float = 0.0,
    top: float = 95.0,
    base: float = 20.0,
    chunks: int = 8,
    of_kld: float = 0.0001,
) -> Measured:
    """A cell of that mean KLD and ln(PPL / f16); chunks lie above and below their mean by turns, by `spread`."""
    waves = [spread if n % 2 else -spread for n in range(chunks)]
    klds, ratios = [kld + wave for wave in waves], [ratio + wave for wave in waves]
    found = replace(
        DIVERGENCE,
        ppl=Estimate(base * math.exp(ratio), 1),
        ppl_base=Estimate(base, 1),
        ln_ratio=Estimate(ratio, error),
        mean=Estimate(kld, of_kld),
        same_top=Estimate(top, 0.1),
        running=tuple(running(klds, ratios, top)),
    )
    return Measured(found, {}, 1.0)
