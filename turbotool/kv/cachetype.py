"""The KV cache types that the binaries take for -ctk and -ctv, and what a value of each costs."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.errors import UnknownCacheType
from turbotool.system.names import did_you_mean

# name -> (values in a block, bytes of a block); upstream's ggml-common.h and the overlay's turbo blocks
BLOCKS = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
    "turbo4": (64, 34),
    "turbo3": (64, 26),
    "turbo2": (64, 18),
}
TURBO = ("turbo2", "turbo3", "turbo4")
FLOATS = ("f32", "f16", "bf16")
MAX_TOKENS = 1 << 24  # in a cache: more than a command needs to take


@dataclass(frozen=True)
class CachePair:
    """The cache types of K and V that a run asks for."""

    k: str
    v: str

    def __post_init__(self) -> None:
        for name in (self.k, self.v):
            if name not in BLOCKS:
                raise UnknownCacheType(
                    f"unknown cache type '{name}'{did_you_mean(name, BLOCKS)}", hint=f"use one of {', '.join(BLOCKS)}"
                )

    @classmethod
    def parse(cls, text: str) -> CachePair:
        """`q8_0` is that type for K and V, `q8_0/turbo4` one for each. Raises UnknownCacheType."""
        k, slash, v = text.partition("/")
        return cls(k, v if slash else k)

    def __str__(self) -> str:
        return f"{self.k}/{self.v}"

    @property
    def short(self) -> str:
        """What `parse` reads, as short as it can be."""
        return self.k if self.k == self.v else str(self)

    @property
    def flags(self) -> tuple[str, ...]:
        return ("-ctk", self.k, "-ctv", self.v)


F16 = CachePair("f16", "f16")  # what every other cache is compared with


def bits_per_value(name: str) -> float:
    values, width = BLOCKS[name]
    return 8 * width / values


def row_bytes(name: str, values: int) -> int:
    """Bytes of `values` consecutive values, padded to whole blocks as the cache pads a head."""
    per_block, width = BLOCKS[name]
    return -(-values // per_block) * width


def is_quantized(name: str) -> bool:
    return name not in FLOATS
