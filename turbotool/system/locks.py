"""One at a time: the lock of the work folder and those of single files, and who holds them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import Busy, DocumentError, UsageMistake
from turbotool.system.documents import document, encode, read
from turbotool.system.files import space_guard
from turbotool.system.output import Output
from turbotool.system.process import display
from turbotool.system.session import Session

WAIT_SECONDS = 1800.0


@document("lock-holder")
@dataclass(frozen=True)
class Holder:
    """Who holds a lock: the process, its command line, since when in local time, and what for."""

    pid: int
    command: str
    since: str
    what: str


@contextlib.contextmanager
def work_lock(session: Session, what: str) -> Iterator[Session]:
    """Hold the work folder while the block runs; re-entrant within the process.

    Yields the session with the descriptors that children must inherit. `what` tells a waiting process what we do.
    Raises Busy when another process holds it longer than TURBOTOOL_LOCK_TIMEOUT seconds (default 1800), UsageMistake if
    that variable is no such number.
    """
    with file_lock(session.layout.state / "lock", session.out, what) as keep:
        yield replace(session, keep=keep)


@contextlib.contextmanager
def file_lock(path: Path, out: Output, what: str) -> Iterator[tuple[int, ...]]:
    """An exclusive lock on `path`; `path`.json says who holds it: pid, command, since, what.

    When that file is there although nobody holds the lock, its writer was killed: `path`.killed then says so.
    """
    from filelock import FileLock, Timeout

    with space_guard(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True)
    if lock.is_locked:
        with lock:
            yield _descriptor(lock)
        return
    patience = _patience()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        out.say(f"waiting: {describe_holder(path)}")
        try:
            lock.acquire(timeout=patience)
        except Timeout as error:
            raise Busy(
                f"{path} is still locked: {describe_holder(path)}",
                hint="wait for it or end it, then run the command again",
            ) from error
    try:
        with contextlib.suppress(FileNotFoundError):
            path.with_suffix(".json").replace(path.with_suffix(".killed"))
        _sign(path, what)
        yield _descriptor(lock)
    finally:
        path.with_suffix(".json").unlink(missing_ok=True)
        lock.release()


def _patience() -> float:
    """Seconds to wait for another process. Raises UsageMistake for a variable that is no such number."""
    text = os.environ.get("TURBOTOOL_LOCK_TIMEOUT") or str(WAIT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageMistake(
            f"TURBOTOOL_LOCK_TIMEOUT is '{text}', not a number of seconds from 0 on",
            hint="unset TURBOTOOL_LOCK_TIMEOUT",
        )
    return seconds


def _descriptor(lock: object) -> tuple[int, ...]:
    # filelock has no public name for it; without it a killed run's children merely stop to count as holders.
    number = getattr(getattr(lock, "_context", None), "lock_file_fd", None)
    return (number,) if isinstance(number, int) and sys.platform != "win32" else ()


def _sign(path: Path, what: str) -> None:
    holder = Holder(os.getpid(), display(sys.argv), time.strftime("%Y-%m-%d %H:%M:%S"), what)
    with contextlib.suppress(OSError):  # a full disk must not stop a command that only reads
        path.with_suffix(".json").write_bytes(encode(holder))


def describe_holder(path: Path) -> str:
    """`pid 12 (turbotool vendor) holds it since ...`, as far as the holder could say so."""
    try:
        holder = read(path.with_suffix(".json"), Holder)
    except DocumentError:
        return "another turbotool process holds it"
    return f"pid {holder.pid} ({holder.command}) holds it since {holder.since} to {holder.what}"
