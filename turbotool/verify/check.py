"""What a check is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.divergence import Divergence
from turbotool.programs.perplexity import Text, compare, save_logits
from turbotool.programs.runner import Runner
from turbotool.system.output import Output

Value = float | int | str | None


@dataclass(frozen=True)
class CheckOutcome:
    """What a check measured, the bound in words, whether it holds; `skipped` is no pass, `detail` then says why.

    `left_out` says what a check did not look at although it ran.
    """

    ok: bool
    value: Value
    bound: str
    detail: str = ""
    skipped: bool = False
    left_out: str = ""


@dataclass(frozen=True)
class Check:
    """An outcome with the check's name and its duration in seconds."""

    name: str
    ok: bool
    value: Value
    bound: str
    detail: str
    seconds: float
    skipped: bool = False
    left_out: str = ""


@dataclass(frozen=True)
class Spec:
    """A row of the registry: `about` is one line for --list; `quick` says whether --quick runs it."""

    name: str
    about: str
    run: Callable[[Context], CheckOutcome]
    quick: bool = True


@dataclass
class Context:
    """What every check works on, and the measurements that several of them share."""

    runner: Runner
    model: Model
    text: Text
    out: Output
    quick: bool
    commit: str = ""
    default_text: bool = True
    _base: Path | None = None
    _divergences: dict[tuple[CachePair, Knobs, Calibration], Divergence] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.runner.work

    @property
    def is_default(self) -> bool:
        """Whether absolute bounds apply: they were measured on the default model and text."""
        return self.model.is_default and self.default_text

    def base(self) -> Path:
        """Log probabilities of the text under an f16 cache; written once in a run."""
        if self._base is None:
            target = self.work / "f16.logits"
            save_logits(self.runner, self.model, self.text, F16, target)
            self._base = target
        return self._base

    def divergence(self, pair: CachePair, knobs: Knobs = OFF, calibration: Calibration = UNCALIBRATED) -> Divergence:
        """KL divergence of a cache configuration from f16; measured once in a run."""
        key = (pair, knobs, calibration)
        if key not in self._divergences:
            self._divergences[key], _ = compare(
                self.runner, self.model, self.text, pair, self.base(), knobs, calibration
            )
        return self._divergences[key]

    def cleanup(self) -> None:
        """Remove what only this run needed (logits are 25 MB a chunk)."""
        for pattern in ("*.logits", "slots/*"):
            for path in self.work.glob(pattern):
                path.unlink(missing_ok=True)
