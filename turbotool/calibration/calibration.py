"""A calibration that was made: of what, on what, what it promises, and what the check found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turbotool.calibration.check import KldCheck
from turbotool.calibration.destination import Destination
from turbotool.calibration.statistics import Statistics
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import AUTO, OPTION, beside


@dataclass(frozen=True)
class CalibratedModel:
    """`pair` is what the check compared, or would have; `page` the file with the plots, None if none was written."""

    model: Model
    texts: tuple[Path, ...]
    ctx: int
    sequences: int
    target: Destination
    statistics: Statistics
    pair: CachePair
    check: KldCheck | None
    page: Path | None
    log: Path
    command: str

    @property
    def measured(self) -> int:
        """Sequences that the text gave."""
        return self.statistics.n_tokens // self.ctx

    @property
    def words(self) -> tuple[str, ...]:
        """What serves with it: the words behind llama-server, the file where the programs do not find it themselves."""
        found = self.target.embeds or self.target.path == beside(self.model.path)
        model = self.target.path if self.target.embeds else self.model.path
        source = AUTO.word if found else str(self.target.path)
        return ("-m", str(model), *self.pair.flags, OPTION, source)
