"""Perplexity and KL divergence, measured by upstream's llama-perplexity.

Definitions: upstream's `tools/perplexity/README.md`. All values are per token over the second half of each chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import BinaryFailed, CorpusError
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.divergence import (
    Divergence,
    Estimate,
    parse_chunks,
    parse_divergence,
    parse_final,
    parse_too_short,
)
from turbotool.programs.runner import TIMEOUT, Run, Runner, last_lines

SECONDS_PER_CHUNK = 600.0  # of 512 tokens
SLOWER = 10  # times, where tokens are computed a few at once, and the weights are read anew for each few


@dataclass(frozen=True)
class Text:
    """What is measured: a UTF-8 file, the context of a chunk in tokens, and how many chunks from its beginning.

    `ubatch` is how many tokens are computed at once; 0 stands for a whole chunk.
    """

    path: Path
    ctx: int = 512
    chunks: int = 4
    ubatch: int = 0

    @property
    def timeout(self) -> float:
        """Seconds after which a run over this text hangs: generous, for a large model on a slow machine."""
        slower = SLOWER if 0 < self.ubatch < self.ctx else 1
        return max(TIMEOUT, SECONDS_PER_CHUNK * slower * self.chunks * self.ctx / 512)

    @property
    def flags(self) -> tuple[str, ...]:
        # one chunk a batch: the arithmetic of a chunk then does not depend on how many chunks there are
        return ("-c", str(self.ctx), "-b", str(self.ctx), "-ub", str(self.ubatch or self.ctx))


@dataclass(frozen=True)
class Base:
    """Base logits on disk: the run that wrote them, the perplexity, and how many chunks the text gave."""

    run: Run
    ppl: Estimate
    chunks: int


def write_base(runner: Runner, model: Model, text: Text, pair: CachePair, target: Path, knobs: Knobs = OFF) -> Base:
    """Write the log probabilities of `text` to `target` (`base_bytes` of them): `text.chunks` chunks or all there are.

    Raises CorpusError if the text is too short for one chunk, and what a run raises.
    """
    words: list[str | Path] = ["-f", text.path, "--chunks", str(text.chunks), *text.flags, "--save-all-logits", target]
    result = runner.cached("llama-perplexity", model, pair, words, knobs=knobs, timeout=text.timeout)
    chunks, ppl = len(parse_chunks(result.done.output)), parse_final(result.done.output)
    _require_long_enough(text, result)
    if ppl is None or not 0 < chunks <= text.chunks:
        raise _silent(result, "did not report the chunks that it saved")
    return Base(result, ppl, chunks)


def require_chunk(runner: Runner, model: Model, text: Text, pair: CachePair) -> None:
    """Raise CorpusError if the text is too short for one chunk: the program tells before it computes anything."""
    words: list[str | Path] = ["-f", text.path, "--chunks", "0", *text.flags]
    _require_long_enough(text, runner.cached("llama-perplexity", model, pair, words))


def _require_long_enough(text: Text, result: Run) -> None:
    if short := parse_too_short(result.done.output):
        raise CorpusError(
            f"{text.path} has {short[1]} tokens; a chunk of {text.ctx} needs a text of at least {short[0]}",
            hint="name a longer text with --corpus FILE, or a smaller context",
        )


def base_bytes(vocabulary: int, ctx: int, chunks: int) -> int:
    """Bytes of the file of base logits: header, tokens, and for each scored token 16 bits a word of the vocabulary.

    Upstream's `tools/perplexity/perplexity.cpp`, which rounds the vocabulary up to even and adds 4 values to a token.
    """
    per_token = 2 * (2 * ((vocabulary + 1) // 2) + 4)
    return 20 + chunks * (4 * ctx + scored(ctx) * per_token)


def scored(ctx: int) -> int:
    """Tokens of a chunk that count: those after its first half."""
    return ctx - 1 - ctx // 2


def save_logits(runner: Runner, model: Model, text: Text, pair: CachePair, target: Path, knobs: Knobs = OFF) -> Run:
    """Write the log probabilities of `text` to `target`: 25 MB a chunk of 512 tokens at a vocabulary of 49k."""
    base = write_base(runner, model, text, pair, target, knobs)
    if base.chunks != text.chunks:
        raise _silent(base.run, f"did not report {text.chunks} chunks")
    return base.run


def compare(
    runner: Runner,
    model: Model,
    text: Text,
    pair: CachePair,
    base: Path,
    knobs: Knobs = OFF,
    calibration: Calibration = UNCALIBRATED,
) -> tuple[Divergence, Run]:
    """Compare a cache configuration with the base logits that were written for the same text."""
    arguments: list[str | Path] = [*text.flags, "--kl-divergence", "--kl-divergence-base", base]
    result = runner.cached(
        "llama-perplexity", model, pair, arguments, knobs=knobs, calibration=calibration, timeout=text.timeout
    )
    divergence = parse_divergence(result.done.output)
    if divergence is None:
        raise _silent(result, "did not print its KL divergence statistics")
    return divergence, result


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


# llama-perplexity stores base log probabilities in 16 bits, so that f16 differs from itself by about 1e-6 on average
# and 6e-5 at most (measured: 0.000000 and 0.000053); a real difference is a thousand times larger.
NOISE_MEAN = 5e-6
# A device may multiply in f16, which leaves logits on a grid of 1/64 or so. Rounding them to the base's steps is not
# random: a token is off by up to half a step (measured on llvmpipe: -2.0e-5 on average, with f32 products 1e-6).
NOISE_MEAN_DEVICE = 16 / 65535 / 2
NOISE_MAX = 5e-4


def most_noise(backend: str) -> float:
    """The mean KLD (nats) of an f16 cache against itself that the storage of the base explains."""
    return NOISE_MEAN if backend == "cpu" else NOISE_MEAN_DEVICE
