"""Processes of this machine."""

from __future__ import annotations

import os


def is_alive(pid: int) -> bool:
    """Is there a process with this number? On POSIX systems."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
