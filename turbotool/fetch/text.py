"""What was checked of a release and what was not, for people."""

from __future__ import annotations

from turbotool.fetch.run import NOT_CHECKED, Release
from turbotool.system.process import display


def text(release: Release) -> str:
    """A line for each check, what was left unchecked, and where the programs are."""
    wide = max(len(one.name) for one in release.held)
    lines = [f"ok    {one.name:{wide}}  {one.detail}" for one in release.held]
    lines += ["not checked:", *(f"  - {line}" for line in NOT_CHECKED)]
    if not release.verified:
        lines.append("  - what the programs compute: --no-verify")
    folder = release.binaries.bin_dir
    return "\n".join([*lines, "", str(folder), f"  {display(['turbotool', 'serve', 'MODEL', '--bin-dir', folder])}"])
