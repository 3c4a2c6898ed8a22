"""SHA-256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from turbotool.errors import HashMismatch


def sha256_file(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def check_sha256(path: Path, wanted: str) -> None:
    """Raise HashMismatch, naming both values, unless the file has that sha256."""
    got = sha256_file(path)
    if got != wanted:
        hint = "get the file again; if the new one is meant: turbotool vendor --relock"
        raise HashMismatch(f"{path} has sha256 {got}, locked is {wanted}", hint=hint)
