"""Where things are: the files that turbotool ships, the work folder that it fills, and the download cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Layout:
    """Paths of one installation.

    `root` holds `patches/` and `vendor/lock.toml`; `work` receives the vendored tree and the builds;
    `cache` keeps downloads that any checkout may share.
    """

    root: Path
    work: Path
    cache: Path

    @property
    def patches(self) -> Path:
        return self.root / "patches"

    @property
    def series(self) -> Path:
        return self.patches / "series"

    @property
    def overlay(self) -> Path:
        return self.patches / "overlay"

    @property
    def lock_file(self) -> Path:
        return self.root / "vendor" / "lock.toml"

    @property
    def vendor(self) -> Path:
        return self.work / "vendor"

    @property
    def tree(self) -> Path:
        """The vendored upstream, a git work tree."""
        return self.vendor / "llama.cpp"

    @property
    def state(self) -> Path:
        """Scratch folders, the journal, lock files, and the bump or the repair that waits for a person."""
        return self.work / "vendor" / ".turbotool"

    @property
    def builds(self) -> Path:
        return self.work / "build"

    def build(self, backend: str) -> Path:
        """The build folder of one backend; binaries are in its `bin`."""
        return self.builds / backend

    @property
    def logs(self) -> Path:
        return self.builds / "logs"


def is_root(folder: Path) -> bool:
    return (folder / "patches" / "series").is_file() and (folder / "vendor" / "lock.toml").is_file()


def find_layout() -> Layout:
    """The layout of this process.

    `TURBOTOOL_ROOT` names a checkout explicitly and `TURBOTOOL_WORK` a work folder; otherwise an editable install uses
    the checkout that it lives in, and an installed wheel uses its own data files and a work folder in the user's cache.
    """
    from platformdirs import user_cache_path

    cache = Path(os.environ.get("TURBOTOOL_CACHE") or user_cache_path("turbotool", appauthor=False)).absolute()
    work = os.environ.get("TURBOTOOL_WORK")
    named = os.environ.get("TURBOTOOL_ROOT")
    if named:
        root = Path(named).resolve()
    elif is_root(PACKAGE.parent):
        root = PACKAGE.parent
    else:
        return Layout(PACKAGE / "data", Path(work).absolute() if work else cache / "work", cache)
    return Layout(root, Path(work).absolute() if work else root, cache)
