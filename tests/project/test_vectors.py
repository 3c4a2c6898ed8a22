"""The pinned vectors of the turbo codec, decoded by an independent reading of the layout."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[2] / "patches/overlay/tests/test-turbo-vectors.h"
LEVELS = {  # magnitudes: narrow, wide
    2: ((25, 85), (38, 127)),
    3: ((10, 31, 55, 88), (14, 43, 76, 121)),
    4: ((5, 15, 25, 36, 48, 62, 79, 104), (6, 18, 30, 43, 57, 73, 94, 124)),
}
SIZES = {2: 18, 3: 26, 4: 34}
LARGEST_ERROR = {2: 0.20, 3: 0.07, 4: 0.03}  # of a block's squares; Gaussian blocks are at half of it
SMALLEST = 1e-6  # root mean square below which the step, an fp16 over 64, has few bits or none


def vectors() -> list[tuple[list[float], dict[int, bytes]]]:
    """Each pinned block: 64 values, and the bytes of each type by its bits."""
    numbers = [int(text, 16) for text in re.findall(r"0x([0-9a-f]+)", HEADER.read_text(encoding="utf-8"))]
    size = 64 + sum(SIZES.values())
    assert len(numbers) % size == 0
    found = []
    for start in range(0, len(numbers), size):
        words, rest = numbers[start : start + 64], numbers[start + 64 : start + size]
        blocks = {}
        for bits, length in SIZES.items():
            blocks[bits], rest = bytes(rest[:length]), rest[length:]
        found.append((list(struct.unpack("<64f", struct.pack("<64I", *words))), blocks))
    return found


def code(bits: int, block: bytes, j: int) -> int:
    quants = block[2:]
    if bits == 4:
        return quants[j % 32] >> 4 * (j // 32) & 15
    low = quants[j % 16] >> 2 * (j // 16) & 3
    return low if bits == 2 else low | (quants[16 + j // 8] >> j % 8 & 1) << 2


def decode(bits: int, block: bytes) -> list[float]:
    """The 64 values of a block: a step of 12 bits, four choices of table, one code each."""
    field = int.from_bytes(block[:2], "little")
    (step,) = struct.unpack("<e", struct.pack("<H", field >> 4 << 3))
    values = []
    for j in range(64):
        table = LEVELS[bits][field >> j // 16 & 1]
        at = code(bits, block, j) - len(table)
        values.append(step / 64 * (table[at] if at >= 0 else -table[-at - 1]))
    return values


VECTORS = vectors()


def test_there_are_ordinary_and_hostile_blocks() -> None:
    assert any(not all(map(math.isfinite, x)) for x, _ in VECTORS)
    assert any(not any(x) for x, _ in VECTORS)
    assert sum(rms(x) > SMALLEST for x, _ in VECTORS if all(map(math.isfinite, x))) >= len(VECTORS) // 2


def rms(x: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in x) / len(x))


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("number", range(len(VECTORS)))
def test_a_pinned_block_decodes_to_what_it_was_made_from(number: int, bits: int) -> None:
    x, blocks = VECTORS[number]
    y = decode(bits, blocks[bits])
    if not all(map(math.isfinite, x)):
        assert all(map(math.isnan, y))
    elif not any(x):
        assert blocks[bits] == bytes(SIZES[bits])
    elif 2 * max(map(abs, x)) ** 2 > math.fsum(value * value for value in x):
        # one value holds most of the block: there is no level 0 for the others, but it stays the largest
        largest = max(range(64), key=lambda j: abs(x[j]))
        assert max(range(64), key=lambda j: abs(y[j])) == largest
        assert math.copysign(1, y[largest]) == math.copysign(1, x[largest])
    elif SMALLEST < rms(x) < 1e4:
        error = math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        assert error < LARGEST_ERROR[bits] * math.fsum(value * value for value in x)
    else:
        assert all(map(math.isfinite, y))
        assert max(map(abs, y)) <= max(124 * 65504 / 64, 2 * max(map(abs, x)))
