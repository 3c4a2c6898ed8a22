"""The wheel of turbotool itself: `python ci/wheel.py v0.1.0` makes build/wheel/*.whl and looks whether all is in it.

What uploads it is the job `pypi` of the release workflow, which PyPI knows as its trusted publisher. Needs only pip.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

from tool import run

FOLDER = Path("build", "wheel")
NEEDED = (
    "turbotool/cli/main.py",
    "turbotool/data/patches/series",
    "turbotool/data/vendor/lock.toml",
)


def make(folder: Path = FOLDER) -> Path:
    """The one wheel in `folder`, made now."""
    for old in folder.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--wheel-dir", folder, "."])
    (wheel,) = folder.glob("*.whl")
    return wheel


def check(wheel: Path, tag: str) -> None:
    """Raise SystemExit unless the wheel is of the tag's version and holds the series and the lock."""
    version = tag.removeprefix("v")
    if wheel.name != f"turbotool-{version}-py3-none-any.whl":
        raise SystemExit(f"the tag is {tag}, the wheel is {wheel.name}: they must agree")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
        series = archive.read("turbotool/data/patches/series").decode()
    patches = [line for line in series.splitlines() if line and not line.startswith("#")]
    lost = [patch for patch in patches if f"turbotool/data/patches/{patch}" not in names]
    if lost:
        raise SystemExit(f"{wheel.name} lacks the patches {', '.join(lost)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="such as v0.1.0")
    given = parser.parse_args()
    check(make(), given.tag)


if __name__ == "__main__":
    main()
