"""The documents of turbotool as docs/reference publishes them: a JSON Schema for each, and a table of all."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path

import turbotool
from turbotool.system.documents import KINDS, Kind, json_schema

BEGIN, END = "<!-- formats: begin -->\n", "<!-- formats: end -->\n"


def kinds() -> Mapping[str, Kind]:
    """Every kind of document, by name; each module that may define one is imported."""
    for module in pkgutil.walk_packages(turbotool.__path__, f"{turbotool.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return dict(sorted((name, kind) for name, kind in KINDS.items() if kind.of.__module__.startswith("turbotool.")))


def schema_files() -> dict[str, str]:
    """The schemas by file name below docs/reference."""
    return {
        f"schemas/{name}.json": f"{json.dumps(json_schema(kind), indent=2, ensure_ascii=False)}\n"
        for name, kind in kinds().items()
    }


def formats_page(page: Path) -> str:
    """docs/reference/formats.md with its table made anew; the text around it is written by hand."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def table() -> str:
    """A line for each kind of document."""
    lines = ["| document | version | what it is |", "|---|---|---|"]
    for name, kind in kinds().items():
        lines.append(f"| [`{kind.schema}`](schemas/{name}.json) | {kind.version} | {_about(kind)} |")
    return "\n".join(lines) + "\n"


def _about(kind: Kind) -> str:
    """The first sentence of its documentation."""
    text = " ".join(str(kind.of.__doc__).split()).replace("|", "\\|")
    return re.split(r"\.(?:\s|$)", text)[0] + "."
