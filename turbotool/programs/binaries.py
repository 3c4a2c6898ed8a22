"""The built programs: where they are, their tree and backend, and the words and variables they start with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import ToolMissing

TREE_DIGITS = 9  # of the tree hash in the commit that our programs report
TOOLS = (
    "llama-cli",
    "llama-completion",
    "llama-server",
    "llama-bench",
    "llama-perplexity",
    "llama-kv-calibrate",
    "llama-kv-divergence",
)
TESTS = (
    "test-backend-ops",
    "test-quantize-fns",
    "test-llama-archs",
    "test-turbo",
    "test-kv-device",
    "test-turbo-backend",
    "test-attention-speed",
    "test-kv-state",
    "test-kv-calibration",
    "test-log-exit",
    "test-kv-plan",
)


@dataclass(frozen=True)
class Binaries:
    """One build: where its programs are, the hash of the tree that they come from (empty if unknown), its backend.

    `programs` is what it must hold. `wrapper` are words to put before every program, such as an emulator. `bare`:
    nothing of this process's environment may help the programs to run. `env`: variables with which they find a device.
    """

    bin_dir: Path
    tree: str = ""
    backend: str = "cpu"
    programs: tuple[str, ...] = (*TOOLS, *TESTS)
    wrapper: tuple[str, ...] = ()
    bare: bool = False
    env: tuple[tuple[str, str], ...] = ()

    def path(self, name: str) -> Path:
        return self.bin_dir / (f"{name}.exe" if os.name == "nt" else name)

    def command(self, name: str) -> tuple[str | Path, ...]:
        """The words that start a program."""
        return (*self.wrapper, self.path(name))

    def require(self, name: str) -> None:
        """Raise ToolMissing unless the program is there and may be run."""
        path = self.path(name)
        if not path.is_file():
            raise ToolMissing(f"{self.bin_dir} has no {name}", hint=f"name the folder of a build that made {name}")
        if not os.access(path, os.X_OK):
            raise ToolMissing(f"{path} is not executable", hint=f"chmod +x {path}")
