"""Perplexity and KL divergence, measured by upstream's llama-perplexity and read from what it prints.

Definitions: upstream's `tools/perplexity/README.md`. All values are per token over the second half of each chunk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from turbotool.binaries import Run, Runner, last_lines
from turbotool.cachetype import CachePair
from turbotool.errors import BinaryFailed
from turbotool.kvlog import whole_lines
from turbotool.model import Model
from turbotool.rotation import OFF, Knobs

NUMBER = r"(-?\d+(?:\.\d+)?|-?nan|-?inf)"
SPREAD = rf" *{NUMBER} ± +{NUMBER}"
CHUNK_PPL = re.compile(r"\[(\d+)\](\d+(?:\.\d+)?|nan|inf),")
FINAL_PPL = re.compile(rf"Final estimate: PPL = {NUMBER} \+/- {NUMBER}$")
STATISTICS = {
    "ppl": re.compile(rf"^Mean PPL\(Q\) +:{SPREAD}$"),
    "ppl_base": re.compile(rf"^Mean PPL\(base\) +:{SPREAD}$"),
    "mean": re.compile(rf"^Mean +KLD:{SPREAD}$"),
    "maximum": re.compile(rf"^Maximum KLD: *{NUMBER}()$"),
    "p999": re.compile(rf"^99\.9% +KLD: *{NUMBER}()$"),
    "p99": re.compile(rf"^99\.0% +KLD: *{NUMBER}()$"),
    "median": re.compile(rf"^Median +KLD: *{NUMBER}()$"),
    "rms_dp": re.compile(rf"^RMS Δp +:{SPREAD} %$"),
    "same_top": re.compile(rf"^Same top p:{SPREAD} %$"),
}


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error (0 where the program prints none)."""

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Divergence:
    """A comparison with base logits: perplexities, KLD (nats), RMS probability change and top-token agreement (%)."""

    ppl: Estimate
    ppl_base: Estimate
    mean: Estimate
    median: float
    p99: float
    p999: float
    maximum: float
    rms_dp: Estimate
    same_top: Estimate


def parse_divergence(log: str) -> Divergence | None:
    """The statistics in a log of `llama-perplexity --kl-divergence`; None unless every one was printed whole."""
    found: dict[str, Estimate] = {}
    for line in whole_lines(log):
        for name, pattern in STATISTICS.items():
            if match := pattern.match(line):
                found[name] = Estimate(float(match[1]), float(match[2] or 0))
    if found.keys() != STATISTICS.keys():
        return None
    return Divergence(
        ppl=found["ppl"],
        ppl_base=found["ppl_base"],
        mean=found["mean"],
        median=found["median"].value,
        p99=found["p99"].value,
        p999=found["p999"].value,
        maximum=found["maximum"].value,
        rms_dp=found["rms_dp"],
        same_top=found["same_top"],
    )


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


@dataclass(frozen=True)
class Text:
    """What is measured: a UTF-8 file, the context of a chunk in tokens, and how many chunks from its beginning."""

    path: Path
    ctx: int = 512
    chunks: int = 4

    @property
    def flags(self) -> tuple[str, ...]:
        # one chunk a batch: the arithmetic of a chunk then does not depend on how many chunks there are
        return ("-c", str(self.ctx), "-b", str(self.ctx), "-ub", str(self.ctx))


def save_logits(runner: Runner, model: Model, text: Text, pair: CachePair, target: Path, knobs: Knobs = OFF) -> Run:
    """Write the log probabilities of `text` to `target`: 25 MB a chunk of 512 tokens at a vocabulary of 49k."""
    arguments: list[str | Path] = [
        "-f",
        text.path,
        "--chunks",
        str(text.chunks),
        *text.flags,
        "--save-all-logits",
        target,
    ]
    result = runner.cached("llama-perplexity", model, pair, arguments, knobs=knobs)
    if len(parse_chunks(result.done.output)) != text.chunks:
        raise _silent(result, f"did not report {text.chunks} chunks")
    return result


def diverge(runner: Runner, model: Model, text: Text, pair: CachePair, base: Path, knobs: Knobs = OFF) -> Divergence:
    """Compare a cache configuration with the base logits that `save_logits` wrote for the same text."""
    arguments: list[str | Path] = [*text.flags, "--kl-divergence", "--kl-divergence-base", base]
    result = runner.cached("llama-perplexity", model, pair, arguments, knobs=knobs)
    divergence = parse_divergence(result.done.output)
    if divergence is None:
        raise _silent(result, "did not print its KL divergence statistics")
    return divergence


def measure(runner: Runner, model: Model, text: Text, pair: CachePair, knobs: Knobs = OFF) -> Estimate:
    """Perplexity of `text` under a cache configuration."""
    arguments: list[str | Path] = ["-f", text.path, "--chunks", str(text.chunks), *text.flags]
    result = runner.cached("llama-perplexity", model, pair, arguments, knobs=knobs)
    estimate = parse_final(result.done.output)
    if estimate is None:
        raise _silent(result, "did not print a final estimate")
    return estimate


def _silent(result: Run, what: str) -> BinaryFailed:
    return BinaryFailed(
        f"llama-perplexity ended well but {what}\n{last_lines(result.done.output)}",
        how="no result",
        hint="is the text long enough? name another with --corpus",
    )
