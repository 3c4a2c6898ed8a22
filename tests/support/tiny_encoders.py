"""Tiny models of random weights with encoders: BERT, which keeps no cache, and T5, whose attention has a bias on KQ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

WIDTH, HIDDEN, LAYERS, POSITIONS = 64, 128, 2, 512
MEAN, RANK = 1, 4  # upstream's numbers of ways to pool
SEED = 7
SPECIAL, BYTES, WORDS = (
    ["<unk>", "<s>", "</s>"],
    [f"<0x{n:02X}>" for n in range(256)],
    [f"\u2581{n}" for n in range(250)],
)
VOCABULARY = len(SPECIAL) + len(BYTES) + len(WORDS)
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # upstream's kinds of tokens


def write_bert(path: Path, pooling: int) -> Path:
    """It embeds or, with RANK, judges."""
    blocks = {"attn_output": (WIDTH, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    blocks |= {f"attn_{name}": (WIDTH, WIDTH) for name in "qkv"}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, WIDTH),
        "position_embd.weight": (POSITIONS, WIDTH),
        "token_types.weight": (2, WIDTH),
        **_norm("token_embd_norm"),
        **_linear("cls", (WIDTH, WIDTH)),
        **_linear("cls.output", (1, WIDTH)),
    }
    for layer in range(LAYERS):
        for name, shape in blocks.items():
            shapes |= _linear(f"blk.{layer}.{name}", shape)
        shapes |= _norm(f"blk.{layer}.attn_output_norm") | _norm(f"blk.{layer}.layer_output_norm")
    keys = {"attention.layer_norm_epsilon": 1e-5, "attention.causal": False, "pooling_type": pooling}
    return _write(path, "bert", keys, shapes)


def write_t5(path: Path) -> Path:
    """Its decoder keeps a cache."""
    norms, squares = ["attn_norm", "ffn_norm"], [f"attn_{name}" for name in "qkvo"]
    parts = {
        "enc": (norms, squares),
        "dec": ([*norms, "cross_attn_norm"], [*squares, *(f"cross_{name}" for name in squares)]),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, WIDTH)}
    for part, (vectors, matrices) in parts.items():
        shapes[f"{part}.output_norm.weight"] = (WIDTH,)
        for layer in range(LAYERS):
            block = f"{part}.blk.{layer}"
            shapes |= {f"{block}.{name}.weight": (WIDTH,) for name in vectors}
            shapes |= {f"{block}.{name}.weight": (WIDTH, WIDTH) for name in matrices}
            shapes |= {f"{block}.ffn_up.weight": (HIDDEN, WIDTH), f"{block}.ffn_down.weight": (WIDTH, HIDDEN)}
            shapes[f"{block}.attn_rel_b.weight"] = (32, 1)
    keys = {
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.relative_buckets_count": 32,
        "decoder_start_token_id": 0,
    }
    return _write(path, "t5", keys, shapes)


def _linear(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return _linear(name, (WIDTH,))


def _write(path: Path, arch: str, keys: Mapping[str, float], shapes: Mapping[str, tuple[int, ...]]) -> Path:
    import gguf
    import numpy as np

    random = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(path, arch)
    sizes = {"context_length": POSITIONS, "embedding_length": WIDTH, "block_count": LAYERS}
    sizes |= {"feed_forward_length": HIDDEN, "attention.head_count": 1, "vocab_size": VOCABULARY}
    for name, value in {**sizes, **keys}.items():
        kind = next(k for k in (bool, int, float) if isinstance(value, k))
        types = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
        writer.add_key_value(f"{arch}.{name}", value, types[kind])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *BYTES, *WORDS])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL, *[BYTE] * len(BYTES), *[NORMAL] * len(WORDS)])
    writer.add_token_type_count(2)
    for name, shape in shapes.items():
        middle = 1.0 if name.endswith("norm.weight") else 0.0
        writer.add_tensor(name, random.normal(middle, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
