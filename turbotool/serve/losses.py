"""What is known of the loss of each cache on a model: measured on this very model, or on one of its kind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from turbotool.errors import StoreError, first_line
from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.identity import binaries_hash
from turbotool.evaluation.store import Store, StoredCell, look_into_store
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, beside, can_gain
from turbotool.programs.binaries import Binaries
from turbotool.programs.divergence import Estimate
from turbotool.serve.families import ModelFamily, family_of

Z = NormalDist().inv_cdf(0.975)  # standard errors on both sides that hold 95 %
REFERENCE, EVALUATION, TABLE = "f16", "evaluation", "table"
OTHER_PROGRAMS = "this model was evaluated with other programs than these, which does not count"
OTHER_CALIBRATION = "this model was evaluated with another calibration than it has now, which does not count"


@dataclass(frozen=True)
class Loss:
    """Mean KLD against an f16 cache in nats, and what that was measured on: f16 itself, this model, one of its kind."""

    kld: Estimate
    source: str

    @property
    def most(self) -> float:
        """With 1.96 standard errors."""
        return self.kld.value + Z * self.kld.error if math.isfinite(self.kld.value) else math.inf

    @property
    def least(self) -> float:
        return self.kld.value - Z * self.kld.error


NONE = Loss(Estimate(0.0), REFERENCE)


@dataclass(frozen=True)
class Evidence:
    """The kind of a model, and the loss of each configuration that was evaluated on it as it would be served now.

    `note` says why an evaluation that is there does not count.
    """

    family: ModelFamily
    evaluated: tuple[tuple[Configuration, Loss], ...] = ()
    note: str = ""

    def of(self, pair: CachePair) -> tuple[Configuration, Loss | None]:
        """How a cache is served best, and what it loses then; None where that was not measured at all.

        A side is rotated only if the loss is less beyond the errors of both.
        """
        plain = Configuration(pair, calibration=AUTO if can_gain(pair) else UNCALIBRATED)
        if pair == F16:
            return plain, NONE
        found = [(one, loss) for one, loss in self.evaluated if one.pair == pair]
        off = next((loss for one, loss in found if one.rotation == "off"), None)
        best = min(found, key=lambda one: one[1].most, default=None)
        if best and (off is None or best[1].most < off.least):
            return best
        if off:
            return plain, off
        figure = self.family.loss(pair)
        return plain, Loss(figure, TABLE) if figure else None


def find_evidence(store: Path, model: Model, binaries: Binaries) -> Evidence:
    """What the store of evaluations has of the model with these programs, and its kind. Nothing is hashed for that.

    A store that cannot be read is told in the `note`.
    """
    family = family_of(model)
    try:
        with look_into_store(store) as found:
            known = found.known_sha256(model.path) if found else None
            if found is None or known is None:
                return Evidence(family)
            cells = found.cells(known)
            served = [one for one in cells if _as_served(one.configuration, model, found)]
            programs = _known_programs(found, binaries)
    except StoreError as error:
        return Evidence(family, note=f"evaluations cannot be read: {first_line(error.message)}")
    mine = [one for one in served if one.origin.binaries == programs]
    note = OTHER_PROGRAMS if served else OTHER_CALIBRATION
    return Evidence(family, tuple(_worst(mine)), note if cells and not mine else "")


def _as_served(configuration: Configuration, model: Model, store: Store) -> bool:
    """Whether it was calibrated as the programs do it now: with the file beside the model, if there is one."""
    calibration, file = configuration.calibration, beside(model.path)
    if not can_gain(configuration.pair):
        return calibration.is_off
    now = store.known_sha256(file) if file.is_file() else ""
    return calibration.is_auto and calibration.sha256 == now


@dataclass(frozen=True)
class _KnownHashes:
    """What the store knows of files; KeyError for one that it does not know as it is."""

    store: Store

    def sha256(self, path: Path) -> str:
        found = self.store.known_sha256(path)
        if found is None:
            raise KeyError(path)
        return found


def _known_programs(store: Store, binaries: Binaries) -> str:
    try:
        return binaries_hash(_KnownHashes(store), binaries)
    except (KeyError, OSError):
        return ""


def _worst(cells: Iterable[StoredCell]) -> list[tuple[Configuration, Loss]]:
    """The loss of each configuration on the text where it is most; of several on one text, that on most tokens."""
    longest: dict[tuple[Configuration, str], StoredCell] = {}
    for one in cells:
        place = (one.configuration, one.origin.corpus)
        if place not in longest or _tokens(longest[place]) < _tokens(one):
            longest[place] = one
    losses: dict[Configuration, Loss] = {}
    for (configuration, _), one in longest.items():
        loss = Loss(one.measured.divergence.mean, EVALUATION)
        if configuration not in losses or losses[configuration].most < loss.most:
            losses[configuration] = loss
    return list(losses.items())


def _tokens(one: StoredCell) -> int:
    return one.origin.ctx * one.origin.chunks
