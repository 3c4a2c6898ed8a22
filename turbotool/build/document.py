"""What `turbotool build --json` prints."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.build.compile import BuildOutcome
from turbotool.system.documents import document


@dataclass(frozen=True)
class OutputFields:
    """One program or library; its size in bytes."""

    name: str
    sha256: str
    bytes: int


@document("build")
@dataclass(frozen=True)
class BuildDocument:
    """A finished build: `reason` says which input changed, `tree` is git's id of the patched tree, wall time in s."""

    ok: bool
    cached: bool
    reason: str
    bin_dir: str
    log: str
    tree: str
    backend: str
    seconds: float
    outputs: tuple[OutputFields, ...]
    notes: tuple[str, ...]


def build_document(done: BuildOutcome) -> BuildDocument:
    return BuildDocument(
        ok=True,
        cached=done.cached,
        reason="; ".join(done.reasons) or "nothing changed",
        bin_dir=str(done.bin_dir),
        log=str(done.log),
        tree=done.tree,
        backend=done.backend,
        seconds=round(done.seconds, 2),
        outputs=tuple(OutputFields(output.name, output.sha256, output.bytes) for output in done.outputs),
        notes=done.notes,
    )
