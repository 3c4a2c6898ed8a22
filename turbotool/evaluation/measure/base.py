"""Base logits of f16, from which every KLD is measured: their files, and when they may be used."""

from __future__ import annotations

import platform
import struct
from collections.abc import Callable
from pathlib import Path

from turbotool.errors import BinaryFailed
from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.sweep import Corpus, EvalJob, Sweep, most_chunks
from turbotool.kv.cachetype import F16
from turbotool.programs.perplexity import base_bytes, write_base
from turbotool.system.files import MORE_SPACE, need_space, space_guard
from turbotool.system.machine import kin, read_machine

BASE_MAGIC = b"_logits_"
BASE_HEADER = struct.Struct("<8sIii")  # magic, tokens a chunk, vocabulary, chunks


def base_prefix(sweep: Sweep, corpus: Corpus) -> str:
    """How the names of all files begin that hold base logits of a text, or belong to them."""
    return sweep.key(EvalJob(corpus, Configuration(F16)))[:16]


def base_path(sweep: Sweep, corpus: Corpus, folder: Path) -> Path:
    """Where this machine has its base logits of a text in a folder that others may share.

    Only machines that compute the same may use them: else KLD would measure how machines differ. What a GPU computes is
    known of this machine alone.
    """
    where = kin(read_machine()) if sweep.runner.binaries.backend == "cpu" else platform.node()
    return folder / f"{base_prefix(sweep, corpus)}-{where}.logits"


def make_base(sweep: Sweep, corpus: Corpus, path: Path) -> float:
    """Write the base logits, under their name only when complete; the seconds that it took.

    Raises NoSpace, before anything runs if the disk cannot hold them.
    """
    most = most_chunks(corpus, sweep)
    if sweep.model.n_vocab:
        needed = base_bytes(sweep.model.n_vocab, sweep.ctx, most)
        need_space(path.parent, needed, f"{most} chunks of base logits", f"{MORE_SPACE}, or use --logits streamed")
    part = path.with_suffix(".part")
    try:
        with space_guard(path):
            base = write_base(sweep.runner, sweep.model, sweep.text(corpus), F16, part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if not is_base(path, sweep):  # a stream that fills the disk fails without a word
        try:
            missing = base_bytes(sweep.model.n_vocab, sweep.ctx, base.chunks) - path.stat().st_size
            need_space(path.parent, missing, "the rest of the base logits")
        finally:
            path.unlink(missing_ok=True)
        raise BinaryFailed("llama-perplexity wrote incomplete base logits", how="no result")
    return base.run.done.seconds


def is_base(path: Path, sweep: Sweep) -> bool:
    """Whether complete base logits of this context are there."""
    try:
        with path.open("rb") as stream:
            magic, ctx, vocabulary, chunks = BASE_HEADER.unpack(stream.read(BASE_HEADER.size))
        size = path.stat().st_size
    except (OSError, struct.error):
        return False
    whole = size == base_bytes(vocabulary, ctx, chunks) if vocabulary > 0 and chunks > 0 else False
    return bool(magic == BASE_MAGIC and ctx == sweep.ctx and 0 < chunks <= sweep.chunks and whole)


def remove_bases(folder: Path, which: Callable[[str], bool]) -> None:
    """Remove base logits, and what belongs to them, by name."""
    for path in (*folder.glob("*.logits"), *folder.glob("*.part"), *folder.glob("*.base-lock")):
        if which(path.name):
            path.unlink(missing_ok=True)
