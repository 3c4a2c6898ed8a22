"""A copy of a model with biases in K: nothing else differs, and they are where RoPE turns least."""

from __future__ import annotations

from pathlib import Path

import pytest

from turbotool.errors import ModelError
from turbotool.inputs.biased import CHANNELS, CONSTANT, write_biased
from turbotool.inputs.gguf import read_header
from turbotool.inputs.synthetic import Shape, write_model

gguf = pytest.importorskip("gguf")

PLAIN = Shape("llama", layers=2, heads=3, head_dim=32)


def tensors(path: Path) -> dict[str, bytes]:
    return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(path).tensors}


def test_only_biases_of_k_are_added(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.gguf", PLAIN)
    copy = write_biased(model, tmp_path / "biased.gguf", PLAIN.head_dim)
    before, after = tensors(model), tensors(copy)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {f"blk.{layer}.attn_k.bias" for layer in range(PLAIN.layers)}
    assert read_header(copy).metadata == read_header(model).metadata


def test_each_head_has_its_constants_in_the_last_channels(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.gguf", PLAIN)
    copy = write_biased(model, tmp_path / "biased.gguf", PLAIN.head_dim)
    (found,) = [one.data for one in gguf.GGUFReader(copy).tensors if one.name == "blk.1.attn_k.bias"]
    heads = found.reshape(PLAIN.heads, PLAIN.head_dim)
    assert abs(heads[:, -CHANNELS:]).tolist() == [[CONSTANT] * CHANNELS] * PLAIN.heads
    assert not heads[:, :-CHANNELS].any()
    assert (heads[:, -CHANNELS:] < 0).any()
    assert (heads[:, -CHANNELS:] > 0).any()


def test_a_model_with_biases_or_fused_matrices_is_refused(tmp_path: Path) -> None:
    biased = write_biased(write_model(tmp_path / "m.gguf", PLAIN), tmp_path / "biased.gguf", PLAIN.head_dim)
    fused = write_model(tmp_path / "fused.gguf", Shape("phi3", layers=1, heads=1, head_dim=64))
    for model in (biased, fused):
        with pytest.raises(ModelError, match="no K that biases can be added to"):
            write_biased(model, tmp_path / "copy.gguf", PLAIN.head_dim)
