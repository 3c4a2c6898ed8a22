"""The release of llama-cpp-python that an environment is given, and with which llama.cpp it was tried.

When the pin moves, `tests/unit/bindings` says that this has to be looked at, and the slow tests whether it still fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "llama-cpp-python"
RELEASES = Path(__file__)


@dataclass(frozen=True)
class BindingsRelease:
    """A source distribution on PyPI, `size` in bytes, and the tag or commit of the pinned llama.cpp that it fits.

    `added` are the fields, by struct, that the pin's llama.h has and the release does not know. They are given to it.
    """

    version: str
    archive: str
    sha256: str
    size: int
    pin: str
    added: Mapping[str, tuple[str, ...]]


FITTING = BindingsRelease(
    version="0.3.36",
    archive="llama_cpp_python-0.3.36.tar.gz",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    size=76589250,
    pin="b11549",
    added={"llama_context_params": ("moe_cache_size",), "llama_opt_params": ("optimizer_type",)},
)
