"""The whole main job on the pinned upstream: build, build again, export, verify, upstream's architecture suite."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import NEED_A_DEVICE, apart, document

from turbotool.layout import find_layout
from turbotool.verify.registry import CHECKS

pytestmark = pytest.mark.slow

VERIFY_SECONDS = 1800
TRIES = 5  # of which the fastest counts: other work on the machine only ever slows a run down


def fastest(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TRIES):
        started = time.monotonic()
        action()
        seconds.append(time.monotonic() - started)
    return min(seconds)


def test_help_is_instant() -> None:
    assert fastest(lambda: apart("--help")) < 0.3


def test_building_again_does_nothing_at_once_and_says_so(built: dict[str, Any]) -> None:
    assert built["ok"]
    again = document("build")
    assert again["cached"]
    assert again["outputs"] == built["outputs"]
    assert fastest(lambda: apart("build")) < 1.5


def test_export_after_apply_changes_nothing(built: dict[str, Any]) -> None:
    layout = find_layout()
    before = {path: path.read_bytes() for path in _shipped(layout.patches, layout.lock_file)}
    document("patch", "apply")
    document("patch", "export")
    assert {path: path.read_bytes() for path in _shipped(layout.patches, layout.lock_file)} == before


def _shipped(patches: Path, lock: Path) -> list[Path]:
    return [lock, *(path for path in sorted(patches.rglob("*")) if path.is_file())]


def test_every_patch_applies_cleanly_to_the_pin() -> None:
    states = {patch["name"]: patch["state"] for patch in document("patch", "check")["patches"]}
    assert states
    assert set(states.values()) == {"clean"}


def test_verify_passes_every_check(built: dict[str, Any], tmp_path: Path) -> None:
    report = tmp_path / "verify.xml"
    result = document("verify", "--report", report, timeout=VERIFY_SECONDS)
    assert [check["name"] for check in result["checks"]] == [spec.name for spec in CHECKS]
    skipped = {check["name"] for check in result["checks"] if check["skipped"]}
    assert skipped == NEED_A_DEVICE
    assert all(check["ok"] for check in result["checks"] if not check["skipped"])
    assert report.read_text(encoding="utf-8").count("<testcase") == len(CHECKS)


def test_bench_measures_the_build_against_a_build(built: dict[str, Any], tmp_path: Path) -> None:
    shape = ("--depth", "0,64", "--threads", "1", "--pp", "16", "--tg", "4", "--repeat", "2")
    words = ("--kv", "f16,q8_0/turbo4", *shape, "--against", built["bin_dir"], "--report", tmp_path)
    result = document("bench", *words)
    assert result["builds"][0]["tree"][:9] in result["builds"][0]["commit"]
    assert (result["failures"], result["skipped"]) == ([], [])
    assert len(result["cells"]) == 2 * 2 * 2 * 2  # caches, depths, phases, builds
    assert all(len(cell["samples"]) == 2 and min(cell["samples"]) > 0 for cell in result["cells"])
    assert all((cell["ratio_against"] is None) == (cell["build"] == "against") for cell in result["cells"])
    assert all(cell["ratio_f16"] == 1 for cell in result["cells"] if cell["k"] == "f16")
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.md", "bench.svg"}


def test_every_architecture_of_upstream_runs_with_turbo_caches(built: dict[str, Any]) -> None:
    program = Path(built["bin_dir"]) / "test-llama-archs"
    env = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [program, "-s", "1"], capture_output=True, text=True, timeout=VERIFY_SECONDS, env=env, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "turbo2/turbo2" in done.stdout
    assert "test(s) passed" in done.stdout
