"""Nothing half done: the work lock, whole-file writes, free space, and the journal that a killed run leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turbotool.errors import Busy, NoSpace
from turbotool.layout import Layout
from turbotool.output import Output
from turbotool.process import display, out_of_space

WAIT_SECONDS = 1800.0


@contextlib.contextmanager
def work_lock(layout: Layout, out: Output, what: str) -> Iterator[tuple[int, ...]]:
    """Hold the work folder while the block runs; re-entrant within the process.

    Yields the descriptors that children must inherit (`Git.keep`). `what` tells a waiting process what we do.
    Raises Busy when another process holds it longer than TURBOTOOL_LOCK_TIMEOUT seconds (default 1800).
    """
    with file_lock(layout.state / "lock", out, what) as keep:
        yield keep


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
    try:
        lock.acquire(timeout=0)
    except Timeout:
        out.say(f"waiting: {describe_holder(path)}")
        try:
            lock.acquire(timeout=float(os.environ.get("TURBOTOOL_LOCK_TIMEOUT") or WAIT_SECONDS))
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


def _descriptor(lock: object) -> tuple[int, ...]:
    # filelock has no public name for it; without it a killed run's children merely stop to count as holders.
    number = getattr(getattr(lock, "_context", None), "lock_file_fd", None)
    return (number,) if isinstance(number, int) and sys.platform != "win32" else ()


def _sign(path: Path, what: str) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"pid": os.getpid(), "command": display(sys.argv), "since": since, "what": what}
    with contextlib.suppress(OSError):  # a full disk must not stop a command that only reads
        path.with_suffix(".json").write_text(json.dumps(holder), encoding="utf-8")


def describe_holder(path: Path) -> str:
    """`pid 12 (turbotool vendor) holds it since ...`, as far as the holder could say so."""
    try:
        holder = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return f"pid {holder['pid']} ({holder['command']}) holds it since {holder['since']} to {holder['what']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another turbotool process holds it"


@contextlib.contextmanager
def space_guard(path: Path) -> Iterator[None]:
    """Turn "no space left" from anything in the block into NoSpace naming `path`."""
    try:
        yield
    except OSError as error:
        raised = out_of_space(error, path)
        if raised is error:
            raise
        raise raised from error


def need_space(folder: Path, amount: int, what: str) -> None:
    """Raise NoSpace unless the disk of `folder` has `amount` bytes free."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < amount:
        raise NoSpace(
            f"{what} needs about {amount / 2**20:.0f} MiB in {folder}, {free / 2**20:.0f} MiB are free",
            hint="free some space on that disk, or set TURBOTOOL_WORK to a folder on a larger one",
        )


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` as a whole: a reader, or a run after a kill, sees the old or the new bytes. Raises NoSpace."""
    with space_guard(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable where the system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def remove(path: Path) -> None:
    """Remove a file or a folder of ours that may be half written, or absent."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path)


@contextlib.contextmanager
def scratch(layout: Layout, purpose: str) -> Iterator[Path]:
    """A new folder on the work folder's disk, removed at the end; what a kill leaves is removed by `sweep`."""
    with space_guard(layout.state):
        (layout.state / "scratch").mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=layout.state / "scratch"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(layout: Layout) -> bool:
    """Remove scratch folders of killed runs. The caller holds the work lock. True when there were any."""
    folder = layout.state / "scratch"
    left = list(folder.iterdir()) if folder.is_dir() else []
    for path in left:
        remove(path)
    return bool(left)


def journal(layout: Layout) -> Path:
    return layout.state / "journal.json"


def begin(layout: Layout, entry: dict[str, Any]) -> None:
    """Record, durably, what is about to happen."""
    write_file(journal(layout), json.dumps(entry).encode())


def unfinished(layout: Layout) -> dict[str, Any] | None:
    """What a killed run had begun, or None."""
    try:
        entry = json.loads(journal(layout).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None


def finish(layout: Layout) -> None:
    journal(layout).unlink(missing_ok=True)
