"""Nothing half done: whole-file writes, free space, scratch folders that are swept after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from turbotool.errors import NoSpace, UsageMistake
from turbotool.layout import Layout


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


MORE_SPACE = "free some space on that disk, or set TURBOTOOL_WORK to a folder on a larger one"


def need_space(folder: Path, amount: int, what: str, hint: str = MORE_SPACE) -> None:
    """Raise NoSpace unless the disk of `folder` has `amount` bytes free."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < amount:
        raise NoSpace(
            f"{what} needs about {amount / 2**20:.0f} MiB in {folder}, {free / 2**20:.0f} MiB are free",
            hint=hint,
        )


def writable_folder(folder: Path) -> None:
    """Make the folder of a report. Raises UsageMistake where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageMistake(f"cannot write to {folder}: {error.strerror}", hint="name another folder") from error


def writable_file(file: Path) -> None:
    """Make the folder of a report of one file. Raises UsageMistake where it cannot be written."""
    if file.is_dir():
        raise UsageMistake(f"cannot write to {file}: it is a folder", hint="name a file")
    if not file.exists():
        writable_folder(file.absolute().parent)
    elif not os.access(file, os.W_OK):  # as /dev/stdout can be, in a folder that cannot
        raise UsageMistake(f"cannot write to {file}", hint="name another file")


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


def fresh_file(path: Path) -> Path:
    """The path of a file that is started anew, such as a log: its folder is there, and it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def scratch_folder(layout: Layout, purpose: str) -> Iterator[Path]:
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


def out_of_space(error: OSError, path: Path) -> Exception:
    """NoSpace when that is what the OSError means, else the error itself."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"no space left while writing {path}", hint="free some space on that disk, then run the command again"
        )
    return error
