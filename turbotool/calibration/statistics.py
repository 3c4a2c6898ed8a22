"""What llama-kv-calibrate tells of a calibration: predicted gains, and the energy of each channel before and after."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.errors import BinaryFailed

VERSION = 1


@dataclass(frozen=True)
class LayerStatistics:
    """K of one layer.

    `gain` has for each head the factor by which the quantization noise of the scores of the attention is predicted to
    shrink at equal bits. `before` and `after` are the mean squares of each channel, head after head, as it comes and as
    it is stored.
    """

    layer: int
    n_head_kv: int
    n_embd_head: int
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
class Statistics:
    """`model` and `text` are hashes, `n_tokens` were measured, gains are for contexts of `n_positions`."""

    version: int
    model: str
    text: str
    n_tokens: int
    n_positions: int
    layers: tuple[LayerStatistics, ...]

    @property
    def gains(self) -> tuple[float, ...]:
        """Of every head of every layer."""
        return tuple(gain for layer in self.layers for gain in layer.gain)


def read_statistics(path: Path) -> Statistics:
    """Raises BinaryFailed for what the program should not have written."""
    import msgspec

    try:
        found = msgspec.convert(json.loads(path.read_bytes(), object_hook=_flat), Statistics, strict=True)
    except (OSError, ValueError, RecursionError) as error:  # of msgspec, too
        raise _unusable(str(error)) from error
    if found.version != VERSION:
        raise _unusable(f"their version is {found.version}, not {VERSION}")
    if problem := next(_problems(found), None):
        raise _unusable(problem)
    return found


def _flat(told: dict[str, Any]) -> dict[str, Any]:
    """What a layer tells of K, in the layer itself."""
    keys = told.get("k")
    return {**told, **keys} if isinstance(keys, dict) else told


def _problems(found: Statistics) -> Iterator[str]:
    if not found.layers:
        yield "no layer is calibrated"
    for layer in found.layers:
        yield from (f"layer {layer.layer}: {what}" for what in _layer_problems(layer))


def _layer_problems(layer: LayerStatistics) -> Iterator[str]:
    heads = layer.n_head_kv
    if not 0 < heads == len(layer.gain):
        yield f"{len(layer.gain)} gains for {heads} heads"
    elif not 0 < len(layer.before) == len(layer.after) or len(layer.before) % heads:
        yield f"{len(layer.before)} channels before and {len(layer.after)} after, in {heads} heads"
    elif not all(0 < gain < math.inf for gain in layer.gain):
        yield "a gain is no positive number"
    elif not all(0 <= value < math.inf for value in (*layer.before, *layer.after)):
        yield "a mean square is no number from 0 on"


def _unusable(what: str) -> BinaryFailed:
    return BinaryFailed(f"llama-kv-calibrate wrote statistics that cannot be used: {what}", how="no result")
