"""What a model's header says of its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import gguf_of, key_text, write

from turbotool.inputs.model import CALIBRATED, KeyTraits, read_model


@pytest.mark.parametrize(
    ("arch", "tensors", "traits"),
    [
        ("llama", (), KeyTraits()),
        ("llama", ("blk.0.attn_q.bias", "blk.0.attn_v.bias", "blk.0.attn_k_norm.weight"), KeyTraits()),
        ("qwen2", ("blk.0.attn_q.bias", "blk.0.attn_k.bias"), KeyTraits(bias=True)),
        ("gpt2", ("blk.1.attn_qkv.bias",), KeyTraits(bias=True)),
        ("gpt-oss", ("blk.1.attn_k.bias", "blk.1.attn_sinks.weight"), KeyTraits(bias=True, centred=False)),
        ("gemma2", (), KeyTraits(centred=False)),
    ],
)
def test_what_its_keys_have(tmp_path: Path, arch: str, tensors: tuple[str, ...], traits: KeyTraits) -> None:
    windows = {"attention.sliding_window": 128, "attention.head_count_kv": 1}
    assert read_model(write(tmp_path, gguf_of(arch, windows, tensors))).keys == traits


def test_a_calibration_in_the_file_is_seen(tmp_path: Path) -> None:
    plain = gguf_of("llama", {"attention.head_count_kv": 1})
    assert not read_model(write(tmp_path, plain)).keys.embedded
    whole = gguf_of("llama", {"attention.head_count_kv": 1, "x": "y"}).replace(
        key_text("llama.x", "y"), key_text(CALIBRATED, "y")
    )
    end = len(whole) % 32
    assert read_model(write(tmp_path, whole + bytes(32 - end))).keys.embedded
