"""A copy of a model with large constants in its keys, as some model families have them.

The constants are biases of K in the channels that RoPE turns least, so that they are nearly the same for every
position: softmax does not see them, and the copy computes what the model computes. What is left of K in a block of few
bits is a different matter.
"""

from __future__ import annotations

from pathlib import Path

from turbotool.errors import ModelError
from turbotool.inputs.copied import write_copy

CONSTANT = 100.0  # the default model's own keys are of size 1 to 10
CHANNELS = 6  # of each head, the last: three pairs, which turn by less than .02 over 512 positions
SEED = 7


def write_biased(model: Path, copy: Path, head_dim: int) -> Path:
    """Write a copy of a llama model whose K has biases of plus or minus CONSTANT in the last CHANNELS of each head.

    Raises ModelError if the model has biases of its own or keeps K with Q and V in one matrix.
    """
    import gguf
    import numpy as np

    read = gguf.GGUFReader(model)
    random = np.random.default_rng(SEED)
    biases = {}
    for tensor in read.tensors:
        if tensor.name.endswith(".attn_k.weight"):
            rows = np.zeros((int(tensor.shape[1]) // head_dim, head_dim), dtype=np.float32)
            rows[:, -CHANNELS:] = random.choice([-CONSTANT, CONSTANT], (len(rows), CHANNELS))
            biases[tensor.name.replace("weight", "bias")] = rows.reshape(-1)
    if not biases or any(tensor.name in biases for tensor in read.tensors):
        raise ModelError(f"{model} has no K that biases can be added to")
    return write_copy(model, copy, arch="llama", tensors=biases)
