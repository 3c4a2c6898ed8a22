"""Packages on PyPI whose source distributions hold llama.cpp: in which folder, and what their versions tell of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT = "llama-cpp-python"  # what a bare version is one of


@dataclass(frozen=True)
class KnownPackage:
    """`subdir` is below the one folder at the top of an archive.

    `version` matches versions that end in the number of llama.cpp's build. With `dated` the archive's members keep the
    time at which the packager checked llama.cpp out.
    """

    name: str
    subdir: str
    version: re.Pattern[str] | None = None
    dated: bool = False

    def tag(self, version: str) -> str:
        """The tag of llama.cpp that a version says it is, such as b11549; '' where it says none."""
        match = self.version.fullmatch(version) if self.version else None
        return f"b{match[1]}" if match else ""


PACKAGES: Mapping[str, KnownPackage] = {
    package.name: package
    for package in (
        KnownPackage(DEFAULT, "vendor/llama.cpp"),  # keeps git's record of the commit
        KnownPackage(
            "xllamacpp", "thirdparty/llama.cpp", re.compile(r"20\d\d\.\d\d?\.(\d+)(?:\.post\d+)?"), dated=True
        ),
    )
}


def normalized(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stem(name: str, version: str) -> str:
    """The name of a source distribution without its ending, and of the folder at its top (PEP 625)."""
    return f"{normalized(name).replace('-', '_')}-{version}"
