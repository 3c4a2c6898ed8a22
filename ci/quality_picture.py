"""Draw docs/images/quality.svg from a kept result: `python ci/quality_picture.py`; `--check` only compares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import svg

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs" / "results" / "SmolLM2-135M-Instruct.Q4_1" / "eval.json"
PICTURE = ROOT / "docs" / "images" / "quality.svg"
WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 738, 52, 326  # of the field between the axes
BITS = (2.0, 9.0)
KLD = (0.002, 2.0)  # nats; the axis is logarithmic
DECADES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
COLOURS = {"off": svg.INK, "auto": svg.GREEN}
NAMES = {"off": "K as it comes", "auto": "K calibrated"}
SIZE = 4.5


def across(bits: float) -> float:
    return LEFT + (bits - BITS[0]) / (BITS[1] - BITS[0]) * (RIGHT - LEFT)


def up(kld: float) -> float:
    low, high = map(math.log, KLD)
    return BOTTOM - (math.log(kld) - low) / (high - low) * (BOTTOM - TOP)


def draw(result: Mapping[str, Any]) -> str:
    """The picture of one text: a dot for each cache with and without calibration, with its standard error."""
    chosen = result["recommendation"]
    rows = [*result["cells"], *(row for row in result["controls"]["q4_0"] if row not in result["cells"])]
    parts = [*_axes(), *_tolerance(chosen["max_kld"]), *_legend()]
    for row in rows:
        parts += _dot(row, all(row[key] == chosen[key] for key in ("k", "v", "rotation", "calibration")))
    for name, bits, top in _caches(rows):
        parts.append(svg.text(across(bits), up(top) - 14, name, text_anchor="middle", font_weight="600"))
    title = f"KV caches of {result['model']['name']}: mean KL divergence from f16 over bits per value"
    return svg.picture(WIDTH, HEIGHT, title, parts)


def _axes() -> list[str]:
    frame = f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"
    parts = [svg.tag("path", d=frame, fill="none", stroke=svg.INK)]
    for kld in DECADES:
        parts.append(svg.tag("path", d=f"M{LEFT - 5} {svg.number(up(kld))}h5", stroke=svg.INK))
        parts.append(svg.text(LEFT - 9, up(kld) + 4.5, f"{kld:g}", text_anchor="end"))
    for bits in range(int(BITS[0]), int(BITS[1]) + 1):
        parts.append(svg.tag("path", d=f"M{svg.number(across(bits))} {BOTTOM}v5", stroke=svg.INK))
        parts.append(svg.text(across(bits), BOTTOM + 20, str(bits), text_anchor="middle"))
    middle = (TOP + BOTTOM) / 2
    turned = f"rotate(-90 16 {svg.number(middle)})"
    parts.append(svg.text(16, middle, "mean KLD from f16 (nats)", text_anchor="middle", transform=turned))
    return [*parts, svg.text((LEFT + RIGHT) / 2, HEIGHT - 14, "bits of a cached value", text_anchor="middle")]


def _tolerance(kld: float) -> list[str]:
    line = f"M{LEFT} {svg.number(up(kld))}H{RIGHT}"
    return [
        svg.tag("path", d=line, stroke=svg.RED, stroke_dasharray="5 4"),
        svg.text(RIGHT, up(kld) - 7, f"tolerated: {kld:g}", text_anchor="end", fill=svg.RED),
    ]


def _legend() -> list[str]:
    parts = []
    for place, (calibration, name) in enumerate(NAMES.items()):
        x = LEFT + 12 + 150 * place
        parts += [svg.tag("circle", cx=x, cy=24, r=SIZE, fill=COLOURS[calibration]), svg.text(x + 11, 28.5, name)]
    return parts


def _dot(row: Mapping[str, Any], recommended: bool) -> list[str]:
    colour = COLOURS[row["calibration"]]
    x = across(row["bits_per_value"])
    kld, error = row["mean_kld"], row["mean_kld_error"]
    whisker = f"M{svg.number(x)} {svg.number(up(kld - error))}V{svg.number(up(kld + error))}"
    parts = [svg.tag("path", d=whisker, stroke=colour, stroke_width=1.5)]
    parts.append(svg.tag("circle", cx=x, cy=up(kld), r=SIZE, fill=colour))
    if recommended:
        parts.append(svg.tag("circle", cx=x, cy=up(kld), r=2 * SIZE, fill="none", stroke=colour, stroke_width=2))
        parts.append(svg.text(x, up(kld) + 27, "recommended", text_anchor="middle", fill=colour))
    return parts


def _caches(rows: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Each cache's name, bits per value and highest KLD."""
    found: dict[str, tuple[str, float, float]] = {}
    for row in rows:
        name = row["k"] if row["k"] == row["v"] else f"{row['k']}/{row['v']}"
        _, bits, top = found.get(name, (name, row["bits_per_value"], 0.0))
        found[name] = name, bits, max(top, row["mean_kld"])
    return list(found.values())


def made() -> str:
    """What docs/images/quality.svg must hold."""
    return draw(json.loads(RESULT.read_text(encoding="utf-8")))


if __name__ == "__main__":
    svg.keep(PICTURE, made(), __doc__)
