"""Tiny models with random weights, for what the default model cannot show: other head sizes, other architectures.

They are written with the gguf package on the spot, a few hundred kilobytes each; their text is noise, so only logs,
exit statuses and graphs are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SEED = 7
VOCABULARY = 256


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder: `head_dim` values a head, `heads` query and key-value heads, `layers` blocks."""

    arch: str  # llama or phi3
    layers: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def write_model(path: Path, shape: Shape) -> Path:
    """Write a random-weight model of that shape. The vocabulary is upstream's own test tokenizer: no text files."""
    import gguf
    import numpy as np

    random = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(2 * shape.width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("test")
    writer.add_token_list([f"tok_{number}" for number in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    for name, rows in _tensors(shape):
        width = 2 * shape.width if name.endswith("ffn_down.weight") else shape.width
        size = (width,) if rows == 0 else (rows, width)
        writer.add_tensor(name, random.normal(0.0, 0.05, size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(shape: Shape) -> list[tuple[str, int]]:
    """(name, rows) of every weight; 0 rows means a vector."""
    width, hidden = shape.width, 2 * shape.width
    block = [("attn_norm", 0), ("attn_output", width), ("ffn_norm", 0), ("ffn_down", width)]
    if shape.arch == "phi3":  # query, key and value in one matrix, gate and up in another: six tensors a block
        block += [("attn_qkv", 3 * width), ("ffn_up", 2 * hidden)]
    else:
        block += [("attn_q", width), ("attn_k", width), ("attn_v", width), ("ffn_gate", hidden), ("ffn_up", hidden)]
    tensors = [("token_embd.weight", VOCABULARY), ("output_norm.weight", 0), ("output.weight", VOCABULARY)]
    return tensors + [(f"blk.{layer}.{name}.weight", rows) for layer in range(shape.layers) for name, rows in block]
