"""Draw docs/images/calibration.svg from kept moments: `python ci/calibration_picture.py`; `--check` only compares."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import svg

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "calibration.svg"
KEYS = PICTURE.with_suffix(".json")
WIDTH, HEIGHT = 760, 300
FIELDS = ((60, 390), (420, 750))  # from where to where each half goes
TOP, BOTTOM = 66, 258
MOST = 25.0  # percent of a head's energy
STEP = 5
LEAST = 0.05  # of a unit: less is not written of a length
CONSTANT, VARYING = svg.AMBER, svg.BLUE


def draw(keys: dict[str, Any]) -> str:
    """One head of K, a bar a channel: what is the same in every cell and what is not, as it comes and as stored."""
    constant = [mean * mean for mean in keys["k_mean"]]
    varying = [max(square - same, 0.0) for square, same in zip(keys["k_sq"], constant, strict=True)]
    stored = [math.sqrt(query * var) for query, var in zip(keys["q_sq"], varying, strict=True)]
    parts = [*_legend(), *_percent()]
    parts += _half(FIELDS[0], "K as it comes", constant, varying)
    parts += _half(FIELDS[1], "K as a calibrated cache stores it", [0.0] * len(stored), stored)
    title = (
        f"Energy of the channels of a head of K before and after calibration, {keys['model']}, layer {keys['layer']}"
    )
    return svg.picture(WIDTH, HEIGHT, title, parts)


def _legend() -> list[str]:
    parts = []
    for x, colour, words in (
        (FIELDS[0][0], CONSTANT, "the same in every cell: softmax does not see it"),
        (FIELDS[1][0], VARYING, "what distinguishes the cells"),
    ):
        parts += [svg.tag("rect", x=x, y=9, width=11, height=11, fill=colour), svg.text(x + 17, 19, words)]
    return parts


def _percent() -> list[str]:
    parts = [
        svg.text(FIELDS[0][0] - 9, _up(percent) + 4.5, str(percent), text_anchor="end")
        for percent in range(0, int(MOST) + 1, STEP)
    ]
    middle = (TOP + BOTTOM) / 2
    turned = f"rotate(-90 16 {svg.number(middle)})"
    return [*parts, svg.text(16, middle, "% of the head's energy", text_anchor="middle", transform=turned)]


def _half(field: tuple[int, int], name: str, constant: Sequence[float], varying: Sequence[float]) -> list[str]:
    left, right = field
    whole = sum(constant) + sum(varying)
    parts = [svg.text((left + right) / 2, TOP - 14, name, text_anchor="middle", font_weight="600")]
    parts.append(svg.tag("path", d=f"M{left} {TOP}V{BOTTOM}H{right}", fill="none", stroke=svg.INK))
    width = (right - left) / len(varying)
    for channel, (same, other) in enumerate(zip(constant, varying, strict=True)):
        x = left + (channel + 0.15) * width
        parts += _bar(x, 0.7 * width, 0.0, 100 * other / whole, VARYING)
        parts += _bar(x, 0.7 * width, 100 * other / whole, 100 * (other + same) / whole, CONSTANT)
    about = f"{len(varying)} channels, {100 * sum(varying) / whole:.0f} % of the energy tells cells apart"
    return [*parts, svg.text((left + right) / 2, BOTTOM + 20, about, text_anchor="middle")]


def _bar(x: float, width: float, low: float, high: float, colour: str) -> list[str]:
    top, bottom = _up(high), _up(low)
    if bottom - top < LEAST:
        return []
    return [svg.tag("rect", x=x, y=top, width=width, height=bottom - top, fill=colour)]


def _up(percent: float) -> float:
    return BOTTOM - percent / MOST * (BOTTOM - TOP)


def made() -> str:
    """What docs/images/calibration.svg must hold."""
    return draw(json.loads(KEYS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    svg.keep(PICTURE, made(), __doc__)
