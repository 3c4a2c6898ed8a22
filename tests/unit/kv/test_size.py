"""What layers keep, by architecture, and the bytes of it; tests/integration compares both with real programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_model import SHAPE, known_model
from recordings import recorded
from tiny_gguf import gguf_of, write

from turbotool.errors import ModelError
from turbotool.inputs.model import read_model
from turbotool.inputs.shape import CacheShape, KvShape, cache_shape
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import Calibration
from turbotool.kv.effective import parse_effective
from turbotool.kv.serving import LLAMA_SERVER, ONE, Serving, server_command
from turbotool.kv.size import calibration_bytes, cells, expected_mib, kv_bytes, largest_ctx, refusal, state_bytes

F16, MIXED, TURBO = CachePair("f16", "f16"), CachePair("q8_0", "turbo4"), CachePair("turbo4", "turbo4")
GEMMA = KvShape((CacheShape((256,) * 4, (256,) * 4), CacheShape((256,) * 22, (256,) * 22, 512)), (256,), (256,))

# architecture, keys, layers of the cache of all tokens, layers and length of the windows, recurrent layers
LAYERS: list[tuple[str, dict[str, Any], int, int, int | None, int]] = [
    ("llama", {"attention.sliding_window": 512}, 2, 0, None, 0),  # which upstream does not apply
    ("phi3", {"attention.sliding_window": 512}, 2, 0, None, 0),
    ("gemma3", {"block_count": 13, "attention.sliding_window": 512}, 2, 11, 512, 0),
    ("gemma3", {"block_count": 13}, 13, 0, None, 0),
    ("gemma2", {"block_count": 5}, 2, 3, 4096, 0),
    ("gemma2", {"attention.sliding_window": 64, "attention.sliding_window_pattern": [1]}, 1, 1, 64, 0),
    ("cohere2moe", {"block_count": 6, "attention.sliding_window": 128}, 2, 4, 128, 0),
    ("cohere2", {"block_count": 6, "attention.sliding_window": 128}, 1, 5, 128, 0),
    ("cohere2", {"block_count": 6, "attention.sliding_window": 9, "attention.sliding_window_pattern": 2}, 3, 3, 9, 0),
    ("llama4", {"block_count": 4}, 1, 3, 8192, 0),
    ("llama4", {"block_count": 4, "attention.sliding_window": 0}, 4, 0, None, 0),
    ("exaone4", {"block_count": 8, "attention.sliding_window": 128}, 8, 0, None, 0),
    ("exaone4", {"block_count": 64}, 16, 48, 4096, 0),
    ("gemma3n", {"block_count": 22, "attention.sliding_window": 512}, 4, 16, 512, 0),
    (
        "gemma4",
        {
            "block_count": 6,
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": [1, 1, 1, 1, 0, 1],
            "attention.shared_kv_layers": 2,
        },
        0,
        4,
        512,
        0,
    ),
    ("jamba", {"block_count": 4, "attention.head_count_kv": [0, 0, 2, 0]}, 1, 0, None, 3),
    ("lfm2", {"block_count": 3, "attention.head_count_kv": [0, 1, 1], "attention.sliding_window": 64}, 0, 2, 64, 1),
    ("falcon-h1", {}, 2, 0, None, 2),
    ("mamba", {"attention.head_count": 0}, 0, 0, None, 2),
    ("qwen35", {"block_count": 9, "nextn_predict_layers": 1}, 2, 0, None, 6),
    ("qwen35", {"block_count": 3, "attention.recurrent_layers": [0, 1, 0]}, 2, 0, None, 1),
    (
        "nemotron_h",
        {"block_count": 3, "attention.head_count_kv": [0, 2, 0], "feed_forward_length": [0, 0, 9]},
        1,
        0,
        None,
        1,
    ),
    ("glm4moe", {"block_count": 4, "nextn_predict_layers": 1}, 3, 0, None, 0),
    ("nanbeige", {"num_loops": 3}, 6, 0, None, 0),
]


def shape_of(folder: Path, arch: str, keys: dict[str, Any]) -> KvShape:
    return read_model(write(folder, gguf_of(arch, keys))).kv


@pytest.mark.parametrize(("arch", "keys", "whole", "windowed", "window", "recurrent"), LAYERS)
def test_each_architecture_keeps_tokens_in_its_own_layers(
    tmp_path: Path, arch: str, keys: dict[str, Any], whole: int, windowed: int, window: int | None, recurrent: int
) -> None:
    shape = shape_of(tmp_path, arch, keys)
    found = {cache.window: len(cache.k) for cache in shape.caches}
    assert found == {span: count for span, count in ((None, whole), (window, windowed)) if count}
    assert shape.recurrent_layers == recurrent


def test_mla_keeps_one_row_for_both_sides(tmp_path: Path) -> None:
    keys = {"attention.head_count_kv": 1, "attention.key_length": 576, "attention.value_length": 512}
    shape = shape_of(
        tmp_path, "deepseek2", {**keys, "attention.key_length_mla": 192, "attention.value_length_mla": 128}
    )
    assert shape.caches == (CacheShape((576, 576), (0, 0)),)
    assert kv_bytes(shape, TURBO, 256, ONE) == 2 * 256 * 576 // 64 * 34
    assert "one type" in refusal(shape, MIXED)
    assert not refusal(shape, TURBO)


def test_layers_with_windows_may_have_other_heads(tmp_path: Path) -> None:
    keys = {
        "attention.sliding_window": 512,
        "attention.sliding_window_pattern": [1, 0],
        "attention.head_count_kv": [1, 2],
    }
    dims = {"attention.key_length": 128, "attention.value_length": 64, "attention.key_length_swa": 96}
    shape = shape_of(tmp_path, "mimo2", {**keys, **dims})
    assert shape.caches == (CacheShape((256,), (128,)), CacheShape((96,), (64,), 512))
    assert "64 values, which do not divide the 96 of a head of K" in refusal(shape, TURBO)
    assert not refusal(shape, MIXED)


STATES: list[tuple[str, dict[str, Any], int]] = [
    ("mamba", {"ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16}, 3 * 256 + 16 * 256),
    (
        "mamba2",
        {"ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16, "ssm.group_count": 2},
        3 * (256 + 2 * 2 * 16) + 16 * 256,
    ),
    ("rwkv7", {"attention.head_count": 0, "wkv.head_size": 64}, 128 * (2 + 64)),
    ("lfm2", {"attention.head_count_kv": [0, 0], "shortconv.l_cache": 3}, 128 * 2),
    (
        "kimi-linear",
        {"attention.head_count_kv": [0, 0], "ssm.conv_kernel": 4, "kda.head_dim": 128},
        2 * 128 * (9 + 128),
    ),
    ("minimax-01", {"full_attention_interval": 3}, 2 * 64 * 64),
]


@pytest.mark.parametrize(("arch", "keys", "values"), STATES)
def test_recurrent_layers_keep_a_state_of_each_sequence(
    tmp_path: Path, arch: str, keys: dict[str, Any], values: int
) -> None:
    shape = shape_of(tmp_path, arch, keys)
    assert (shape.recurrent_layers, shape.state) == (2, values)
    assert state_bytes(shape, Serving(3, shared=False)) == 3 * 2 * 4 * values


@pytest.mark.parametrize(
    ("arch", "keys", "message"),
    [
        ("gemma4", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 2}, "is no list"),
        ("cohere2", {}, "sliding_window is None"),
        ("glm4moe", {"nextn_predict_layers": 2}, "for drafting"),
        ("nanbeige", {"num_loops": 4096}, "too many"),
        ("jamba", {"attention.head_count_kv": [2, 2, 2]}, "3 values for 2 layers"),
        ("llama", {"attention.key_length": "long"}, "not a number"),
    ],
)
def test_metadata_that_nothing_can_load_is_a_model_error(
    tmp_path: Path, arch: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        shape_of(tmp_path, arch, keys)


def test_a_real_log_reports_the_size_that_is_calculated() -> None:
    caches = parse_effective(recorded("completion.log")).caches
    (found,) = expected_mib(SHAPE, MIXED, caches) or [0.0]
    assert found == pytest.approx(caches[0].mib, abs=0.005)
    assert kv_bytes(SHAPE, MIXED, 512, ONE) == found * 2**20
    assert expected_mib(SHAPE, MIXED, [replace(caches[0], layers=29)]) is None


@pytest.mark.parametrize(
    ("ctx", "serving", "whole", "windows"),
    [
        (1, ONE, 256, 256),
        (300, ONE, 512, 512),
        (8192, ONE, 8192, 1024),  # 512 of the window and 512 of a batch
        (8192, Serving(3, shared=False), 8192, 1024),  # of each sequence
        (8192, LLAMA_SERVER, 8192, 2560),  # four windows in one cache
        (1000, LLAMA_SERVER, 1024, 1024),
    ],
)
def test_cells_are_padded_as_the_programs_pad_them(ctx: int, serving: Serving, whole: int, windows: int) -> None:
    assert [cells(cache, ctx, serving) for cache in GEMMA.caches] == [whole, windows]


@given(st.integers(0, 1 << 34), st.integers(1, 1 << 20), st.sampled_from([ONE, LLAMA_SERVER, Serving(3, shared=False)]))
def test_the_largest_context_fits_and_the_next_one_does_not(budget: int, most: int, serving: Serving) -> None:
    found = largest_ctx(GEMMA, MIXED, serving, budget, most)
    room = budget - calibration_bytes(GEMMA, MIXED)
    assert found == 0 or kv_bytes(GEMMA, MIXED, found, serving) <= room
    assert found == most or kv_bytes(GEMMA, MIXED, found + 1, serving) > room


def test_states_are_in_the_budget_too() -> None:
    shape = replace(SHAPE, recurrent_layers=1, state=1 << 20)
    budget = kv_bytes(shape, F16, 512, ONE) + (4 << 20)
    assert largest_ctx(shape, F16, ONE, budget, 4096) == 512
    assert largest_ctx(shape, F16, ONE, budget - 1, 4096) == 256


def test_the_command_sets_variables_sequences_and_quotes_the_path() -> None:
    model = known_model("some folder/m.gguf").path
    assert server_command(model, MIXED, 100, environment={"LLAMA_ATTN_ROT_K_OVERRIDE": "1"}) == (
        "LLAMA_ATTN_ROT_K_OVERRIDE=1 llama-server -m 'some folder/m.gguf' -c 100 -fa on -ctk q8_0 -ctv turbo4 "
        "--kv-calibration auto"
    )
    assert " -c 300 -np 3 -fa on" in server_command(model, MIXED, 100, Serving(3, shared=False))
    named = Calibration("x y", Path("/a/x y"), "h")
    assert server_command(model, MIXED, 100, calibration=named).endswith("--kv-calibration '/a/x y'")
    assert "calibration" not in server_command(model, MIXED, 100, calibration=None)
    for uncalibrated in (F16, CachePair("f16", "turbo4")):
        assert "calibration" not in server_command(model, uncalibrated, 100)


def test_a_calibration_is_two_floats_for_each_value_of_a_quantized_k() -> None:
    shape = KvShape((cache_shape((2, 2), 64, 128), cache_shape((1,), 64, 128, 512)), (64,), (128,))
    assert calibration_bytes(shape, MIXED) == 2 * 4 * 64 * (2 + 2 + 1)
    assert calibration_bytes(shape, CachePair("f16", "turbo4")) == 0
    assert calibration_bytes(shape, TURBO) == (2 * 4 * 64 + 2560) * (2 + 2 + 1)
    for nearest in (replace(shape, mla=True), replace(shape, heads_k=(64, 512))):
        assert calibration_bytes(nearest, TURBO) == 2 * 4 * 64 * (2 + 2 + 1)
    room = kv_bytes(shape, MIXED, 512, ONE) + calibration_bytes(shape, MIXED)
    assert [largest_ctx(shape, MIXED, ONE, budget, 4096) for budget in (room, room - 1)] == [512, 256]
