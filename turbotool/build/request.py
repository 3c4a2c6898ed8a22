"""What to build: a backend with choices, options and targets, and the patched tree that it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from turbotool.build.backends import Backend
from turbotool.build.host import Choices
from turbotool.build.platforms import Platform
from turbotool.build.targets import PACKAGED
from turbotool.upstream.lock import Upstream


@dataclass(frozen=True)
class PatchedSource:
    """The patched tree: its folder and git tree hash, the locked upstream, the series' hash."""

    path: Path
    tree: str
    upstream: Upstream
    series: str


@dataclass(frozen=True)
class Asked:
    """What the command line chose for a build, for build.json: `options` are CMake's, `targets` the added ones."""

    portable: bool
    archs: tuple[str, ...]
    options: Mapping[str, str]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `options` are the user's own CMake options; `jobs` (0: one per CPU) does not change the result.

    With `platform` it is what a package for that platform holds, otherwise a build for this machine.
    """

    backend: Backend
    choices: Choices = field(default_factory=Choices)
    options: tuple[tuple[str, str], ...] = ()
    extra_targets: tuple[str, ...] = ()
    jobs: int = 0
    platform: Platform | None = None

    @property
    def name(self) -> str:
        """The build folder's name: a package has one of its own."""
        return f"{self.backend.name}-{self.platform.name}" if self.platform else self.backend.name

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `turbotool build` that ask for this and not for what it builds by default."""
        return (
            *(["--portable"] if self.choices.portable else []),
            *([f"--arch {','.join(self.choices.archs)}"] if self.choices.archs else []),
            *(f"--cmake-option {name}={value}" for name, value in self.options),
            *(f"--target {target}" for target in self.extra_targets),
        )

    @property
    def asked(self) -> Asked:
        """What the command line chose, for build.json and `again`."""
        return Asked(self.choices.portable, self.choices.archs, dict(self.options), self.extra_targets)

    @classmethod
    def again(cls, backend: Backend, asked: Asked) -> BuildRequest:
        """The request that `asked` describes."""
        choices = Choices(asked.portable, asked.archs)
        return cls(backend, choices, tuple(asked.options.items()), asked.targets)

    @property
    def targets(self) -> tuple[str, ...]:
        wanted = PACKAGED if self.platform else self.backend.targets
        return tuple(dict.fromkeys((*wanted, *self.extra_targets)))
