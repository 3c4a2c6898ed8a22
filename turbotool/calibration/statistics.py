"""What llama-kv-calibrate tells of a calibration: predicted gains, and the energy of each channel before and after."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import BinaryFailed

SIDES = ("k", "v")
VERSION = 1


@dataclass(frozen=True)
class SideStatistics:
    """K or V of one layer.

    `gain` has for each head the factor by which quantization noise is predicted to shrink at equal bits: that of the
    scores of the attention for K, that of its output for V. `before` and `after` are the mean squares of each channel,
    head after head, as it comes and as it is stored.
    """

    gain: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def head_size(self) -> int:
        return len(self.before) // len(self.gain)

    def shares(self, *, after: bool) -> list[list[float]]:
        """What part of its head's energy each channel has, by head; 0 for a head without any."""
        values, width = self.after if after else self.before, self.head_size
        heads = [values[start : start + width] for start in range(0, len(values), width)]
        return [[value / (sum(head) or 1.0) for value in head] for head in heads]


@dataclass(frozen=True)
class LayerStatistics:
    """One layer; a side that is not calibrated is None."""

    layer: int
    n_head_kv: int
    n_embd_head: int
    k: SideStatistics | None = None
    v: SideStatistics | None = None

    def side(self, name: str) -> SideStatistics | None:
        return self.k if name == "k" else self.v


@dataclass(frozen=True)
class Statistics:
    """`model` and `text` are hashes, `n_tokens` were measured, gains are for contexts of `n_positions`."""

    version: int
    model: str
    text: str
    n_tokens: int
    n_positions: int
    layers: tuple[LayerStatistics, ...]

    def gains(self, side: str) -> tuple[float, ...]:
        """Of every head of every layer."""
        return tuple(gain for layer in self.layers if (one := layer.side(side)) for gain in one.gain)

    @property
    def sides(self) -> tuple[str, ...]:
        """Those that are calibrated."""
        return tuple(side for side in SIDES if self.gains(side))


def read_statistics(path: Path) -> Statistics:
    """Raises BinaryFailed for what the program should not have written."""
    import msgspec

    try:
        found = msgspec.convert(json.loads(path.read_bytes()), Statistics, strict=True)
    except (OSError, ValueError, RecursionError) as error:  # of msgspec, too
        raise _unusable(str(error)) from error
    if found.version != VERSION:
        raise _unusable(f"their version is {found.version}, not {VERSION}")
    if problem := next(_problems(found), None):
        raise _unusable(problem)
    return found


def _problems(found: Statistics) -> Iterator[str]:
    if not found.sides:
        yield "no layer is calibrated"
    for layer in found.layers:
        for name in SIDES:
            if side := layer.side(name):
                yield from (f"layer {layer.layer}, {name}: {what}" for what in _side_problems(side, layer.n_head_kv))


def _side_problems(side: SideStatistics, heads: int) -> Iterator[str]:
    if not 0 < heads == len(side.gain):
        yield f"{len(side.gain)} gains for {heads} heads"
    elif not 0 < len(side.before) == len(side.after) or len(side.before) % heads:
        yield f"{len(side.before)} channels before and {len(side.after)} after, in {heads} heads"
    elif not all(0 < gain < math.inf for gain in side.gain):
        yield "a gain is no positive number"
    elif not all(0 <= value < math.inf for value in (*side.before, *side.after)):
        yield "a mean square is no number from 0 on"


def _unusable(what: str) -> BinaryFailed:
    return BinaryFailed(f"llama-kv-calibrate wrote statistics that cannot be used: {what}", how="no result")
