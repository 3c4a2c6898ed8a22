"""Perplexity and KL divergence as llama-perplexity prints them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from turbotool.system.lines import whole_lines

NUMBER = r"(-?\d+(?:\.\d+)?|-?nan|-?inf)"
SPREAD = rf" *{NUMBER} ± +{NUMBER}"
COLUMN = rf" +{NUMBER} ± +{NUMBER}"
CHUNK_PPL = re.compile(r"\[(\d{1,9})\](\d+(?:\.\d+)?|nan|inf),")
FINAL_PPL = re.compile(rf"Final estimate: PPL = {NUMBER} \+/- {NUMBER}$")
TOO_SHORT = re.compile(r"you need at least (\d+) tokens to evaluate perplexity")
TOKENIZED = re.compile(r"tokenizes to only (\d+) tokens")
STATISTICS = {
    "ppl": re.compile(rf"^Mean PPL\(Q\) +:{SPREAD}$"),
    "ppl_base": re.compile(rf"^Mean PPL\(base\) +:{SPREAD}$"),
    "correlation": re.compile(rf"^Cor\(ln\(PPL\(Q\)\), ln\(PPL\(base\)\)\): *{NUMBER}()%$"),
    "ln_ratio": re.compile(rf"^Mean ln\(PPL\(Q\)/PPL\(base\)\) +:{SPREAD}$"),
    "ratio": re.compile(rf"^Mean PPL\(Q\)/PPL\(base\) +:{SPREAD}$"),
    "difference": re.compile(rf"^Mean PPL\(Q\)-PPL\(base\) +:{SPREAD}$"),
    "mean": re.compile(rf"^Mean +KLD:{SPREAD}$"),
    "mean_dp": re.compile(rf"^Mean +Δp:{SPREAD} %$"),
    "rms_dp": re.compile(rf"^RMS Δp +:{SPREAD} %$"),
    "same_top": re.compile(rf"^Same top p:{SPREAD} %$"),
}
QUANTILE = re.compile(rf"^ *(?P<rank>Minimum|Median|Maximum|\d+\.\d%) +(?P<of>KLD|Δp): *{NUMBER}%?$")
RANKS = {"Minimum": 0.0, "Median": 50.0, "Maximum": 100.0}
KLD_RANKS = {0.0, 0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0}  # percent of the tokens
DP_RANKS = {*KLD_RANKS, 25.0, 75.0}
RUNNING = re.compile(rf"^ *(\d+){COLUMN * 3}{(COLUMN + ' %') * 2}$")


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error (0 where the program prints none)."""

    value: float
    error: float = 0.0

    def text(self, digits: int) -> str:
        """`0.0079 ± 0.0003`."""
        if not math.isfinite(self.value):
            return str(self.value)
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True)
class Quantiles:
    """A distribution over tokens: (percent of the tokens, value that they do not exceed), minimum to maximum."""

    points: tuple[tuple[float, float], ...]

    def at(self, percent: float) -> float:
        """The value at one of the printed ranks. Raises KeyError for another one."""
        return dict(self.points)[percent]


@dataclass(frozen=True)
class Running:
    """A row of the table that grows with each chunk: means over all chunks up to `chunk` (from 1).

    `ppl` is printed with 4 decimals, `ln_ratio` (of PPL to the base) and `kld` (nats) with 5, `rms_dp` and `same_top`
    (both %) with 3.
    """

    chunk: int
    ppl: Estimate
    ln_ratio: Estimate
    kld: Estimate
    rms_dp: Estimate
    same_top: Estimate


@dataclass(frozen=True)
class Position:
    """Tokens at positions from `begin` up to `end` of their chunks, all chunks together.

    KLD in nats, the root mean square of the change of the right token's probability in percentage points, same top in
    percent; errors are standard errors over `tokens`.
    """

    begin: int
    end: int
    tokens: int
    ln_ratio: Estimate
    kld: Estimate
    rms_dp: Estimate
    same_top: Estimate


@dataclass(frozen=True)
class Divergence:
    """Everything that a comparison with base logits prints. Errors are standard errors over tokens.

    Perplexities `ppl` and `ppl_base`, the `correlation` of their logarithms (%), `ln_ratio`, `ratio` and `difference`
    of the two; KLD of base and Q in nats (`mean`, `kld`); the change of the probability of the right token in
    percentage points (`mean_dp`, `dp`, root mean square `rms_dp`); tokens whose likeliest successor is the same (%).
    `positions` are those of whole chunks, told by llama-kv-divergence alone; all else is of the second halves.
    """

    ppl: Estimate
    ppl_base: Estimate
    correlation: float
    ln_ratio: Estimate
    ratio: Estimate
    difference: Estimate
    mean: Estimate
    kld: Quantiles
    mean_dp: Estimate
    dp: Quantiles
    rms_dp: Estimate
    same_top: Estimate
    running: tuple[Running, ...]
    positions: tuple[Position, ...] = ()

    @property
    def median(self) -> float:
        return self.kld.at(50.0)

    @property
    def p99(self) -> float:
        return self.kld.at(99.0)

    @property
    def p999(self) -> float:
        return self.kld.at(99.9)

    @property
    def maximum(self) -> float:
        return self.kld.at(100.0)


def parse_divergence(log: str) -> Divergence | None:
    """The statistics in a log of `llama-perplexity --kl-divergence`; None unless every one was printed whole."""
    found: dict[str, Estimate] = {}
    ranks: dict[str, dict[float, float]] = {"KLD": {}, "Δp": {}}
    for line in whole_lines(log):
        if match := QUANTILE.match(line):
            rank = RANKS.get(match["rank"])
            ranks[match["of"]][float(match["rank"][:-1]) if rank is None else rank] = float(match[3])
        for name, pattern in STATISTICS.items():
            if match := pattern.match(line):
                found[name] = Estimate(float(match[1]), float(match[2] or 0))
    running = parse_running(log)
    complete = ranks["KLD"].keys() >= KLD_RANKS and ranks["Δp"].keys() >= DP_RANKS
    if found.keys() != STATISTICS.keys() or not complete or not running:
        return None
    correlation = found.pop("correlation").value
    kld, dp = (Quantiles(tuple(sorted(ranks[name].items()))) for name in ("KLD", "Δp"))
    return Divergence(**found, correlation=correlation, kld=kld, dp=dp, running=running, positions=())


def parse_running(log: str) -> tuple[Running, ...]:
    """The rows of the table of running means, from the first chunk on; a row counts when its line is whole."""
    rows: list[Running] = []
    for line in whole_lines(log):
        match = RUNNING.match(line)
        if match and int(match[1]) == len(rows) + 1:
            values = [float(word) for word in match.groups()[1:]]
            spreads = (Estimate(*pair) for pair in zip(values[::2], values[1::2], strict=True))
            rows.append(Running(int(match[1]), *spreads))
    return tuple(rows)


def parse_too_short(log: str) -> tuple[int, int] | None:
    """(tokens needed, tokens that the text has) if the program says that a text is too short; it then ends well."""
    lines = list(whole_lines(log))
    needed = next((int(match[1]) for line in lines if (match := TOO_SHORT.search(line))), None)
    there = next((int(match[1]) for line in lines if (match := TOKENIZED.search(line))), None)
    return (needed, there) if needed is not None and there is not None else None


def parse_chunks(log: str) -> tuple[float, ...]:
    """Running perplexity after each chunk, in order; a number counts only with the comma that ends it."""
    values: list[float] = []
    for match in CHUNK_PPL.finditer(log):
        if int(match[1]) == len(values) + 1:
            values.append(float(match[2]))
    return tuple(values)


def parse_final(log: str) -> Estimate | None:
    """`Final estimate: PPL = x +/- y`, or None if it was not printed whole."""
    matches = [match for line in whole_lines(log) if (match := FINAL_PPL.search(line))]
    return Estimate(float(matches[-1][1]), float(matches[-1][2])) if matches else None
