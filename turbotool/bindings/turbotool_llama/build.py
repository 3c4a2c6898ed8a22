"""The build that this environment is for: `build.json` beside this file, of `turbotool python-env` or of a wheel."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("build.json")
VARIABLE = "LLAMA_CPP_LIB_PATH"  # where llama-cpp-python looks for libllama


@functools.cache
def read_build() -> dict[str, Any]:
    """The folder of libraries, seen from this one, the tree that they are built from, its types, structs, functions."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def again() -> str:
    """What brings the libraries that this package is for."""
    if read_build().get("bindings"):
        return f"unset {VARIABLE}, or install turbotool-llama again"
    return f"type `turbotool python-env {sys.prefix}`"


def fitting() -> str:
    """What brings bindings that fit the libraries: the release that a wheel is for, or another build."""
    bindings = read_build().get("bindings")
    return f"type `{sys.executable} -m pip install {bindings}`" if bindings else again()


def choose_libraries() -> Path:
    """The folder of libllama: that of the build, unless the environment names another of the same tree.

    Raises ImportError if there is none, or it is not known to have the llama.h that this environment was checked with.
    """
    build = read_build()
    folder = Path(os.environ.setdefault(VARIABLE, str(FILE.parent / build["bin_dir"])))
    if not folder.is_dir():
        raise ImportError(f"{folder} has no libraries: {again()}")
    tree = tree_of(folder)
    if tree != build["tree"]:
        theirs = f"are of tree {tree}" if tree else "are of an unknown tree (no build.json beside the folder)"
        raise ImportError(f"the libraries in {folder} {theirs}, this package is for {build['tree']}: {again()}")
    return folder


def tree_of(folder: Path) -> str:
    """The git tree that the build.json beside a folder of programs and libraries names; '' if there is none."""
    try:
        fields = json.loads((folder.resolve().parent / "build.json").read_bytes())
    except (OSError, ValueError):
        return ""
    tree = fields.get("tree") if isinstance(fields, dict) else None
    return tree if isinstance(tree, str) else ""
