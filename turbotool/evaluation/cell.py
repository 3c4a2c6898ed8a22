"""One cell of an evaluation: which cache it is, what identifies its measurement, and what was measured."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from turbotool.errors import UnknownCacheType
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair, row_bytes
from turbotool.kv.calibration import UNCALIBRATED, Calibration, cache_name
from turbotool.kv.effective import Effective
from turbotool.kv.rotation import ROTATIONS, Knobs
from turbotool.programs.divergence import Divergence

KEY_VERSION = 1  # of what `Measured` means; a new number forgets what older versions of turbotool measured


@dataclass(frozen=True)
class Configuration:
    """A cache, the sides that upstream's rotation turns (off, k, v or kv), and what it is calibrated with."""

    pair: CachePair
    rotation: str = "off"
    calibration: Calibration = UNCALIBRATED

    @property
    def knobs(self) -> Knobs:
        return ROTATIONS[self.rotation]

    @property
    def cache(self) -> str:
        """The name of the cache without its rotation."""
        return cache_name(self.pair, self.calibration)

    def __str__(self) -> str:
        return self.cache if self.rotation == "off" else f"{self.cache} rotated {self.rotation}"

    def bits_per_value(self, model: Model) -> float:
        """Bits that a cached value takes on average over both sides, padding of a head to whole blocks included."""
        width = row_bytes(self.pair.k, model.head_dim_k) + row_bytes(self.pair.v, model.head_dim_v)
        return 8 * width / (model.head_dim_k + model.head_dim_v)


@dataclass(frozen=True)
class Origin:
    """What a measurement depends on beside the cache: sha256 of programs, model and text; tokens a chunk; chunks.

    `calibration` is the sha256 of the file that the cache is calibrated with; empty without one. How many threads
    compute it is no part of it.
    """

    binaries: str
    model: str
    corpus: str
    ctx: int
    chunks: int
    calibration: str = ""

    def key(self, configuration: Configuration, repeat: int = 0, ubatch: int = 0, batch: int = 0) -> str:
        """sha256 that names the measurement of a configuration; `repeat` tells repetitions of the same one apart.

        `ubatch` is how many tokens were computed at once, if that was asked for: else a whole chunk. `batch` is how
        many tokens there were logits of at once, beside those of f16; 0 if those of f16 were stored.
        """
        pair = configuration.pair
        cell = {"k": pair.k, "v": pair.v, "rotation": configuration.rotation, "repeat": repeat}
        cell |= {"ubatch": ubatch} if ubatch else {}
        cell |= {"streamed": batch} if batch else {}
        origin = {name: value for name, value in asdict(self).items() if name != "calibration"}
        calibration = configuration.calibration
        return digest({"version": KEY_VERSION, **origin, **cell, **calibrated(calibration, self.calibration)})


def calibrated(calibration: Calibration, sha256: str) -> Mapping[str, str]:
    """What a calibration adds to a key: nothing if there is none, as before there was any."""
    if calibration.is_off:
        return {}
    return {"calibration": "file" if calibration.is_file else calibration.name, "calibration_sha256": sha256}


def digest(fields: Mapping[str, object]) -> str:
    """sha256 of some named values, in whatever order they are."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Measured:
    """A comparison with f16, the configuration that the program reported, and how long the run took (seconds).

    `machine` describes where it ran; empty for what older versions of turbotool measured. `peak` is the most memory
    that the run had resident, `logits` what stored logits of f16 took on the disk, in bytes and None where not known.
    """

    divergence: Divergence
    effective: Effective
    seconds: float
    machine: str = ""
    peak: int | None = None
    logits: int | None = None

    @property
    def is_finite(self) -> bool:
        found = self.divergence
        return all(math.isfinite(value) for value in (found.ppl.value, found.mean.value, found.rms_dp.value))

    @property
    def chunks(self) -> int:
        return len(self.divergence.running)


def parse_rotations(text: str) -> tuple[str, ...]:
    """`off,k,v,kv` or some of them, each once. Raises UnknownCacheType for another word."""
    words = [word.strip().lower() for word in text.split(",")]
    for word in words:
        if word not in ROTATIONS:
            raise UnknownCacheType(f"unknown rotation '{word}'", hint=f"use some of {','.join(ROTATIONS)}")
    return tuple(dict.fromkeys(words))
