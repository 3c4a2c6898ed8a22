"""A model as if it had been read from its file, with the shape of SmolLM2-135M."""

from __future__ import annotations

from pathlib import Path

from turbotool.inputs.model import Model
from turbotool.inputs.shape import KvShape, cache_shape

LAYERS, HEADS_KV, HEAD_DIM, TRAINED_CTX = 30, 3, 64, 8192
SHAPE = KvShape((cache_shape((HEADS_KV,) * LAYERS, HEAD_DIM, HEAD_DIM),), (HEAD_DIM,), (HEAD_DIM,))


def known_model(path: str = "m.gguf", *, head_dim_v: int = HEAD_DIM) -> Model:
    return Model(Path(path), "llama", HEAD_DIM, head_dim_v, TRAINED_CTX, SHAPE)
