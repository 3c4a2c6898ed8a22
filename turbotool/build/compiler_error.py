"""The first error in the output of CMake, a compiler or a linker: its file and line, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_MESSAGE = 400
_PATH = r"(?:[A-Za-z]:)?[^\s:][^:\n]*?"
_LINE = r"(?P<line>\d{1,9})"
_LD = r"\S{0,1024}ld[\w.-]{0,64}"  # bounded: a long line of nothing but ld takes time that grows with its square
# In this order: CMake, gcc and clang, nvcc and MSVC, MSVC's linker, GNU-like linkers, Apple's linker, any other.
_FORMATS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"^CMake Error at (?P<file>[^\n]+?):{_LINE} \([^\n]*\):\n"
        r"(?P<message>(?:[ \t]*\n)*[ \t]+[^\n]+(?:\n[ \t]+\S[^\n]*)*)",
        r"^CMake Error(?: in (?P<file>[^\n:]+))?:\s*(?P<message>[^\n]+)",
        rf"^(?P<file>{_PATH}):{_LINE}:(?:\d+:)? (?:fatal )?error: (?P<message>[^\n]+)",
        rf"^(?P<file>{_PATH})\({_LINE}(?:,\d+)?\)\s*: "
        r"(?:catastrophic |fatal )?error(?: [A-Z]+\d+| #[\w-]+)?: (?P<message>[^\n]+)",
        r"^(?P<file>[^\n:]+?) : (?:fatal )?error (?P<message>LNK\d+: [^\n]+)",
        rf"^(?:{_LD}: )?(?P<file>[^\n:]+?)(?::[^\n]*?)?: (?P<message>undefined reference to [^\n]+)",
        rf"^{_LD}: (?:error: |fatal: )?"
        r"(?P<message>(?:undefined symbol|cannot find|library not found|symbol\(s\) not found|duplicate symbol)[^\n]*)",
        r"^(?P<message>Undefined symbols for architecture [^\n]+\n[^\n]+)",
        r"^(?:\S+: )?(?:fatal )?error: (?P<message>[^\n]+)",
        r"^\S+: (?:fatal )?error: (?P<message>Killed [^\n]+)",
        r"^(?:/bin/)?sh: (?P<message>[^\n]*not found)",
    )
)
_MISSING = re.compile(
    r"No such file or directory|file not found|cannot open (?:include|source) file|cannot find -l|library not found"
)
_NO_SPACE = re.compile(
    r"^[^\n]*(?:No space left on device|Disk quota exceeded|There is not enough space on the disk)[^\n]*", re.MULTILINE
)


@dataclass(frozen=True)
class CompilerError:
    """The first error: `file` and `line` where the tool names them, its `message` in one line."""

    file: str | None
    line: int | None
    message: str

    @property
    def where(self) -> str:
        if self.file is None:
            return ""
        return f"{self.file}:{self.line}: " if self.line else f"{self.file}: "

    def __str__(self) -> str:
        return self.where + self.message


def first_error(output: str) -> CompilerError | None:
    """The error that stands first in `output`, in whichever of the known formats; None if there is none.

    A format that comes earlier in the table wins where two match at the same place.
    """
    matches = [found for pattern in _FORMATS if (found := pattern.search(output))]
    if not matches:
        return None
    first = min(matches, key=lambda found: found.start())
    groups = first.groupdict()
    line = groups.get("line")
    return CompilerError(groups.get("file"), int(line) if line else None, one_line(groups["message"]))


def one_line(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def no_space(output: str) -> str | None:
    """The line that says that the disk is full, if there is one."""
    found = _NO_SPACE.search(output)
    return one_line(found[0]) if found else None


def advice(error: CompilerError | None, log: str) -> str:
    """What to do about a failed compile, in one line."""
    message = error.message if error else ""
    if "Killed" in message or "out of memory" in message or "std::bad_alloc" in message:
        return "the machine ran out of memory: turbotool build --jobs 1"
    if _MISSING.search(message):
        return f"a header or library is missing: turbotool doctor says what to install; the whole output is in {log}"
    if "undefined reference" in message or "ndefined symbol" in message or "LNK" in message:
        return (
            f"a symbol is declared but not linked: is its file named in a CMakeLists.txt? The whole output is in {log}"
        )
    if error and error.file:
        return f"fix {error.file} (in a patch or in patches/overlay/), then turbotool build"
    return f"read {log}"
