"""One test-attention-speed process: what it is asked, and the lines that it prints.

The program is `patches/overlay/tests/test-attention-speed.cpp`: attention over a cache on the CPU, without a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from turbotool.errors import BinaryFailed, UsageMistake
from turbotool.kv.cachetype import CachePair
from turbotool.programs.runner import Runner, last_lines
from turbotool.system.lines import whole_lines

PROGRAM = "test-attention-speed"
TIMEOUT = 3600.0  # seconds
HEAD = re.compile(r"[1-9]\d{0,4}(?:/[1-9]\d{0,4})?")


@dataclass(frozen=True)
class AttentionSettings:
    """What is timed: caches, head sizes (`64`, or `576/512` of K and V), query heads of a KV head, tokens that ask at
    once, cached tokens, threads; `heads_kv` KV heads, `repeats` of each in a process, caches of `mib` MiB.
    """

    pairs: tuple[CachePair, ...]
    heads: tuple[str, ...]
    groups: tuple[int, ...]
    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    threads: tuple[int, ...]
    heads_kv: int
    repeats: int
    mib: int

    @property
    def words(self) -> list[str]:
        lists: dict[str, Sequence[object]] = {
            "--types": [pair.short for pair in self.pairs],
            "--heads": self.heads,
            "--groups": self.groups,
            "--tokens": self.tokens,
            "--depths": self.depths,
            "--threads": self.threads,
            "--heads-kv": (self.heads_kv,),
            "--rounds": (self.repeats,),
            "--mib": (self.mib,),
        }
        return [word for name, values in lists.items() for word in (name, ",".join(map(str, values)))]


@dataclass(frozen=True)
class AttentionShape:
    """One shape of attention on so many threads."""

    head: str
    group: int
    tokens: int
    depth: int
    threads: int


class AttentionTiming(msgspec.Struct, frozen=True):
    """One line. Times are ns for each cell and KV head, `read_ns` what reading the bytes of the cells alone takes."""

    types: str
    head: str
    group: int
    tokens: int
    depth: int
    threads: int
    ns_min: float
    ns_median: float
    read_ns_median: float

    @property
    def shape(self) -> AttentionShape:
        return AttentionShape(self.head, self.group, self.tokens, self.depth, self.threads)


def parse_heads(text: str) -> tuple[str, ...]:
    """`64,128,576/512`, each once. Raises UsageMistake."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if not HEAD.fullmatch(word):
            raise UsageMistake(f"'{word}' is no size of a head", hint="as in --head 64,128,576/512 (K/V)")
    return words


def time_attention(runner: Runner, settings: AttentionSettings) -> tuple[AttentionTiming, ...]:
    """Run it once. Raises BinaryFailed if it fails or prints what is no timing, ToolMissing, ToolFailed on timeout."""
    done = runner.good(PROGRAM, settings.words, timeout=TIMEOUT)
    try:
        lines = [line for line in whole_lines(done.output) if line.startswith("{")]
        found = tuple(msgspec.json.decode(line, type=AttentionTiming) for line in lines)
    except msgspec.MsgspecError as error:
        raise BinaryFailed(f"{PROGRAM} printed a line that is no timing: {error}", how="no timing") from error
    if not found:
        raise BinaryFailed(f"{PROGRAM} printed no timing\n{last_lines(done.output)}", how="no timing")
    return found
