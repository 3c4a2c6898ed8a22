"""What llama-kv-calibrate tells: read whole, and refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_calibrate import statistics

from turbotool.calibration.statistics import Statistics, read_statistics
from turbotool.calibration.table import gain_rows
from turbotool.errors import BinaryFailed


def read(folder: Path, told: dict[str, Any]) -> Statistics:
    path = folder / "statistics.json"
    path.write_text(json.dumps({"n_tokens": 512, "n_positions": 64, **told}), encoding="utf-8")
    return read_statistics(path)


def test_gains_are_those_of_every_head_and_what_is_new_is_passed_over(tmp_path: Path) -> None:
    told = statistics()
    told["layers"][1]["layer"] = 5
    told["layers"][0] |= {"something new": 1}
    told["layers"][1]["k"] |= {"gain": [3.0, 3.0], "something new": 1}
    found = read(tmp_path, told)
    assert found.gains == (2.0, 8.0, 3.0, 3.0)
    assert gain_rows(found, 16) == [
        ["layer", "gain"],
        ["0", "4.00 (2.00 - 8.00)"],
        ["5", "3.00 (3.00 - 3.00)"],
        ["all", "3.46 (2.00 - 8.00)"],
    ]


@pytest.mark.parametrize(
    ("layers", "rows"), [(1, ["0"]), (16, None), (17, ["0 - 1", "16"]), (80, ["0 - 4", "75 - 79"])]
)
def test_the_table_of_a_deep_model_is_short(tmp_path: Path, layers: int, rows: list[str] | None) -> None:
    lines = [row[0] for row in gain_rows(read(tmp_path, statistics(layers)), 16)]
    assert len(lines) <= 18
    if rows:
        assert (lines[1], lines[-2]) == (rows[0], rows[-1])


def test_shares_are_parts_of_a_head(tmp_path: Path) -> None:
    layer = read(tmp_path, statistics()).layers[0]
    assert layer.shares(after=False) == [[0.85, 0.05, 0.05, 0.05]] * 2
    assert layer.shares(after=True) == [[0.25] * 4] * 2


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"version": 2}, "their version is 2"),
        ({"layers": []}, "no layer is calibrated"),
        ({"layers": [5]}, "Expected `object`, got `int`"),
        ({"k": None}, "Object missing required field `gain`"),
        ({"k": {"gain": [1.0, 1.0]}}, "Object missing required field `before`"),
        ({"gain": [1.0]}, "1 gains for 2 heads"),
        ({"gain": [1.0, 0.0]}, "a gain is no positive number"),
        ({"gain": [1.0, None]}, "Expected `float`, got `null`"),
        ({"before": [1.0] * 7, "after": [1.0] * 7}, "7 channels before and 7 after, in 2 heads"),
        ({"after": [1.0] * 6}, "8 channels before and 6 after"),
        ({"before": [-1.0] * 8}, "a mean square is no number from 0 on"),
        ({"n_head_kv": 0}, "gains for 0 heads"),
        ({"text": 5}, "Expected `str`, got `int`"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changed: dict[str, Any], complaint: str) -> None:
    told = statistics()
    for name, value in changed.items():
        where = told if name in ("version", "layers", "text") else told["layers"][1]
        where = where["k"] if name in ("gain", "before", "after") else where
        where[name] = value
    with pytest.raises(BinaryFailed, match="statistics that cannot be used") as caught:
        read(tmp_path, told)
    assert complaint in caught.value.message


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    with pytest.raises(BinaryFailed):
        read_statistics(path)
    path.write_text("[" * 100_000)
    with pytest.raises(BinaryFailed):
        read_statistics(path)
