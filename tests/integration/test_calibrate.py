"""`turbotool calibrate` on the real programs and the small model."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import apart, document

from turbotool.inputs.default_model import default_model
from turbotool.inputs.gguf import read_header
from turbotool.layout import find_layout
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.slow

SMALL = ("--sequences", "2", "--chunks", "2", "--no-plot")
SECONDS = 3600  # of a command; the machine may be busy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small model in a folder of its own, beside which a calibration may stand."""
    target = tmp_path / "model.gguf"
    shutil.copyfile(default_model(Session(find_layout(), Output(quiet=True))), target)
    return target


def test_a_calibration_makes_the_cache_better(model: Path, built: dict[str, Any]) -> None:
    found = document("calibrate", model, "--bin-dir", built["bin_dir"], *SMALL, timeout=SECONDS)
    file = model.with_suffix(".kvcal.gguf")
    assert found["calibration"] == str(file)
    assert read_header(file).metadata["general.type"] == "kv_calibration"
    assert (found["tokens"], len(found["layers"])) == (2 * 512, 30)
    assert found["gain"] > 1
    assert all(layer["largest_share_after"] < layer["largest_share_before"] for layer in found["layers"])
    assert (found["check"]["verdict"], found["check"]["chunks"]) == ("better", 2)
    assert found["check"]["ratio"] < 0.7  # measured: .39


def test_the_one_that_comes_with_the_default_model_is_of_that_model(built: dict[str, Any], tmp_path: Path) -> None:
    model, told = default_model(Session(find_layout(), Output(quiet=True))), tmp_path / "told.json"
    shipped = find_layout().lock_file.parent / "calibrations" / model.with_suffix(".kvcal.gguf").name
    program = Path(built["bin_dir"]) / "llama-kv-calibrate"
    subprocess.run([program, "-m", model, "--show", shipped, "--stats", told], check=True, timeout=SECONDS)
    assert len(json.loads(told.read_text())["layers"]) == 30


def test_a_copy_of_the_model_holds_its_calibration(model: Path, built: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    words = ("calibrate", model, "--bin-dir", built["bin_dir"], *SMALL, "--embed", copy)
    assert document(*words, timeout=SECONDS)["check"]["verdict"] == "better"
    assert "kv_calibration.version" in read_header(copy).metadata
    assert not model.with_suffix(".kvcal.gguf").exists()


def test_a_text_that_is_too_short_for_the_program_leaves_no_file(
    model: Path, built: dict[str, Any], tmp_path: Path
) -> None:
    """It has the bytes that are needed, and not the tokens."""
    (tmp_path / "text.txt").write_text("congratulations " * 40)
    words = ("--corpus", tmp_path / "text.txt", "--bin-dir", built["bin_dir"], "--ctx", "256", "--no-check")
    done = apart("calibrate", model, *words, "--sequences", "2", "--no-plot", "--json", timeout=SECONDS)
    assert done.code != 0
    assert "Traceback" not in done.stderr
    assert not model.with_suffix(".kvcal.gguf").exists()
