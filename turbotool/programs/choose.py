"""Which programs a command works with: those in a folder that the user names, or an up-to-date build."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from turbotool.build.backends import find_backend
from turbotool.build.record import last_record, recorded_backend
from turbotool.build.request import BuildRequest
from turbotool.build.run import build_product
from turbotool.errors import ToolMissing
from turbotool.programs.binaries import Binaries
from turbotool.system.session import Session


def named_binaries(folder: Path, backend: str = "cpu", needed: Sequence[str] = ()) -> Binaries:
    """The programs in a folder that the user names; which tree they come from is unknown.

    Raises ToolMissing if there is no such folder, or one of the `needed` programs is not in it.

    Their backend is what the build.json beside the folder says, if turbotool built them, and otherwise `backend`.
    """
    if not folder.is_dir():
        raise ToolMissing(f"there is no folder {folder}", hint="turbotool build")
    binaries = Binaries(folder.resolve(), "", recorded_backend(folder.resolve().parent) or backend)
    for program in needed:
        binaries.require(program)
    return binaries


def choose_binaries(session: Session, backend: str, bin_dir: Path | None) -> Binaries:
    """The programs in `bin_dir`, or those of an up-to-date build of the backend, made now if it is not there.

    A build that is there is kept: what is made anew is made with the options that it was made with.
    """
    if bin_dir:
        named = named_binaries(bin_dir, backend)
        if named.backend != backend:
            session.out.say(f"{bin_dir} was built for {named.backend}, and so it is taken")
        return named
    wanted = find_backend(backend)
    last = last_record(session.layout.build(wanted.name))
    request = BuildRequest.again(wanted, last.asked) if last else BuildRequest(wanted)
    if request.words:
        session.out.say(f"the build was made with {' '.join(request.words)}, and so it is now")
    done = build_product(session, request, os.environ)
    return Binaries(done.bin_dir, done.tree, done.backend)
