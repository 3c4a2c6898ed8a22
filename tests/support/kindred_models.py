"""Copies of the default model with the metadata of its relatives: what they share they compute as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS, HEADS, KV_HEADS, WIDTH, HEAD_DIM = 30, 9, 3, 576, 64  # of the default model
NO_SINK = -1e9  # a logit that no softmax sees
TYPICAL = {"attn_q_norm": 1.0, "attn_k_norm": 1.0}


def windowed(model: Path, copy: Path, window: int) -> Path:
    """Every second layer sees so many tokens, as granite's do, and is as wide as the model's for shorter texts."""
    import numpy as np

    from turbotool.inputs.copied import write_copy

    keys: dict[str, object] = {
        ".attention.sliding_window": window,
        ".attention.sliding_window_pattern": [layer % 2 == 0 for layer in range(LAYERS)],
        ".deepstack_mapping": [-1] * LAYERS,
        ".logit_scale": 1.0,
    }
    sinks = {f"blk.{layer}.attn_sinks.weight": np.full(HEADS, NO_SINK, np.float32) for layer in range(LAYERS)}
    return write_copy(model, copy, arch="granite_swa", keys=keys, tensors=sinks)


def two_sided(model: Path, copy: Path) -> Path:
    """A token sees those that follow it, as in models that only embed: there is nothing to keep in a cache."""
    from turbotool.inputs.copied import write_copy

    return write_copy(model, copy, arch="llama-embed", keys={".attention.causal": False, ".pooling_type": 1})


def ranking(model: Path, copy: Path) -> Path:
    """A reranker like Qwen3's: it reads query and document, and the rows of " yes" and " no" say what it thinks."""
    import gguf
    import numpy as np

    from turbotool.inputs.copied import write_copy

    read = gguf.GGUFReader(model)
    words = read.fields["tokenizer.ggml.tokens"].contents()
    embedding = next(tensor for tensor in read.tensors if tensor.name == "token_embd.weight")
    rows = embedding.data[[words.index("Ġyes"), words.index("Ġno")]]
    tensors = {"cls.output.weight": gguf.quants.dequantize(rows, embedding.tensor_type).astype(np.float32)}
    for layer in range(LAYERS):
        for name, size in TYPICAL.items():
            tensors[f"blk.{layer}.{name}.weight"] = np.full(HEAD_DIM, size, np.float32)
    keys: dict[str, object] = {
        ".classifier.output_labels": ["yes", "no"],
        ".pooling_type": 4,
        "tokenizer.chat_template.rerank": "Query: {query}\nDocument: {document}\nIs it an answer? Say yes or no:",
    }
    return write_copy(model, copy, arch="qwen3", keys=keys, tensors=tensors, change=_side_by_side)


def _side_by_side(name: str, data: Any) -> Any:
    """The rows of Q and K as NEOX's RoPE pairs them: the halves of a head, not its neighbours."""
    if not name.endswith((".attn_q.weight", ".attn_k.weight")):
        return data
    heads = len(data) // HEAD_DIM
    return data.reshape(heads, HEAD_DIM // 2, 2, -1).swapaxes(1, 2).reshape(data.shape)
