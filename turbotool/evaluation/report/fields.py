"""The fields of the document of an evaluation. A figure is null where nothing was measured, or nothing finite.

Errors are standard errors over tokens, KLD is in nats a token, perplexities have no unit; see `UNITS` in `document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from msgspec import UNSET, UnsetType

from turbotool.errors import ResultError
from turbotool.evaluation.measure.probe import Answer
from turbotool.kv.calibration import UNCALIBRATED
from turbotool.kv.effective import Effective
from turbotool.system.documents import ErrorFields, document
from turbotool.system.machine import Machine

Sides = Literal["off", "k", "v", "kv"]  # those that are rotated: the keys of ROTATIONS
Figures = tuple[float | None, ...]
_Ranks = TypedDict(
    "_Ranks",
    {
        "0%": "float | None",
        "0.1%": "float | None",
        "1%": "float | None",
        "5%": "float | None",
        "10%": "float | None",
        "50%": "float | None",
        "90%": "float | None",
        "95%": "float | None",
        "99%": "float | None",
        "99.9%": "float | None",
        "100%": "float | None",
    },
)
_Quartiles = TypedDict("_Quartiles", {"25%": "float | None", "75%": "float | None"})


class KldFields(_Ranks):
    """KLD in nats that so many percent of the tokens do not exceed."""


class DpFields(_Ranks, _Quartiles):
    """Change of the right token's probability in percentage points that so many percent of the tokens do not exceed."""


@dataclass(frozen=True)
class RunningFields:
    """Means over the chunks up to each, as they were printed: a value for each chunk."""

    ppl: Figures
    ln_ppl_ratio: Figures
    mean_kld: Figures
    rms_dp: Figures
    same_top: Figures


@dataclass(frozen=True)
class PositionFields:
    """Tokens at positions from `begin` up to `end` of their chunks: how many, and figures as `CellFields` has them.

    Those from the half of a chunk on are the ones that all other figures are of.
    """

    begin: int
    end: int
    tokens: int
    mean_kld: float | None
    mean_kld_error: float | None
    ln_ppl_ratio: float | None
    ln_ppl_ratio_error: float | None
    rms_dp: float | None
    rms_dp_error: float | None
    same_top: float | None
    same_top_error: float | None


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The file that was measured; `path` is left out of what is shown to others."""

    path: str | UnsetType = UNSET
    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class BinariesFields:
    """The programs: `tree` is git's id of the tree that they were built from, if known; sha256 of all of them."""

    bin_dir: str | UnsetType = UNSET
    backend: str
    tree: str | None
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CorpusFields:
    """A text by its name, and the sha256 of its bytes."""

    name: str
    path: str | UnsetType = UNSET
    sha256: str


@dataclass(frozen=True)
class EvalSettings:
    """Tokens of a chunk, and the most chunks of a text. `equal_*` say what is no difference.

    KLD and perplexity in percent of the other one, same top in percentage points; null in documents that are older. So
    are `logits`: those of f16 are stored in a file, or streamed, that is computed beside each cell and kept nowhere.
    """

    ctx: int
    chunks: int
    flash_attn: str
    equal_kld: float | None = None
    equal_ppl: float | None = None
    equal_top: float | None = None
    logits: str | None = None


@dataclass(frozen=True)
class ResolutionFields:
    """How an evaluation went that added chunks until its recommendation could no longer change.

    `looks` are the numbers of chunks that were planned, `chunks` the last that was taken. All intervals of a quantity
    over the looks hold together with `confidence`. `chunks_run` are the chunks of all runs, `chunks_full` those of
    every cell with as many as there may be, `seconds` and `seconds_full` the same in time, the latter estimated.
    """

    looks: tuple[int, ...]
    confidence: float
    chunks: int
    settled: bool
    chunks_run: int
    chunks_full: int
    seconds: float
    seconds_full: float


@dataclass(frozen=True, kw_only=True)
class CacheFields:
    """A cache: types of K and V, the sides that are rotated, and what it is calibrated with.

    `calibration` is off, auto or the name of a file, `calibration_sha256` that of the file; with auto of the one beside
    the model, if there is one. Documents that do not say it are older than calibrations.
    """

    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class CellFields:
    """One cache on one text against f16: figures, the configuration that ran, its seconds, or why there is no figure.

    `bits_per_value` is the average over both sides; perplexity (`ppl`) is set beside that of f16, with the ratio of the
    two, its logarithm and the difference; `ppl_correlation` and `same_top` are in percent, `mean_dp` and `rms_dp` in
    percentage points. `peak_mib` is the most memory that the run had resident at once, `logits_mib` what stored logits
    of f16 took on the disk, both null where not known; `positions` are told where logits were streamed.
    """

    corpus: str
    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    bits_per_value: float
    ppl: float | None
    ppl_error: float | None
    ppl_f16: float | None
    ppl_f16_error: float | None
    ppl_ratio: float | None
    ppl_ratio_error: float | None
    ln_ppl_ratio: float | None
    ln_ppl_ratio_error: float | None
    ppl_difference: float | None
    ppl_difference_error: float | None
    mean_kld: float | None
    mean_kld_error: float | None
    mean_dp: float | None
    mean_dp_error: float | None
    rms_dp: float | None
    rms_dp_error: float | None
    same_top: float | None
    same_top_error: float | None
    ppl_correlation: float | None
    median_kld: float | None
    max_kld: float | None
    kld: KldFields | None
    dp: DpFields | None
    chunks: int | None
    running: RunningFields | None
    effective: Effective | None
    seconds: float | None
    machine: str | None
    failure: str | None
    peak_mib: float | None = None
    logits_mib: float | None = None
    positions: tuple[PositionFields, ...] = ()


@dataclass(frozen=True)
class NoiseBound:
    """The most, in nats, that the 16-bit storage of the base explains."""

    mean_kld: float
    max_kld: float


@dataclass(frozen=True)
class NoiseFloor:
    """f16 against itself, a figure for each of two runs; `repeats` if both printed the same, `ok` if inside bounds."""

    corpus: str
    ok: bool
    mean_kld: Figures
    max_kld: Figures
    same_top: Figures
    repeats: bool
    bound: NoiseBound


@dataclass(frozen=True, kw_only=True)
class DecodePathFields:
    """What is recommended, on a text, with each of `ubatch` tokens computed at once: a whole chunk, and one.

    Figures have a value for each of the two, as `CellFields` has them, and are null for one that could not be measured.
    `difference` is the mean KLD token by token minus that of the batch. `verdict` is identical (all that was printed),
    equal (within `bound` nats), apart, or not measured; `ok` for the first two.
    """

    corpus: str
    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    ok: bool
    verdict: str
    finding: str
    ubatch: tuple[int, ...]
    chunks: tuple[int | None, ...]
    mean_kld: Figures
    mean_kld_error: Figures
    max_kld: Figures
    rms_dp: Figures
    same_top: Figures
    ppl: Figures
    seconds: Figures
    difference: float | None
    bound: float | None
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class ProbeFields:
    """Three questions under a cache, and how many of the answers are right."""

    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    right: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class ControlFields:
    """What always runs: f16 against itself, q4_0 without rotation, the questions, and what decodes token by token.

    `decode_path` is empty in documents that are older.
    """

    noise_floor: tuple[NoiseFloor, ...]
    q4_0: tuple[CellFields, ...]
    completion: tuple[ProbeFields, ...]
    decode_path: tuple[DecodePathFields, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ComparisonFields:
    """A quantity of a cell minus that of `against`, paired over `chunks`, and what that means.

    `against` is off (the same cache, not rotated), uncalibrated (the same cache, that) or f16. `low` and `high` hold
    the true difference with `confidence`; all are null for too few chunks. Of KLD against another cache these follow
    from the interval of the `ratio`, which is also told of perplexities, and of nothing else.

    `verdict` is better, worse, equal, unresolved, or below f16; documents that are older know neither equal nor
    unresolved and say within noise, or too few chunks. `finding` is the same in words. A difference is `at_least` as
    large, equal `within` a bound (both in `unit`), or unresolved until there are about `chunks_more`; 10000 stand for
    as many or more. Of a single chunk it may be paired over so many `blocks` of positions: it is then one of this
    chunk, not of the text.
    """

    corpus: str
    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    against: str
    quantity: str
    difference: float | None
    low: float | None
    high: float | None
    confidence: float | None
    chunks: int | None
    verdict: str
    finding: str | None = None
    unit: str | None = None
    at_least: float | None = None
    within: float | None = None
    chunks_more: int | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    blocks: int | None = None


@dataclass(frozen=True)
class PerplexityFields:
    """Whether perplexity can be used to choose a cache for this model on this text, and if not, why."""

    corpus: str
    reliable: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class VerdictFields:
    """What the figures say: each cell against off and f16, and whether perplexity can be trusted."""

    comparisons: tuple[ComparisonFields, ...]
    perplexity: tuple[PerplexityFields, ...]


@dataclass(frozen=True, kw_only=True)
class RecommendationFields:
    """The cache to run, why, its memory in MiB at `ctx` tokens beside that of f16, and the command that serves it.

    `mean_kld` (nats) and `same_top` (%) are the least favourable over the texts, `max_kld` and `min_same_top` what was
    tolerated. `memory_exact` says whether sizes that the programs reported confirm the calculation, `settled` whether
    more chunks cannot change it, as far as intervals hold; null in documents that are older.
    """

    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    environment: dict[str, str]
    reason: str
    mean_kld: float | None
    same_top: float | None
    ctx: int
    kv_mib: float
    kv_mib_f16: float
    saved_mib: float
    memory_exact: bool
    command: str
    max_kld: float | None
    min_same_top: float
    settled: bool | None = None


@document("eval", error=ResultError)
@dataclass(frozen=True, kw_only=True)
class EvalDocument:
    """An evaluation of KV caches on a model: cells, controls, verdicts and the recommendation that follows.

    `units` say what the figures are in. What names a folder of the machine is left out of what is shown to others.
    """

    ok: bool
    model: ModelFile
    binaries: BinariesFields
    corpora: tuple[CorpusFields, ...]
    settings: EvalSettings
    machine: Machine
    command: str
    plan: str | None
    units: dict[str, str]
    cells: tuple[CellFields, ...]
    left_out: tuple[CacheFields, ...]
    controls: ControlFields
    verdicts: VerdictFields
    recommendation: RecommendationFields
    resolution: ResolutionFields | UnsetType = UNSET
    log: str | UnsetType = UNSET
    error: ErrorFields | UnsetType = UNSET
