"""`turbotool plan` as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import Done, typed
from tiny_gguf import gguf_of, write

GEMMA = {
    "block_count": 12,
    "context_length": 32768,
    "attention.head_count_kv": 1,
    "attention.key_length": 256,
    "attention.value_length": 256,
    "attention.sliding_window": 512,
}


def plan(
    folder: Path, capsys: pytest.CaptureFixture[str], *words: str, arch: str = "gemma3", keys: dict[str, Any] = GEMMA
) -> Done:
    return typed(["plan", str(write(folder, gguf_of(arch, keys))), *words], capsys)


def test_sizes_are_exact_bytes_and_have_the_command_that_makes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(tmp_path, capsys, "--kv", "q8_0/turbo4", "--ctx", "32768,1024", "--json").document
    (row,) = found["rows"]
    small, large = row["sizes"]
    per_cell = 256 // 32 * 34 + 256 // 64 * 34
    assert small["kv_bytes"] == per_cell * (2 * 1024 + 10 * 1024)
    assert large["kv_bytes"] == per_cell * (2 * 32768 + 10 * (4 * 512 + 512))
    assert large["command"].endswith("-c 32768 -fa on -ctk q8_0 -ctv turbo4 --kv-calibration auto")
    assert row["calibration_bytes"] == 12 * 256 * 2 * 4
    assert (row["bits_per_value"], large["fits"], row["largest_ctx"], found["budget"]) == (6.375, None, None, None)
    assert found["caches"][1] == {"layers": 10, "window": 512, "k_values": 2560, "v_values": 2560}


def test_the_budget_is_left_after_the_model_and_the_reserve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--kv", "f16,turbo4", "--ctx", "16384", "--parallel", "1", "--budget", "40MiB", "--reserve", "8MiB")
    done = plan(tmp_path, capsys, *words, "--json")
    budget, (f16, turbo) = done.document["budget"], done.document["rows"]
    model = (tmp_path / "model.gguf").stat().st_size
    assert budget["left_bytes"] == (32 << 20) - model == budget["total_bytes"] - model - budget["reserve_bytes"]
    windows = 10 * 1024 * 1024  # cells of 1024 bytes
    assert f16["largest_ctx"] == ((budget["left_bytes"] - windows) // 2048) // 256 * 256
    assert [f16["sizes"][0]["fits"], turbo["sizes"][0]["fits"], turbo["largest_ctx"]] == [False, True, 32768]
    assert "least compressed that fits at 16384 tokens: turbo4" in done.stderr
    assert "(42.00 MiB)" in done.stderr
    assert "32768 (all)" in done.stderr


def test_no_memory_at_all_is_a_budget_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(tmp_path, capsys, "--kv", "turbo4", "--budget", "0GiB", "--json").document
    assert found["budget"]["total_bytes"] == 0
    assert [size["fits"] for size in found["rows"][0]["sizes"]] == [False]


def test_where_nothing_fits_the_largest_context_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--kv", "f16,q8_0", "--budget", "20MiB", "--reserve", "0.5MiB")
    said = plan(tmp_path, capsys, *words).stdout
    assert "nothing fits the budget at 32768 tokens" in said
    left = (20 << 20) - (1 << 19) - (tmp_path / "model.gguf").stat().st_size
    most = (left // 544 - 10 * 2560) // 2 // 256 * 256  # a cell of a layer has 544 bytes, a window of four 2560 cells
    assert f"the largest context that fits: {most} with q8_0\n  llama-server" in said
    assert "context that fits" not in plan(tmp_path, capsys, "--budget", "1MiB").stderr


def test_a_cache_that_the_programs_refuse_has_a_reason_and_no_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"attention.key_length": 80, "attention.value_length": 80}
    done = plan(tmp_path, capsys, "--json", arch="llama", keys=keys)
    refused = {row["k"]: row["refused"] for row in done.document["rows"]}
    assert refused["f16"] is None
    assert refused["turbo4"] == "turbo4 holds blocks of 64 values, which do not divide the 80 of a head of K"
    assert "refused by the programs:\n  q8_0: q8_0 holds blocks of 32 values" in done.stderr


def test_without_attention_there_is_a_state_and_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"attention.head_count": 0, "ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16}
    done = plan(tmp_path, capsys, "--budget", "2GiB", "--json", arch="mamba", keys=keys)
    assert done.document["state_bytes"] == 4 * 2 * 4 * (3 * 256 + 16 * 256)
    assert "a recurrent state in 2 layers" in done.stderr
    assert "no KV cache" in done.stderr


def test_parts_of_a_model_count_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(gguf_of("llama", {}))
    words = ["plan", str(first), "--budget", "2GiB", "--json"]
    missing = typed(words, capsys)
    assert missing.code == 23
    assert "m-00002-of-00002.gguf" in missing.stderr
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(bytes(1000))
    assert typed(words, capsys).document["budget"]["model_bytes"] == first.stat().st_size + 1000


@pytest.mark.parametrize("arch", ["deepseek4", "bert"])
def test_a_model_whose_caches_are_not_known_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arch: str
) -> None:
    done = plan(tmp_path, capsys, "--json", arch=arch, keys={})
    assert (done.code, done.document["error"]["class"]) == (23, "ModelError")
    assert arch in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "24"), "no size with a unit"),
        (("--budget", "24G"), "no size with a unit"),
        (("--ctx", "0"), "not a number from 1"),
        (("--parallel", "257"), "257"),
    ],
)
def test_mistakes_on_the_command_line_say_what_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    done = plan(tmp_path, capsys, *words)
    assert done.code == 2
    assert message in done.stderr


def test_more_tokens_than_trained_for_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "was trained for 32768 tokens, not 32769" in plan(tmp_path, capsys, "--ctx", "32769").stderr


def test_a_hint_names_no_option_that_the_command_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("no GGUF file")
    for model in ("nowhere.gguf", str(tmp_path / "text")):
        done = typed(["plan", model, "--json"], capsys)
        assert (done.code, "--model" in done.document["error"]["hint"]) == (23, False)
