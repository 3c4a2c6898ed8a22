"""Fuzz one parser with atheris: `python tests/fuzz/fuzz.py archive --seconds 600`.

Seconds are of CPU time, so that a busy machine does the same work. New inputs go to build/fuzz/TARGET, and the input
that broke something, if one did, beside it. What is worth keeping, small and new, is copied from there to the corpus.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import atheris

MAX_BYTES = 4096
SLOWEST = 2.0  # CPU seconds that a single input may take
HANG = 1800  # seconds after which an input is taken to hang
MEMORY = 1024  # MiB
BLOCK = 512  # bytes of a tar header

with atheris.instrument_imports(include=["turbotool", "tarfile", "zipfile", "gzip"]):
    from fuzz_targets import CORPUS, TARGETS


def mutate_archive(data: bytes, max_size: int, _seed: int) -> bytes:
    """A mutation with the checksums of its tar headers put right, without which nothing behind them is reached."""
    found = bytearray(atheris.Mutate(data, max_size))
    for start in range(0, len(found) - BLOCK + 1, BLOCK):
        header = found[start : start + BLOCK]
        if header[257:262] == b"ustar":
            total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
            found[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(found)


def timed(name: str, seconds: float) -> Callable[[bytes], None]:
    """The target, which also breaks when one input is slow, and ends the process well when its time is up."""
    target, runs = TARGETS[name], count(1)

    def run(data: bytes) -> None:
        began = time.process_time()
        target(data)
        now = time.process_time()
        assert now - began < SLOWEST, f"{now - began:.0f} s for {len(data)} bytes"
        number = next(runs)
        if now > seconds:
            print(f"{name}: {number} executions in {now:.0f} s of CPU time, nothing found", flush=True)
            os._exit(0)  # anything else counts as a finding

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60, help="of CPU time (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers; 0 for another one each time")
    parser.add_argument("--work", type=Path, default=Path("build", "fuzz"), help="where new inputs go")
    given = parser.parse_args()
    work, kept = given.work / given.target, CORPUS / given.target
    work.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_len={MAX_BYTES}", f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={work}-"]
    words = [sys.argv[0], *flags, f"-seed={given.seed}", str(work), str(kept)]
    mutator = {"custom_mutator": mutate_archive} if given.target == "archive" else {}
    if given.target == "log":  # its stand-in for a compiled pattern lacks what tarfile calls
        atheris.enabled_hooks.add("RegEx")
    atheris.Setup(words, timed(given.target, given.seconds), **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
