"""The model that proofs run on: the locked default, or any GGUF file by path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from turbotool.errors import ModelError
from turbotool.inputs.gguf import Header, read_header
from turbotool.inputs.metadata import OTHER_MODEL, Metadata
from turbotool.inputs.shape import KvShape, head_dims, read_shape

PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
KEY_BIAS = re.compile(r"blk\.\d+\.attn_(?:k|qkv)\.bias")
SINKS = re.compile(r"blk\.\d+\.attn_sinks\.weight")
CAPS_LOGITS = ("gemma2",)  # whose `attn_soft_cap` is set in upstream's `src/models`
CALIBRATED = "kv_calibration.version"  # a key of a file that holds its own calibration


@dataclass(frozen=True)
class KeyTraits:
    """What decides how much a quantized K loses: whether it has a bias, and what a calibration may do about it.

    With sinks in the attention, or capped logits, a calibration cannot take the mean of K away. `embedded`: the file
    holds its calibration.
    """

    bias: bool = False
    centred: bool = True
    embedded: bool = False


@dataclass(frozen=True)
class Model:
    """A GGUF file whose header was read and checked; `kv` is what its layers keep of the tokens they have seen.

    Dimensions are in values per head. `n_vocab` is how many tokens the output layer knows, 0 if the file does not say.
    """

    path: Path
    arch: str
    head_dim_k: int
    head_dim_v: int
    n_ctx_train: int
    kv: KvShape
    is_default: bool = False
    n_vocab: int = 0
    keys: KeyTraits = field(default_factory=KeyTraits)


def read_model(path: Path, *, is_default: bool = False) -> Model:
    """The model at `path`. Raises ModelError if it is missing, truncated, not GGUF, or lacks what a KV cache needs."""
    header = read_header(path)
    arch = header.metadata.get("general.architecture")
    if not isinstance(arch, str) or not arch:
        raise ModelError(f"{path}: no general.architecture in the metadata", hint=OTHER_MODEL)
    meta = Metadata(header, path, arch)
    head_k, head_v = head_dims(meta)
    return Model(
        path,
        arch,
        head_k,
        head_v,
        meta.integer("context_length"),
        read_shape(meta),
        is_default=is_default,
        n_vocab=_vocabulary(header),
        keys=_keys(header, arch),
    )


def model_parts(path: Path) -> list[Path]:
    """The files of a model: of one in parts (`NAME-00001-of-00003.gguf`) all of them, whether they are there or not."""
    match = PART.fullmatch(path.name)
    if not match:
        return [path]
    return [path.with_name(f"{match[1]}-{n:05d}-of-{match[2]}.gguf") for n in range(1, int(match[2]) + 1)] or [path]


def weight_bytes(path: Path) -> int:
    """Size of a model's files. Raises ModelError."""
    try:
        return sum(part.stat().st_size for part in model_parts(path))
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}", hint="download all parts") from error


def link_model(path: Path, folder: Path) -> Path:
    """The same model in a folder that holds nothing else of it, such as a calibration beside it."""
    for part in model_parts(path):
        there = part.resolve()
        try:
            os.link(there, folder / part.name)  # a symbolic link takes a privilege on Windows
        except OSError:
            (folder / part.name).symlink_to(there)
    return folder / path.name


def _vocabulary(header: Header) -> int:
    """Rows of the output layer, or of the embedding where it serves as one; the file's list of tokens is not kept."""
    rows = {tensor.name: tensor.shape[1] for tensor in header.tensors if len(tensor.shape) > 1}
    return rows.get("output.weight") or rows.get("token_embd.weight") or 0


def _keys(header: Header, arch: str) -> KeyTraits:
    names = [tensor.name for tensor in header.tensors]
    return KeyTraits(
        bias=any(map(KEY_BIAS.fullmatch, names)),
        centred=arch not in CAPS_LOGITS and not any(map(SINKS.fullmatch, names)),
        embedded=CALIBRATED in header.metadata,
    )
