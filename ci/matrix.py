"""The release matrix. `python ci/matrix.py` prints two lines for GITHUB_OUTPUT; needs only Python 3.11."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

FILE = Path(__file__).with_name("matrix.toml")


@dataclass(frozen=True)
class Target:
    """One archive of a release; the fields are explained in matrix.toml."""

    runner: str
    platform: str
    backend: str
    install: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    again: bool = False

    @property
    def name(self) -> str:
        return f"{self.platform}-{self.backend}"


def read_targets(file: Path = FILE) -> dict[str, Target]:
    """The targets by name. Raises ValueError if two have the same, TypeError for a field that is unknown or missing."""
    targets: dict[str, Target] = {}
    for row in tomllib.loads(file.read_text(encoding="utf-8"))["target"]:
        fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in row.items()}
        target = Target(**fields)
        if target.name in targets:
            raise ValueError(f"{file}: there are two targets {target.name}")
        targets[target.name] = target
    return targets


if __name__ == "__main__":
    every = list(read_targets().values())
    for output, chosen in (("targets", every), ("again", [target for target in every if target.again])):
        print(f"{output}={json.dumps([{'name': target.name, 'runner': target.runner} for target in chosen])}")
