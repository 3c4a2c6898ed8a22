"""Two result sets side by side, of two builds or two machines: what differs between them, and whether it is noise.

Chunks are the same tokens in both sets, so that differences are paired by chunk wherever the means of chunks were kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from turbotool.errors import ResultError
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.compare.results import ResultCell, ResultSet
from turbotool.evaluation.judge import stats
from turbotool.evaluation.judge.finding import NATS, PERCENT, POINTS, Equivalence, Finding, find
from turbotool.evaluation.judge.interval import CONFIDENCE, Interval, exp, mean_interval, ratio_interval, z
from turbotool.evaluation.judge.stats import Series, minus
from turbotool.evaluation.judge.verdict import ln_interval
from turbotool.kv.cachetype import F16
from turbotool.kv.effective import Effective
from turbotool.programs.divergence import Divergence, Estimate

IDENTICAL, UNKNOWN = "identical", "no interval"
B_BETTER, B_WORSE, B_HIGHER, B_LOWER = "B better", "B worse", "B higher", "B lower"
DIGITS = 12  # of a hash, where people read it
DECISIVE = ("k", "v", "on", "size")  # fields of an effective configuration that make it another cache


@dataclass(frozen=True)
class Statistic:
    """A figure of a cell. `series` are its values of single chunks, None if the program prints none.

    `good` is 1 if more of it is better, -1 if less is, and 0 if that cannot be said: a lower perplexity is no proof of
    anything. `unit` is that of b - a; a `positive` quantity is compared by its ratio instead, in percent, and so is one
    that is a logarithm. With `squares` the series is of squares, and b - a is the difference of their means by (a + b).
    """

    name: str
    title: str
    of: Callable[[Divergence], Estimate]
    good: int = 0
    series: Callable[[Measured, int], Series] | None = None
    squares: bool = False
    positive: bool = False
    unit: str = NATS
    within: Callable[[Equivalence], float] = lambda _: 0.0


def _logarithm(found: Estimate) -> Estimate:
    return Estimate(math.log(found.value), found.error / found.value) if found.value > 0 else Estimate(math.nan)


def _plain(of: Callable[[Divergence], float]) -> Callable[[Divergence], Estimate]:
    """A figure that the program prints without an error."""
    return lambda found: Estimate(of(found), math.nan)


LOGARITHM: Any = {"unit": PERCENT, "within": lambda equal: equal.ln_ppl}
STATISTICS = (
    Statistic(
        "mean_kld",
        "mean KLD (nats)",
        lambda d: d.mean,
        -1,
        lambda m, _: stats.kld(m),
        positive=True,
        unit=PERCENT,
        within=lambda equal: equal.ln_kld,
    ),
    Statistic(
        "same_top", "same top (%)", lambda d: d.same_top, 1, stats.same_top, unit=POINTS, within=lambda e: e.same_top
    ),
    Statistic("ln_ppl", "ln PPL", lambda d: _logarithm(d.ppl), 0, lambda m, _: stats.ln_ppl(m), **LOGARITHM),
    Statistic("ln_ppl_ratio", "ln(PPL/f16)", lambda d: d.ln_ratio, 0, lambda m, _: stats.ln_ratio(m), **LOGARITHM),
    Statistic(
        "rms_dp", "RMS Δp (points)", lambda d: d.rms_dp, -1, lambda m, _: stats.squared_dp(m), squares=True, unit=POINTS
    ),
    Statistic("mean_dp", "mean Δp (points)", lambda d: d.mean_dp, unit=POINTS),
    Statistic("median_kld", "median KLD (nats)", _plain(lambda d: d.median), -1),
    Statistic("kld_99", "99 % KLD (nats)", _plain(lambda d: d.p99), -1),
    Statistic("kld_99.9", "99.9 % KLD (nats)", _plain(lambda d: d.p999), -1),
    Statistic("max_kld", "maximum KLD (nats)", _plain(lambda d: d.maximum), -1),
    Statistic("ppl_correlation", "correlation of PPL (%)", _plain(lambda d: d.correlation), 1),
)
# of f16 itself, the base of all others; taken from a cell of the same text
BASE = Statistic(
    "ln_ppl",
    "ln PPL",
    lambda d: _logarithm(d.ppl_base),
    0,
    lambda m, _: minus(stats.ln_ppl(m), stats.ln_ratio(m)),
    **LOGARITHM,
)


@dataclass(frozen=True)
class Difference:
    """A statistic of the same cell in A and in B, with the interval of B - A; None where nothing tells of chance.

    `judged` is the interval on the scale of the verdict, the logarithm of B / A for a positive quantity, and `within`
    what is no difference on that scale. `paired`: the interval is that of differences over chunks; otherwise it follows
    from the errors of both as if the sets were of different tokens, and is wider than it need be.
    """

    corpus: str
    configuration: Configuration
    statistic: Statistic
    a: float
    b: float
    judged: Interval | None
    within: float
    paired: bool
    identical: bool

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval of B - A."""
        if self.judged is None:
            return None
        low, high = self.judged.low, self.judged.high
        return (self.a * (exp(low) - 1), self.a * (exp(high) - 1)) if self.statistic.positive else (low, high)

    @property
    def finding(self) -> Finding | None:
        """None where the verdict is another one: identical, or no interval."""
        if self.identical or self.judged is None:
            return None
        words = {0: (B_LOWER, B_HIGHER), 1: (B_WORSE, B_BETTER), -1: (B_BETTER, B_WORSE)}[self.statistic.good]
        return find(self.judged, self.within, self.statistic.unit, *words)

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return self.finding.word if self.finding else self.told

    @property
    def told(self) -> str:
        """In words, with the bound."""
        return str(self.finding) if self.finding else IDENTICAL if self.identical else UNKNOWN


@dataclass(frozen=True)
class Contrast:
    """Two result sets and everything that is said about them.

    `facts` is what they were measured with where that differs: name, A's, B's. `effective` counts the cells that differ
    in a field of their effective configuration: (field, A's, B's) -> cells. `refused` are cells that ran as another
    cache in the other set, and how; `missing` those that only one set has figures of, and why.
    """

    a: ResultSet
    b: ResultSet
    facts: tuple[tuple[str, str, str], ...]
    effective: Mapping[tuple[str, str, str], int]
    differences: tuple[Difference, ...]
    refused: Mapping[ResultCell, str]
    missing: Mapping[ResultCell, str]

    def corpus(self, cell: ResultCell) -> str:
        """The name of a cell's text, which either set may know."""
        return self.a.corpora.get(cell.corpus) or self.b.corpora[cell.corpus]


def contrast(a: ResultSet, b: ResultSet, equal: Equivalence) -> Contrast:
    """Everything that both have, compared. Raises ResultError if they are of different things."""
    require_same(a, b)
    shared = [cell for cell in a.measured if cell in b.measured]
    unlike = {cell: unlike_fields(a.measured[cell].effective, b.measured[cell].effective) for cell in shared}
    refused = {cell: why for cell, found in unlike.items() if (why := _other_cache(found))}
    compared = [cell for cell in shared if cell not in refused]
    return Contrast(
        a,
        b,
        tuple(_facts(a, b)),
        Counter(field for cell in compared for field in unlike[cell]),
        tuple(_compare(a, b, compared, equal)),
        refused,
        {**dict(_only(a, b, "A", "B")), **dict(_only(b, a, "B", "A"))},
    )


def require_same(a: ResultSet, b: ResultSet) -> None:
    """Raise ResultError naming every difference that leaves nothing to compare: model, texts, tokens, chunks."""
    found = []
    if a.model_sha256 != b.model_sha256:
        found.append(f"the models are {_named(a.model, a.model_sha256)} and {_named(b.model, b.model_sha256)}")
    if not a.corpora.keys() & b.corpora.keys():
        texts = (", ".join(_named(name, sha256) for sha256, name in one.corpora.items()) for one in (a, b))
        found.append("they have no text in common: {} and {}".format(*texts))
    numbers = (("the tokens of a chunk", a.ctx, b.ctx), ("the chunks of a text", a.chunks, b.chunks))
    found += [f"{what} are {one} and {other}" for what, one, other in numbers if one != other]
    if found:
        raise ResultError(
            f"{a.name} and {b.name} cannot be compared: {'; '.join(found)}",
            hint="measure both on the same model and text, with the same --ctx and --chunks",
        )


def _named(name: str, sha256: str) -> str:
    return f"{name} (sha256 {sha256[:DIGITS]})"


def _facts(a: ResultSet, b: ResultSet) -> Iterator[tuple[str, str, str]]:
    """Only what differs."""
    pairs = (
        ("programs", a.binaries[:DIGITS], b.binaries[:DIGITS]),
        ("tree", a.tree[:DIGITS], b.tree[:DIGITS]),
        ("backend", a.backend, b.backend),
        ("machine", "; ".join(a.machines), "; ".join(b.machines)),
        ("logits of f16", a.logits, b.logits),
        ("texts", ", ".join(a.corpora.values()), ", ".join(b.corpora.values())),
    )
    for what, one, other in pairs:
        if one != other:
            yield what, one or "unknown", other or "unknown"


def unlike_fields(a: Effective, b: Effective) -> list[tuple[str, str, str]]:
    """The fields in which two effective configurations differ, but for what the log gives in words: reasons, sources.

    Older programs say nothing of a calibration, newer ones that there is none: those are the same.
    """
    one, other = (dict(_fields(asdict(replace(effective, calibrations=effective.in_force)))) for effective in (a, b))
    return [
        (field, one.get(field, "unknown"), other.get(field, "unknown"))
        for field in dict.fromkeys((*one, *other))
        if one.get(field) != other.get(field) and not field.endswith((".reason", ".source"))
    ]


def _fields(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Every value with its path, such as `caches.0.k`."""
    items: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, tuple):
        items = enumerate(value)
    else:
        yield name, str(value)
        return
    for key, item in items:
        yield from _fields(item, f"{name}.{key}" if name else str(key))


def _other_cache(unlike: Iterable[tuple[str, str, str]]) -> str:
    """The differences that make it another cache; empty if there is none."""
    decisive = [found for found in unlike if found[0].rpartition(".")[2] in DECISIVE]
    return "; ".join(f"{field} is {one} in A and {other} in B" for field, one, other in decisive)


def _only(one: ResultSet, other: ResultSet, name: str, lacking: str) -> Iterator[tuple[ResultCell, str]]:
    """Cells that have figures in one set alone."""
    for cell in one.measured:
        if cell not in other.measured:
            yield cell, f"only in {name}; {lacking}: {other.failures.get(cell, 'not asked for')}"


def _compare(a: ResultSet, b: ResultSet, cells: Iterable[ResultCell], equal: Equivalence) -> Iterator[Difference]:
    based: set[str] = set()
    for cell in cells:
        one, other, corpus = a.measured[cell], b.measured[cell], a.corpora[cell.corpus]
        if cell.corpus not in based:
            based.add(cell.corpus)
            yield difference(corpus, Configuration(F16), BASE, one, other, a.ctx, equal)
        for statistic in STATISTICS:
            yield difference(corpus, cell.configuration, statistic, one, other, a.ctx, equal)


def difference(
    corpus: str,
    configuration: Configuration,
    statistic: Statistic,
    a: Measured,
    b: Measured,
    ctx: int,
    equal: Equivalence,
) -> Difference:
    """One statistic of one cell."""
    one, other = statistic.of(a.divergence), statistic.of(b.divergence)
    paired = _paired(statistic, a, b, ctx)
    same = one.value == other.value and a.divergence.running == b.divergence.running
    judged = paired or _unpaired(statistic, one, other, a.chunks)
    within = statistic.within(equal)
    return Difference(
        corpus, configuration, statistic, one.value, other.value, judged, within, paired is not None, same
    )


def _paired(statistic: Statistic, a: Measured, b: Measured, ctx: int) -> Interval | None:
    """On the scale of the verdict."""
    if statistic.series is None or not a.chunks or a.chunks != b.chunks:
        return None
    one, other = statistic.series(a, ctx), statistic.series(b, ctx)
    if statistic.positive:
        return ratio_interval(other, one)
    if statistic.unit == PERCENT:
        worse = max(stats.kld(a), stats.kld(b), key=lambda series: math.fsum(series.values))
        return ln_interval(minus(other, one), worse)
    found = mean_interval(minus(other, one))
    scale = statistic.of(a.divergence).value + statistic.of(b.divergence).value if statistic.squares else 1.0
    return replace(found, low=found.low / scale, high=found.high / scale) if found and scale else None


def _unpaired(statistic: Statistic, a: Estimate, b: Estimate, chunks: int) -> Interval | None:
    """From the standard errors over tokens."""
    if statistic.positive:
        a, b = _logarithm(a), _logarithm(b)
    half = z() * math.hypot(a.error, b.error)
    mean = b.value - a.value
    if not (math.isfinite(mean) and math.isfinite(half) and half > 0):
        return None
    return Interval(mean, mean - half, mean + half, CONFIDENCE, max(1, chunks), z())
