"""The header of a GGUF file, read with every count and length checked against the bytes that are really there.

A model file comes from anywhere, so no number in it is trusted: counts are bounded, strings and arrays must fit in the
file, the header as a whole must fit in MAX_HEADER_BYTES, and the last tensor must end inside the file. Format:
upstream's `ggml/include/gguf.h`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from turbotool.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ARRAY = 1 << 22
MAX_KEY_BYTES = 1 << 16
MAX_DIMENSIONS = 4
KEPT_ARRAY = 4096  # longer arrays (vocabularies) are walked over, not kept
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
SCALARS = {
    UINT8: "<B",
    INT8: "<b",
    UINT16: "<H",
    INT16: "<h",
    UINT32: "<I",
    INT32: "<i",
    FLOAT32: "<f",
    BOOL: "<?",
    UINT64: "<Q",
    INT64: "<q",
    FLOAT64: "<d",
}
Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: shape in ggml order (fastest dimension first), ggml type id, byte offset in the data section."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True)
class Header:
    """Version, metadata (arrays longer than KEPT_ARRAY left out), tensors, and where the data begins (bytes)."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int


class _Cursor:
    """Reads forward through the header; every read is checked against the file's size and the header bound first."""

    def __init__(self, stream: BinaryIO, size: int, path: Path) -> None:
        self.stream = stream
        self.size = size
        self.path = path
        self.at = 0

    def fail(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: {what} (at byte {self.at})", hint="download the model again, or name another")

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise self.fail(f"truncated: {what} needs {count} bytes, the file has {self.size - self.at} more")
        if count > MAX_HEADER_BYTES - self.at:
            raise self.fail(f"the header is larger than {MAX_HEADER_BYTES >> 20} MiB at {what}")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self.stream.read(count)
        if len(data) != count:
            raise self.fail(f"truncated while reading {what}")
        self.at += count
        return data

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        self.stream.seek(count, 1)
        self.at += count

    def number(self, pattern: str, what: str) -> int:
        (value,) = struct.unpack(pattern, self.take(struct.calcsize(pattern), what))
        return int(value)

    def count(self, bound: int, what: str) -> int:
        value = self.number("<Q", what)
        if value > bound:
            raise self.fail(f"{what} is {value}, more than {bound}")
        return value

    def text(self, what: str, bound: int = MAX_HEADER_BYTES) -> str:
        return self.take(self.count(bound, f"length of {what}"), what).decode("utf-8", errors="replace")

    def skip_text(self, what: str) -> None:
        self.skip(self.count(MAX_HEADER_BYTES, f"length of {what}"), what)


def read_header(path: Path) -> Header:
    """Read and check the header of the GGUF file at `path`.

    Raises ModelError if the file is missing, not GGUF, of an unknown version, inconsistent or truncated (also when only
    tensor data is missing). Time and memory are bounded whatever the file says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _read(_Cursor(stream, size, path))
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}", hint="name a GGUF file") from error


def _read(cursor: _Cursor) -> Header:
    if cursor.size < len(MAGIC) or cursor.take(len(MAGIC), "magic") != MAGIC:
        raise cursor.fail("not a GGUF file: it does not begin with GGUF")
    version = cursor.number("<I", "version")
    if version not in VERSIONS:
        raise cursor.fail(f"GGUF version {version} is not supported (known: {', '.join(map(str, VERSIONS))})")
    n_tensors = cursor.count(MAX_TENSORS, "number of tensors")
    n_keys = cursor.count(MAX_KEYS, "number of metadata keys")
    metadata: dict[str, Value] = {}
    for _ in range(n_keys):
        key = cursor.text("metadata key", MAX_KEY_BYTES)
        value = _value(cursor, key)
        if value is not None:
            metadata[key] = value
    tensors = tuple(_tensor(cursor) for _ in range(n_tensors))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {alignment}, not a power of two")
    header = Header(version, metadata, tensors, -(-cursor.at // alignment) * alignment)
    _check_extent(header, cursor)
    return header


def _value(cursor: _Cursor, key: str) -> Value | None:
    kind = cursor.number("<I", f"type of {key}")
    return _array(cursor, key) if kind == ARRAY else _scalar(cursor, kind, key)


def _scalar(cursor: _Cursor, kind: int, key: str) -> Scalar:
    if kind == STRING:
        return cursor.text(key)
    if kind not in SCALARS:
        raise cursor.fail(f"{key} has unknown type {kind}")
    pattern = SCALARS[kind]
    (value,) = struct.unpack(pattern, cursor.take(struct.calcsize(pattern), key))
    return cast(Scalar, value)


def _array(cursor: _Cursor, key: str) -> tuple[Scalar, ...] | None:
    kind = cursor.number("<I", f"element type of {key}")
    count = cursor.count(MAX_ARRAY, f"length of {key}")
    if kind == STRING:
        cursor.need(8 * count, key)
        if count > KEPT_ARRAY:
            for _ in range(count):
                cursor.skip_text(key)
            return None
        return tuple(cursor.text(key) for _ in range(count))
    if kind not in SCALARS:  # upstream does not nest arrays either
        raise cursor.fail(f"{key} is an array of unknown type {kind}")
    width = struct.calcsize(SCALARS[kind])
    if count > KEPT_ARRAY:
        cursor.skip(width * count, key)
        return None
    return struct.unpack(f"<{count}{SCALARS[kind][1]}", cursor.take(width * count, key))


def _tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.text("tensor name", MAX_KEY_BYTES)
    dimensions = cursor.number("<I", f"dimensions of {name}")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.fail(f"tensor {name} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    shape = tuple(cursor.number("<Q", f"shape of {name}") for _ in range(dimensions))
    return TensorInfo(name, shape, cursor.number("<I", f"type of {name}"), cursor.number("<Q", f"offset of {name}"))


def _check_extent(header: Header, cursor: _Cursor) -> None:
    for tensor in header.tensors:
        end = header.data_offset + tensor.offset + tensor_bytes(tensor)
        if end > cursor.size:
            raise ModelError(
                f"{cursor.path}: truncated: tensor {tensor.name} ends at byte {end}, the file has {cursor.size}",
                hint="download the model again, or name another",
            )


def tensor_bytes(tensor: TensorInfo) -> int:
    """Bytes of a tensor's data; 0 for a type that the `gguf` package does not know (its extent cannot be checked)."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        values, width = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type_id)]
    except (KeyError, ValueError):
        return 0
    return math.prod(tensor.shape) // int(values) * int(width)
