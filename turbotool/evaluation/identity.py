"""Which programs, libraries and files an evaluation ran with, by hash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from turbotool.evaluation.cell import digest
from turbotool.programs import kvdivergence
from turbotool.programs.binaries import Binaries

PROGRAMS = ("llama-perplexity", "llama-cli")
STREAMING = kvdivergence.PROGRAM  # which older builds do not have
LIBRARIES = re.compile(r"\.(so(\.[\d.]+)?|dylib|dll|metallib)$")


class FileHashes(Protocol):
    """What knows the sha256 of a file without reading it twice."""

    def sha256(self, path: Path) -> str: ...


def binaries_hash(hashes: FileHashes, binaries: Binaries) -> str:
    """One sha256 over the programs that an evaluation runs and every library beside them.

    Libraries that a program finds in another folder are not seen; those of `turbotool build` lie beside it.
    """
    names = [binaries.path(name) for name in PROGRAMS]
    names += [path for path in [binaries.path(STREAMING)] if path.is_file()]
    names += [path for path in binaries.bin_dir.iterdir() if LIBRARIES.search(path.name) and not path.is_symlink()]
    return digest({path.name: hashes.sha256(path) for path in names})
