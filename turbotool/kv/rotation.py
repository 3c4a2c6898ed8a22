"""The gate of the upstream rotation and the size of the turbo rotation, as rules that a log is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.kv.cachetype import TURBO, is_quantized

DISABLE = "LLAMA_ATTN_ROT_DISABLE"
K_OVERRIDE = "LLAMA_ATTN_ROT_K_OVERRIDE"
V_OVERRIDE = "LLAMA_ATTN_ROT_V_OVERRIDE"
GATE_MULTIPLE = 64  # upstream rotates only heads whose size is a multiple of this
TURBO_WIDEST = 256


@dataclass(frozen=True)
class Knobs:
    """The environment that sets the gate; the default is unset everywhere, which means off on both sides."""

    disable: bool = False
    k: bool = False
    v: bool = False

    @property
    def environment(self) -> Mapping[str, str]:
        named = {DISABLE: self.disable, K_OVERRIDE: self.k, V_OVERRIDE: self.v}
        return {name: "1" for name, on in named.items() if on}

    def __str__(self) -> str:
        sides = "+".join(side for side, on in (("K", self.k), ("V", self.v)) if on) or "off"
        return f"DISABLE, {sides}" if self.disable else sides


OFF = Knobs()
BOTH = Knobs(k=True, v=True)
ROTATIONS = {"off": OFF, "k": Knobs(k=True), "v": Knobs(v=True), "kv": BOTH}  # by the sides that are rotated


def gate_is_on(override: bool, knobs: Knobs, cache_type: str, head_dim: int) -> bool:
    """Whether upstream's rotation is in force on one side: its override, no lock-out, and both guards."""
    return override and not knobs.disable and is_quantized(cache_type) and head_dim % GATE_MULTIPLE == 0


def turbo_size(cache_type: str, head_dim: int) -> int:
    """Width of the turbo rotation: the largest power of two that divides head_dim, at most 256; 0 for other types."""
    return min(head_dim & -head_dim, TURBO_WIDEST) if cache_type in TURBO else 0
