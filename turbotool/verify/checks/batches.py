"""A cache answers alike however many tokens are computed at once: one, a few of a draft, or a batch."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from pathlib import Path

from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration, cache_name
from turbotool.kv.rotation import OFF
from turbotool.programs.agreement import ERRORS, Agreement, agreement
from turbotool.programs.divergence import Divergence
from turbotool.programs.perplexity import Text, compare, most_noise, save_logits
from turbotool.verify.check import CheckOutcome, Context
from turbotool.verify.checks.quality import TURBO4

CACHES = (
    (TURBO4, AUTO),
    (CachePair("turbo3", "turbo3"), UNCALIBRATED),
    (CachePair("q8_0", "q8_0"), UNCALIBRATED),
    (F16, UNCALIBRATED),
)
BATCH, *FEW = 256, 3, 1  # tokens at once: of a prompt, of a draft, and of what is generated
# CPUs on which the sums of a token do not depend on its neighbours; on others two rows may be multiplied at once
EXACT = ("x86_64", "amd64")
# Upstream's attention on the CPU adds the values of an f16 cache in f16 if fewer than 64 tokens are computed at once:
# .0035 nats on 512 tokens of our documentation. It may be as much as 1 % of perplexity is.
MOST_F16 = math.log1p(0.01)


def batch_invariance(context: Context) -> CheckOutcome:
    """One chunk in batches, three tokens at once, and token by token: the same figures, but for rounding."""
    exact = context.runner.binaries.backend == "cpu" and platform.machine().lower() in EXACT
    base = context.work / "batches.logits"
    try:
        save_logits(context.runner, context.model, _text(context, BATCH), F16, base)
        found = [_agreements(context, base, pair, calibration, exact=exact) for pair, calibration in CACHES]
    finally:
        base.unlink(missing_ok=True)
    every = [one for agreements in found for one in agreements]
    details = [_told(*cache, agreements) for cache, agreements in zip(CACHES, found, strict=True)]
    rounding = f"{ERRORS} standard errors of a difference of mean KLDs"
    bound = f"every printed digit, f16 within {MOST_F16:.3g} nats" if exact else f"{rounding}, f16 {MOST_F16:.3g} nats"
    return CheckOutcome(all(one.ok for one in every), sum(not one.ok for one in every), bound, "; ".join(details))


def _agreements(
    context: Context, base: Path, pair: CachePair, calibration: Calibration, *, exact: bool
) -> list[Agreement]:
    """Of a few tokens at once with a batch."""
    if pair == F16:
        floor, exact = MOST_F16, False
    else:
        floor = most_noise(context.runner.binaries.backend)
    batch, *others = (_run(context, base, pair, calibration, ubatch) for ubatch in (BATCH, *FEW))
    return [agreement(batch, other, floor=floor, exact=exact) for other in others]


def _run(context: Context, base: Path, pair: CachePair, calibration: Calibration, ubatch: int) -> Divergence:
    """On one thread: more of them share the cells of a cache where there are few tokens, and join their sums."""
    runner = replace(context.runner, threads=1)
    return compare(runner, context.model, _text(context, ubatch), pair, base, OFF, calibration)[0]


def _text(context: Context, ubatch: int) -> Text:
    return replace(context.text, chunks=1, ubatch=ubatch)


def _told(pair: CachePair, calibration: Calibration, found: list[Agreement]) -> str:
    """`turbo4: identical`, or how far from the batch each is."""
    if all(one.identical for one in found):
        return f"{cache_name(pair, calibration)}: identical"
    apart = (f"{one.difference:+.6f} at ubatch {ubatch}" for ubatch, one in zip(FEW, found, strict=True))
    return f"{cache_name(pair, calibration)}: {', '.join(apart)}, at most {found[0].bound:.6f}"
