"""What a control group of Linux, for example a container, lets this process have: psutil tells of the machine alone.

Source: the kernel's `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/memory.rst`, `scheduler/sched-bwc.rst`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

UNLIMITED = 1 << 62  # version 1 has no word for it, but the largest whole number of pages
INACTIVE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Groups:
    """Where the kernel shows its control groups, and where it says in which of them this process is."""

    mounts: Path = Path("/sys/fs/cgroup")
    mine: Path = Path("/proc/self/cgroup")


def cpu_limit(groups: Groups) -> float | None:
    """How many CPUs' time this process's groups may use, for example 1.5; None without a limit."""
    limits = []
    for folder in _folders(groups, "cpu"):
        two = (_read(folder / "cpu.max") or "").split()
        one = [(_read(folder / f"cpu.cfs_{what}_us") or "").strip() for what in ("quota", "period")]
        quota, period = two if len(two) == 2 else one  # noqa: PLR2004 (quota and period)
        if quota.isdecimal() and period.isdecimal() and int(period):  # without a limit the quota is `max` or -1
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_left(groups: Groups) -> int | None:
    """Bytes that this process's groups may still take, idle file pages included; None without a limit."""
    left = []
    for folder in _folders(groups, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            idle = INACTIVE.findall(_read(folder / "memory.stat") or "")
            left.append(max(0, limit - used + max(map(int, idle), default=0)))
    return min(left, default=None)


def _folders(groups: Groups, controller: str) -> Iterator[Path]:
    """Of the process's group and each above it. A container may not see the path by which the machine knows it."""
    for line in (_read(groups.mine) or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" or controller in names.split(","):
            mount = groups.mounts if number == "0" else groups.mounts / controller
            inside = PurePosixPath(path.lstrip("/"))
            yield from (mount / part for part in (inside, *inside.parents) if ".." not in part.parts)


def _number(*paths: Path) -> int | None:
    """What the first of the files that is there says; None where that is no limit."""
    text = next((text for text in map(_read, paths) if text is not None), "").strip()
    return int(text) if text.isdecimal() and int(text) < UNLIMITED else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
