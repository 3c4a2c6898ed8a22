"""Ninja's own words: progress from its status lines, and which files its targets consist of."""

from __future__ import annotations

import re
from dataclasses import dataclass

STATUS = "[%f/%t] "
_LINE = re.compile(r"\[(\d+)/(\d+)\] ?(.*)")


@dataclass(frozen=True)
class Step:
    """`done` of `total` edges of the build graph are finished; `what` names the file at work."""

    done: int
    total: int
    what: str


def parse_step(line: str) -> Step | None:
    """The progress in a line `[n/m] what`, or None. Needs NINJA_STATUS to be STATUS."""
    found = _LINE.match(line)
    if not found or int(found[1]) > int(found[2]):
        return None
    return Step(int(found[1]), int(found[2]), short(found[3]))


def short(description: str) -> str:
    """The file at the end of a description such as `Building CXX object src/CMakeFiles/llama.dir/llama.cpp.o`."""
    name = description.replace("\\", "/").rsplit("/", 1)[-1] if "/" in description else description
    return re.sub(r"\.(o|obj)$", "", name)


def products(inputs: str, folder: str = "bin") -> set[str]:
    """File names in `folder` among the lines that `ninja -t inputs` prints."""
    paths = (line.strip().replace("\\", "/") for line in inputs.splitlines())
    return {path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")}
