"""How many processes run the tests, and where their folders are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - the folders in it are pytest's, which only we may enter
ENOUGH = 2 << 30  # bytes; the fast tests take a tenth


def whole_and_fast(config: pytest.Config) -> bool:
    return config.args == config.getini("testpaths") and "not slow" in config.option.markexpr


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """All fast tests run in a process more than there are cores, since many wait for git; a few in none of their own.

    Slow tests compile and measure: those run one after the other, unless `-n` says how many.
    """
    from turbotool.system.machine import usable_cpus

    return usable_cpus() + 1 if whole_and_fast(config) else 0


def pytest_configure(config: pytest.Config) -> None:
    """Fast tests, which are mostly git at work, take half the time in folders in memory. TMPDIR, if set, is kept."""
    if "not slow" in config.option.markexpr and "TMPDIR" not in os.environ and in_memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def in_memory() -> bool:
    """Is there a memory file system that is large enough and lets programs run?"""
    if not hasattr(os, "statvfs") or not os.access(MEMORY, os.W_OK):
        return False
    there = os.statvfs(MEMORY)
    return there.f_bavail * there.f_frsize > ENOUGH and not there.f_flag & getattr(os, "ST_NOEXEC", 0)
