"""What a model's header says of its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import gguf_of, key_text, write

from turbotool.inputs.model import CALIBRATED, KeyTraits, link_model, read_model


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


@pytest.mark.parametrize("same_disk", [True, False])
def test_a_model_in_parts_is_linked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_disk: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    if not same_disk:
        monkeypatch.setattr("os.link", refuse)
    parts = [tmp_path / f"model-{n:05d}-of-00002.gguf" for n in (1, 2)]
    for part in parts:
        part.write_text(part.name)
    (tmp_path / "model-00001-of-00002.kvcal.gguf").touch()
    folder = tmp_path / "linked"
    folder.mkdir()
    assert link_model(parts[0], folder) == folder / parts[0].name
    assert {one.name: one.read_text() for one in folder.iterdir()} == {part.name: part.name for part in parts}
    assert (folder / parts[0].name).is_symlink() != same_disk
