"""One entry that fetches a release: brought, checked, unpacked, proven, put in its place; or refused."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import PackageError
from turbotool.fetch import attestation as attestations
from turbotool.fetch import place as places
from turbotool.fetch.attestation import Provenance
from turbotool.fetch.download import beside, bring, file_name
from turbotool.fetch.place import ArchiveName, Fetched
from turbotool.fetch.signer import HOME, Signer
from turbotool.programs.binaries import Binaries
from turbotool.release.run import Prover
from turbotool.release.unpacked import programs_in, read_package, unpack_package
from turbotool.system.digest import sha256_file
from turbotool.system.extras import require_library
from turbotool.system.files import space_guard
from turbotool.system.locks import file_lock
from turbotool.system.session import Session

ATTESTATION = ".provenance.json"  # what ci/publish.py calls it
LARGEST, LARGEST_ATTESTATION = 4 << 30, 4 << 20  # bytes
SCRATCH = ".fetch-"
PUBLIC = "the public Sigstore"
NOT_CHECKED = (
    "whether the tag still names this commit in the repository",
    "whether the transparency log shows everybody the same entries: the proof and the signed checkpoint of this one "
    "are checked, no witness is asked, and no two checkpoints are compared",
    "whether a key was withdrawn after the trust root was made",
    "whether a second build gives the same bytes: the release workflow compares that, for some archives",
)


@dataclass(frozen=True)
class Held:
    """Something that was checked and holds, and what was found."""

    name: str
    detail: str


@dataclass(frozen=True)
class Release:
    """A release in its place, and what was checked of it; `bytes` of the archive, `seconds` of wall time."""

    binaries: Binaries
    target: ArchiveName
    record: Fetched
    trust_root: str
    held: tuple[Held, ...]
    bytes: int
    verified: bool
    seconds: float


def require() -> None:
    """Raise ToolMissing unless the libraries are installed; takes no time."""
    require_library("sigstore>=4.5,<5", "fetch", "to check a signature needs")
    require_library("packaging>=22", "fetch", "to compare versions needs")


def run(
    session: Session,
    archive: str,
    *,
    prove: Prover | None,
    attestation: str | None = None,
    signer: Signer | None = None,
    trust_root: Path | None = None,
    offline: bool = False,
    older: bool = False,
) -> Release:
    """Fetch the archive at an https address or a path; its attestation is beside it unless another place is named.

    `prove` is called with the unpacked programs before they get their place; None leaves the proof out. `trust_root` is
    a `trusted_root.json` (default: the public Sigstore's, renewed unless `offline`). `older` allows an older release.
    Raises FetchError, AttestationError, WrongSigner, HashMismatch, OlderRelease, ArchiveError, PackageError, and the
    error of the proof; what was there before stays then.

    >>> run(session, "llama-...-linux-x64-cpu.tar.gz", prove=verify.run.prover(session)).record.tag
    'v0.2.0'
    """
    started = time.monotonic()
    require()
    target = places.target_of(file_name(archive))
    if prove and not target.platform.native:
        raise PackageError(f"{target.name} does not run on this machine", hint="--no-verify checks the rest")
    layout = session.layout
    home = places.folder_of(layout)
    with file_lock(home / "lock", session.out, f"fetch {target.name}"), space_guard(home):
        places.sweep(layout, SCRATCH)
        with tempfile.TemporaryDirectory(dir=home, prefix=SCRATCH) as scratch:
            session.out.say(f"getting {archive}")
            file = bring(archive, Path(scratch), LARGEST)
            bundle = bring(attestation or beside(archive, ATTESTATION), Path(scratch), LARGEST_ATTESTATION)
            verifier = attestations.trusted(trust_root, offline=offline)
            digest, size = sha256_file(file), file.stat().st_size
            origin = attestations.check(verifier, signer or Signer(), bundle, file.name, digest)
            age = places.require_newer(origin.tag, places.installed(layout, target), older=older)
            ready = unpack_package(file, Path(scratch) / "unpacked")
            package = read_package(file, ready)
            lock = places.require_same(layout, ready, package, target, origin.tag)
            held = _held(origin, digest, age, ready, lock, trust_root)
            if prove and (error := prove(programs_in(ready, package)).error()):
                raise error
            record = Fetched(origin.tag, origin.commit, origin.repository, file.name, digest, package.tree)
            binaries = programs_in(places.put(layout, target, ready, record), package)
    root = str(trust_root) if trust_root else PUBLIC
    return Release(binaries, target, record, root, held, size, prove is not None, time.monotonic() - started)


def _held(
    origin: Provenance, digest: str, age: str, folder: Path, lock: str, trust_root: Path | None
) -> tuple[Held, ...]:
    """What was checked, in that order."""
    root = f"the trust root {trust_root}" if trust_root else f"the trust root of {PUBLIC}"
    files = sum(1 for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) - 1
    return (
        Held("signature", f"holds, by a certificate that leads to {root} and that its certificate log has promised"),
        Held("log", f"entry {origin.log_index} of the transparency log: its inclusion proof and checkpoint hold"),
        Held("signer", f"{origin.workflow} of {HOME}/{origin.repository}, by a pushed tag, on GitHub's machines"),
        Held("attestation", f"SLSA provenance of {origin.tag}, commit {origin.commit}"),
        Held("archive", f"sha256 {digest}, as attested"),
        Held("age", age),
        Held("sums", f"{files} files, as SHA256SUMS and build.json have them"),
        Held("lock", lock),
    )
