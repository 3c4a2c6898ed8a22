"""How sequences are served, and the llama-server command line of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import AUTO, OPTION, Calibration, can_gain
from turbotool.system.process import display


@dataclass(frozen=True)
class Serving:
    """How many sequences there are, and whether they share one cache or each has its own."""

    sequences: int
    shared: bool

    def tokens(self, ctx: int) -> int:
        """What -c must be for `ctx` tokens: of each sequence, or of all together where they share."""
        return ctx if self.shared else ctx * self.sequences


ONE = Serving(1, shared=False)
LLAMA_SERVER = Serving(4, shared=True)  # what llama-server does without -np


def server_words(
    model: Path,
    pair: CachePair,
    ctx: int,
    serving: Serving = LLAMA_SERVER,
    calibration: Calibration | None = AUTO,
) -> list[str]:
    """What follows `llama-server` to serve the model with this cache; None for programs without calibrations."""
    words = ["-m", str(model), "-c", str(serving.tokens(ctx))]
    words += [] if serving == LLAMA_SERVER else ["-np", str(serving.sequences)]
    calibrated = [OPTION, calibration.word] if calibration and can_gain(pair) else []
    return [*words, "-fa", "on", *pair.flags, *calibrated]


def server_command(
    model: Path,
    pair: CachePair,
    ctx: int,
    serving: Serving = LLAMA_SERVER,
    environment: Mapping[str, str] | None = None,
    calibration: Calibration | None = AUTO,
) -> str:
    """What to type to do so."""
    variables = [f"{name}={value}" for name, value in (environment or {}).items()]
    return " ".join([*variables, display(["llama-server", *server_words(model, pair, ctx, serving, calibration)])])
