"""What a cache may be calibrated with, what it is then called, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import gguf

from turbotool.errors import ModelError
from turbotool.inputs.gguf import Header
from turbotool.kv import calibration as calibrations
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import (
    AUTO,
    UNCALIBRATED,
    Calibration,
    cache_name,
    left_alone,
    parse_calibrations,
    require_files,
)


def test_calibrations_are_read_once_each() -> None:
    found = parse_calibrations("auto, off,a/x.gguf,auto")
    path = Path("a/x.gguf").absolute()
    assert found == (AUTO, UNCALIBRATED, Calibration("x.gguf", path))
    assert [one.word for one in found] == ["auto", "off", str(path)]
    assert [dict(one.environment) for one in found[:2]] == [
        {"LLAMA_ARG_KV_CALIBRATION": "auto"},
        {"LLAMA_ARG_KV_CALIBRATION": "off"},
    ]


@pytest.mark.parametrize("text", ["", "auto,", "folder/auto", "./off"])
def test_what_could_be_taken_for_a_word_is_no_file(text: str) -> None:
    with pytest.raises(ModelError, match="is no name for the file of a calibration"):
        parse_calibrations(text)


def test_only_a_file_that_holds_a_calibration_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Calibration("m.gguf", tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"m\.gguf"):
        require_files([AUTO, named])
    (tmp_path / "m.gguf").write_bytes(gguf())
    with pytest.raises(ModelError, match="holds no calibration"):
        require_files([named])
    header = Header(3, {"general.type": "kv_calibration"}, (), 0)
    monkeypatch.setattr(calibrations, "read_header", lambda _: header)
    require_files([named, AUTO, named])
    with pytest.raises(ModelError, match="have one name, by which results know them"):
        require_files([named, *parse_calibrations("x/m.gguf")])


@pytest.mark.parametrize(
    ("cache", "asked", "name"),
    [
        ("turbo4", AUTO, "turbo4"),
        ("q8_0/turbo4", UNCALIBRATED, "q8_0/turbo4 uncalibrated"),
        ("turbo4", Calibration("x.gguf"), "turbo4 with x.gguf"),
        ("f16/bf16", UNCALIBRATED, "f16/bf16"),
        ("f16/turbo4", UNCALIBRATED, "f16/turbo4"),
    ],
)
def test_a_cache_with_a_quantized_k_is_named_with_what_it_lacks(cache: str, asked: Calibration, name: str) -> None:
    assert cache_name(CachePair.parse(cache), asked) == name


def test_a_file_that_is_named_for_caches_with_nothing_to_calibrate_is_told() -> None:
    pairs = [CachePair.parse(word) for word in ("turbo4", "f16/turbo4", "f16")]
    told = left_alone(pairs, [UNCALIBRATED, Calibration("x.gguf", Path("x.gguf"))])
    assert told == ["not calibrated with x.gguf, because K is not quantized: f16/turbo4, f16"]
    assert left_alone(pairs, [AUTO, UNCALIBRATED]) == []
    assert left_alone(pairs[:1], [Calibration("x.gguf", Path("x.gguf"))]) == []
