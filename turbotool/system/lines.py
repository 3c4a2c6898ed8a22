"""Lines of a log that count."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_LINE = 4096  # characters; what programs log of themselves is far shorter, and int() refuses 4,300 digits
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def whole_lines(text: str) -> Iterator[str]:
    """The lines that end with a line break, without colour codes: neither a cut last line nor one over MAX_LINE."""
    for line in text.split("\n")[:-1]:
        if len(line) <= MAX_LINE:
            yield COLOUR.sub("", line).rstrip("\r")
