"""What a calibrated cache is calibrated with, and how the programs are told: `patches/overlay` has the other end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import ConfigurationMismatch, ModelError
from turbotool.inputs.gguf import read_header
from turbotool.kv.cachetype import CachePair, is_quantized

OPTION = "--kv-calibration"
VARIABLE = "LLAMA_ARG_KV_CALIBRATION"  # programs that have no such option pass over it
FILE_TYPE = "kv_calibration"  # of the file, in `general.type`
OFF_WORD, AUTO_WORD = "off", "auto"


@dataclass(frozen=True)
class Calibration:
    """Off, auto, or a file, by the `name` of which results know it. `sha256` is that of the file.

    `path` is where this machine has the file. With auto there may be both, too: of the file that lies beside the model.
    """

    name: str
    path: Path | None = None
    sha256: str = ""

    @property
    def word(self) -> str:
        """What programs take."""
        return str(self.path) if self.is_file and self.path else self.name

    @property
    def is_off(self) -> bool:
        return self.name == OFF_WORD

    @property
    def is_auto(self) -> bool:
        return self.name == AUTO_WORD

    @property
    def is_file(self) -> bool:
        return not (self.is_off or self.is_auto)

    @property
    def environment(self) -> Mapping[str, str]:
        return {VARIABLE: self.word}

    def __str__(self) -> str:
        return self.name


UNCALIBRATED = Calibration(OFF_WORD)
AUTO = Calibration(AUTO_WORD)


def parse_calibrations(text: str) -> tuple[Calibration, ...]:
    """`off,auto,FILE` or some of them, each once."""
    return tuple(dict.fromkeys(calibration(word.strip()) for word in text.split(",")))


def calibration(word: str, folder: Path | None = None) -> Calibration:
    """Off, auto, or the file of that name, which may be relative to a folder. Raises ModelError without a name."""
    if word in (OFF_WORD, AUTO_WORD):
        return Calibration(word)
    path = ((folder or Path()) / word).absolute()
    if not word or path.name in (OFF_WORD, AUTO_WORD):
        raise ModelError(f"'{word}' is no name for the file of a calibration", hint="use off, auto or a file")
    return Calibration(path.name, path)


def require_files(found: Iterable[Calibration]) -> None:
    """Raise ModelError unless each file is of a calibration and has its own name; of which model, the programs see."""
    names: dict[str, Path] = {}
    for one in found:
        if one.path and names.setdefault(one.name, one.path) != one.path:
            raise ModelError(
                f"{names[one.name]} and {one.path} have one name, by which results know them", hint="rename one of them"
            )
        if one.path and read_header(one.path).metadata.get("general.type") != FILE_TYPE:
            raise ModelError(f"{one.path} holds no calibration", hint="name off, auto or the file of one")


def beside(model: Path) -> Path:
    """The file that auto takes before it measures."""
    return model.with_suffix(".kvcal.gguf")


def cache_name(pair: CachePair, calibration: Calibration) -> str:
    """What a cache is called: `turbo4` calibrates itself, as programs do where K is quantized."""
    if not can_gain(pair) or calibration.is_auto:
        return pair.short
    return f"{pair.short} uncalibrated" if calibration.is_off else f"{pair.short} with {calibration}"


def can_gain(pair: CachePair) -> bool:
    """Whether there is anything to calibrate: K alone is, where it is quantized."""
    return is_quantized(pair.k)


def calibrations_of(pair: CachePair, asked: Sequence[Calibration]) -> Sequence[Calibration]:
    """Those that a cache is measured with, of those that are asked for."""
    return asked if can_gain(pair) else (UNCALIBRATED,)


def left_alone(pairs: Iterable[CachePair], asked: Iterable[Calibration]) -> list[str]:
    """A line if a file was named for caches that have nothing to calibrate."""
    files = [str(one) for one in asked if one.is_file]
    caches = [pair.short for pair in pairs if not can_gain(pair)]
    if not files or not caches:
        return []
    return [f"not calibrated with {', '.join(files)}, because K is not quantized: {', '.join(caches)}"]


def refuse_programs(program: str, folder: Path, pairs: Iterable[CachePair], asked: Iterable[Calibration]) -> None:
    """Raise ConfigurationMismatch if anything is to be calibrated by a program that knows nothing of it."""
    wanted = [str(one) for one in asked if not one.is_off]
    if wanted and any(map(can_gain, pairs)):
        raise ConfigurationMismatch(
            f"the {program} in {folder} knows nothing of calibrated caches, requested {', '.join(wanted)}",
            hint="add --calibration off, or run `turbotool build` and leave out --bin-dir",
        )
