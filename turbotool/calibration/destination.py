"""The file that a calibration ends in: one of its own, or a copy of the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from turbotool.calibration.check import Served, serve_copy, serve_file
from turbotool.errors import ModelError, UsageMistake
from turbotool.inputs.gguf import read_header
from turbotool.inputs.model import Model, weight_bytes
from turbotool.kv.calibration import FILE_TYPE, beside
from turbotool.system.files import need_space, space_guard, sync_folder, writable_file, writable_folder, write_file

SLACK = 64 << 20  # bytes that a copy may be larger than the model


@dataclass(frozen=True)
class Destination:
    """Where it is written; `embeds` if that is a copy of the model, `replaces` if there is a file now."""

    path: Path
    embeds: bool
    replaces: bool

    @property
    def part(self) -> Path:
        """The copy while it is written."""
        return self.path.with_name(f".{self.path.name}.part")

    def served(self, model: Path) -> Served:
        """How a run of the model gets it."""
        return serve_copy(self.path) if self.embeds else serve_file(model, self.path)

    def keep(self, calibration: Path) -> None:
        """Put a calibration in its place, as a whole. Raises NoSpace."""
        write_file(self.path, calibration.read_bytes())

    def keep_copy(self) -> None:
        """Put the copy in its place."""
        with space_guard(self.path):
            self.part.replace(self.path)
            sync_folder(self.path.parent)


def choose_target(model: Model, texts: Iterable[Path], out: Path | None, embed: Path | None) -> Destination:
    """Look at the place before anything is measured.

    Raises UsageMistake for both, for a place that cannot be written, and for a file that must not be replaced, NoSpace
    for a copy that has no room, ModelError for a copy of a model in parts.
    """
    if out and embed:
        raise UsageMistake("--out and --embed exclude each other", hint="name one of them")
    path = (embed or out or beside(model.path)).absolute()
    for taken in (model.path, *texts):
        if path.exists() and path.samefile(taken):
            option = "--embed" if embed else "--out"
            raise UsageMistake(f"{option} {path} is what is read: it would be overwritten", hint="name another file")
    writable_file(path)
    writable_folder(path.parent)
    if embed:
        _require_copy(model, path)
    elif path.exists():
        _require_calibration_file(path)
    return Destination(path, embed is not None, path.exists())


def _require_copy(model: Model, path: Path) -> None:
    size = weight_bytes(model.path)
    if size != model.path.stat().st_size:
        raise ModelError(
            f"{model.path} is one of several parts, which a calibration cannot be put into",
            hint="leave --embed out: the calibration is then a file of its own",
        )
    need_space(path.parent, size + SLACK, "a copy of the model")


def _require_calibration_file(path: Path) -> None:
    try:
        kind = read_header(path).metadata.get("general.type")
    except ModelError:
        kind = None
    if kind != FILE_TYPE and path.stat().st_size:
        raise UsageMistake(f"{path} is no calibration, and is not overwritten", hint="name another file with --out")
