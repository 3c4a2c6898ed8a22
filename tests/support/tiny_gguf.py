"""Model files of a few hundred bytes: a header as a real one has it, and one small tensor."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

F16_TYPE = 1


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def key_u32(name: str, value: int) -> bytes:
    return text(name) + struct.pack("<II", 4, value)


def key_array(name: str, values: list[int]) -> bytes:
    return text(name) + struct.pack("<IIQ", 9, 4, len(values)) + struct.pack(f"<{len(values)}I", *values)


def key_text(name: str, value: str) -> bytes:
    return text(name) + struct.pack("<I", 8) + text(value)


def gguf(kv_heads: bytes = b"", *, with_data: bool = True) -> bytes:
    keys = [
        key_u32("llama.block_count", 2),
        key_u32("llama.embedding_length", 128),
        key_u32("llama.context_length", 2048),
        key_u32("llama.attention.head_count", 2),
        kv_heads or key_u32("llama.attention.head_count_kv", 1),
    ]
    return _file("llama", keys, with_data=with_data)


def gguf_of(arch: str, values: Mapping[str, int | list[int] | str], tensors: Sequence[str] = ()) -> bytes:
    """A model of any architecture by its keys; what they leave out is that of two layers with two heads of 64.

    `tensors` are the names of more of them.
    """
    default = {"block_count": 2, "embedding_length": 128, "context_length": 2048, "attention.head_count": 2}
    return _file(arch, [_key(f"{arch}.{name}", value) for name, value in {**default, **values}.items()], tensors)


def _key(name: str, value: int | list[int] | str) -> bytes:
    if isinstance(value, list):
        return key_array(name, value)
    return key_text(name, value) if isinstance(value, str) else key_u32(name, value)


def _file(arch: str, keys: list[bytes], more: Sequence[str] = (), *, with_data: bool = True) -> bytes:
    keys = [key_text("general.architecture", arch), *keys]
    tensor = text("output.weight") + struct.pack("<IQQIQ", 2, 64, 4, F16_TYPE, 0)
    tensor += b"".join(text(name) + struct.pack("<IQIQ", 1, 64, F16_TYPE, 0) for name in more)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1 + len(more), len(keys)) + b"".join(keys) + tensor
    head += bytes(-len(head) % 32)
    return head + (bytes(64 * 4 * 2) if with_data else b"")


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path
