"""Perplexity and KL divergence of a cache beside f16, measured by llama-kv-divergence without a file of logits.

The program is `patches/overlay/tools/kv-divergence/`: two contexts of one model over the same tokens, of whose logits
those of one batch exist at a time. Its statistics are those of llama-perplexity, and are not rounded when they are
printed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from turbotool.errors import BinaryFailed
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.divergence import Divergence, Position, Running
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import Run, Runner, last_lines
from turbotool.system.lines import whole_lines

PROGRAM = "llama-kv-divergence"
BATCH = 512  # tokens that f16 computes at once, of which the logits of both caches are there together
FLOAT = 4  # bytes of a logit
BOTH = 2  # caches are computed


class Line(msgspec.Struct, frozen=True):
    """A line that the program prints: means up to a chunk, a range of positions, or, last, all that counts: a
    `Divergence` without those, and of how many `chunks`."""

    running: Running | None = None
    position: Position | None = None
    divergence: dict[str, Any] | None = None


def batch_of(text: Text) -> int:
    """How many tokens f16 computes at once."""
    return min(BATCH, text.ctx)


def compare_streamed(
    runner: Runner,
    model: Model,
    text: Text,
    pair: CachePair,
    knobs: Knobs = OFF,
    calibration: Calibration = UNCALIBRATED,
) -> tuple[Divergence, Run]:
    """Compare a cache configuration with f16 over a text; of what it computes at once, `text.ubatch` is the most.

    Takes as long as two runs of llama-perplexity. Raises BinaryFailed and what a run raises.
    """
    batch = batch_of(text)
    words: list[str | Path] = ["-f", text.path, "--chunks", str(text.chunks), "-c", str(text.ctx), "-b", str(batch)]
    words += ["-ub", str(min(text.ubatch or batch, batch))]
    timeout = BOTH * text.timeout
    run = runner.cached(PROGRAM, model, pair, words, knobs=knobs, calibration=calibration, timeout=timeout)
    return parse_streamed(run.done.output), run


def parse_streamed(output: str) -> Divergence:
    """The statistics in what the program printed. Raises BinaryFailed if they are not there, or not what is known."""
    try:
        # words stand for what is no number: nan, inf
        lines = [
            msgspec.convert(msgspec.json.decode(line), Line, strict=False)
            for line in whole_lines(output)
            if line.startswith(('{"running"', '{"position"', '{"divergence"'))
        ]
        running = tuple(line.running for line in lines if line.running)
        positions = tuple(line.position for line in lines if line.position)
        totals = lines[-1].divergence if lines else None
        if totals is None or totals.get("chunks") != len(running) or not positions:
            raise BinaryFailed(f"{PROGRAM} ended well but printed no statistics\n{last_lines(output)}", how="no result")
        found = msgspec.convert({**totals, "running": ()}, Divergence, strict=False)
    except msgspec.MsgspecError as error:
        raise BinaryFailed(f"{PROGRAM} printed what is no result: {error}", how="no result") from error
    return replace(found, running=running, positions=positions)


def logits_in_memory(vocabulary: int, tokens: int) -> int:
    """Bytes of the logits of so many tokens, as programs compute them."""
    return FLOAT * vocabulary * tokens
