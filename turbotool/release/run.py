"""One entry that makes a release archive or a wheel: built for any CPU, packed, proven as a user has it, published."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from turbotool.build.backends import find_backend
from turbotool.build.host import Choices
from turbotool.build.installers import installer
from turbotool.build.platforms import find_platform
from turbotool.build.request import BuildRequest
from turbotool.errors import TurbotoolError, UsageMistake
from turbotool.programs.binaries import Binaries
from turbotool.release import package as packages
from turbotool.release import wheel as wheels
from turbotool.release.unpacked import require_wrapper, unpacked
from turbotool.system.files import writable_folder
from turbotool.system.session import Session

GLIBC = re.compile(r"\d{1,3}(\.\d{1,3})+")


class Proven(Protocol):
    """What a proof must be able to say: the error that it ends with, None if everything holds."""

    def error(self) -> TurbotoolError | None: ...


Prover = Callable[[Binaries], Proven]  # such as `verify.run.prover` gives


@dataclass(frozen=True)
class Released:
    """An archive or a wheel in its place, with its sha256, and the signature's file if it was signed.

    `seconds` is wall time.
    """

    archive: Path
    sha256: str
    package: packages.Package
    verified: bool
    signature: Path | None
    seconds: float


def run(
    session: Session,
    *,
    prove: Prover | None,
    backend: str = "cpu",
    platform: str | None = None,
    archs: Sequence[str] = (),
    options: Sequence[tuple[str, str]] = (),
    jobs: int = 0,
    max_glibc: str = packages.MAX_GLIBC,
    folder: Path | None = None,
    wrapper: Sequence[str] = (),
    sign: bool = False,
    carried: wheels.Carried | None = None,
) -> Released:
    """Make the archive of a backend for a platform (default: this one) in `folder` (default: build/packages).

    `prove` is called with the programs of the unpacked archive before it gets its name; None leaves the proof out. With
    `carried`, such as `bindings.carried.CarriedPackage()`, a wheel of that package and the libraries is made instead;
    its bindings must then run on them, too.
    `archs` are CUDA architectures, `options` more CMake options, `jobs` compilers at once (0: one a CPU), `wrapper`
    words to put before every program. Raises UsageMistake, BackendUnavailable, ToolMissing, what building raises,
    PackageError, and the error of the proof; there is no archive then.

    >>> run(session, prove=verify.run.prover(session)).archive.name
    'llama-1d4b7d2a0-turbo-0ff1bd811-linux-x64-cpu.tar.gz'
    """
    started = time.monotonic()
    there = find_platform(platform)
    request = BuildRequest(
        find_backend(backend), Choices(True, tuple(archs)), tuple(options), jobs=jobs, platform=there
    )
    words = require(platform, wrapper, proven=prove is not None, sign=sign)
    if carried:
        wheels.require()
    # what was named is looked at before a build of many minutes
    if not GLIBC.fullmatch(max_glibc):
        raise UsageMistake(f"'{max_glibc}' is no version of glibc", hint=f"such as --max-glibc {packages.MAX_GLIBC}")
    place = (folder or session.layout.builds / "packages").absolute()
    writable_folder(place)
    made = packages.collect(session, request, there, max_glibc, os.environ)
    with tempfile.TemporaryDirectory(dir=place, prefix=".package-") as scratch:
        archive = _written(session, made, Path(scratch))
        if prove:
            _prove(archive, words, prove)
        if carried:
            made = wheels.gather(session.layout, made, carried, max_glibc)
            archive = _written(session, made, Path(scratch))
            if prove and there.native:
                carried.try_out(session, archive)
            elif prove:
                session.out.warn(f"not tried with {carried.requirement}: the libraries are for {there.name}")
        target = place / made.file_name
        digest = packages.publish(archive, target)
    signature = packages.sign(target, session.out) if sign else None
    return Released(target, digest, made, prove is not None, signature, time.monotonic() - started)


def require(
    platform: str | None, wrapper: Sequence[str] = (), *, proven: bool = True, sign: bool = False
) -> tuple[str, ...]:
    """The words that go before every program of the platform: `wrapper`, or else an emulator where one is needed.

    Raises ToolMissing unless every library that a package needs, and the wrapper, is installed; takes no time.
    """
    there = find_platform(platform)
    packages.require_libraries(sign=sign)
    words = tuple(wrapper) or (() if there.native else there.emulator)
    if proven:
        require_wrapper(words, f"{installer(os.environ).hint('qemu-user')}, or --no-verify")
    return words


def _written(session: Session, made: packages.Package, scratch: Path) -> Path:
    archive = made.write(scratch)
    size = archive.stat().st_size / 2**20
    session.out.say(f"{archive.name}: {size:.1f} MiB, {len(made.members)} members, {made.needs}")
    return archive


def _prove(archive: Path, wrapper: Sequence[str], prove: Prover) -> None:
    with unpacked(archive, wrapper) as binaries:
        if error := prove(binaries).error():
            raise error
