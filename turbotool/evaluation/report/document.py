"""An evaluation as one JSON document, and as one that may be shown to others: it names no folder of the machine."""

from __future__ import annotations

from typing import Any, cast

from msgspec import UNSET

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.judge.choice import Choice
from turbotool.evaluation.judge.decode import DecodePath, decode_path
from turbotool.evaluation.judge.finding import PERCENT
from turbotool.evaluation.judge.interval import exp
from turbotool.evaluation.judge.tolerance import Tolerance
from turbotool.evaluation.judge.verdict import Comparison
from turbotool.evaluation.measure.decode import TOKEN_BY_TOKEN
from turbotool.evaluation.measure.probe import Probe
from turbotool.evaluation.measure.work import EvalLedger, verdict
from turbotool.evaluation.planfile import STORED, STREAMED
from turbotool.evaluation.report.fields import (
    BinariesFields,
    CacheFields,
    CellFields,
    ComparisonFields,
    ControlFields,
    CorpusFields,
    DecodePathFields,
    DpFields,
    EvalDocument,
    EvalSettings,
    KldFields,
    ModelFile,
    NoiseBound,
    NoiseFloor,
    PerplexityFields,
    PositionFields,
    ProbeFields,
    RecommendationFields,
    ResolutionFields,
    RunningFields,
    VerdictFields,
)
from turbotool.evaluation.resolution import Resolution
from turbotool.evaluation.sweep import CONTROL, Corpus, EvalJob, Sweep
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import Calibration
from turbotool.kv.size import MIB
from turbotool.programs.divergence import Divergence, Position
from turbotool.programs.perplexity import NOISE_MAX, most_noise
from turbotool.report import private
from turbotool.report.document import number
from turbotool.system.documents import error_fields

JSON_NAME, CSV_NAME, MARKDOWN_NAME, HTML_NAME = "eval.json", "eval.csv", "eval.md", "eval.html"
UNITS = {
    "mean_kld, median_kld, kld": "nats a token",
    "ppl, ppl_f16, ppl_ratio": "perplexity, and its ratio to that of f16",
    "same_top": "% of tokens whose likeliest successor is that of f16",
    "mean_dp, rms_dp, dp": "percentage points of the probability of the right token",
    "bits_per_value": "bits of a cached value, both sides averaged, padding included",
    "*_error": "standard error over tokens",
    "low, high": "interval of a paired difference over chunks",
    "ratio": "of mean KLDs or of perplexities, paired over chunks",
    "at_least, within": "in the unit that stands beside them: %, nats or percentage points",
    "running": "means over the chunks up to each, as printed",
    "peak_mib, logits_mib": "MiB resident at once, and on the disk",
}
# what a document calls a figure -> what `Divergence` and `Running` call it
ESTIMATES = {
    "ppl": "ppl",
    "ppl_f16": "ppl_base",
    "ppl_ratio": "ratio",
    "ln_ppl_ratio": "ln_ratio",
    "ppl_difference": "difference",
    "mean_kld": "mean",
    "mean_dp": "mean_dp",
    "rms_dp": "rms_dp",
    "same_top": "same_top",
}
RUNNING = {"ppl": "ppl", "ln_ppl_ratio": "ln_ratio", "mean_kld": "kld", "rms_dp": "rms_dp", "same_top": "same_top"}


def document(evaluation: Evaluation) -> EvalDocument:
    """The document of `turbotool eval --json`. What is not finite is null, and `failure` then says why."""
    sweep, equal = evaluation.sweep, evaluation.criteria.equal
    failed = verdict(evaluation.ledger, sweep.runner.log)
    return EvalDocument(
        ok=failed is None,
        model=ModelFile(path=str(sweep.model.path), name=sweep.model.path.name, sha256=sweep.model_sha256),
        binaries=_binaries(sweep),
        corpora=tuple(CorpusFields(name=one.name, path=str(one.path), sha256=one.sha256) for one in sweep.corpora),
        settings=EvalSettings(
            sweep.ctx, sweep.chunks, "on", equal.kld, equal.ppl, equal.same_top, STREAMED if sweep.streamed else STORED
        ),
        machine=evaluation.machine,
        command=evaluation.command,
        plan=evaluation.plan,
        units=UNITS,
        cells=tuple(cell(evaluation, corpus, one) for corpus in sweep.corpora for one in sweep.configurations),
        left_out=tuple(CacheFields(**cache(one)) for one in sweep.left_out),
        controls=controls(evaluation),
        verdicts=_verdicts(evaluation),
        recommendation=_recommendation(evaluation.choice, evaluation.tolerance),
        resolution=_resolution(evaluation.resolution) if evaluation.resolution else UNSET,
        log=str(sweep.runner.log),
        error=error_fields(failed) if failed else UNSET,
    )


def _binaries(sweep: Sweep) -> BinariesFields:
    found = sweep.runner.binaries
    return BinariesFields(
        bin_dir=str(found.bin_dir), backend=found.backend, tree=found.tree or None, sha256=sweep.binaries
    )


def cache(configuration: Configuration) -> dict[str, Any]:
    """The fields that say which cache it is."""
    pair, calibration = configuration.pair, configuration.calibration
    return {
        "k": pair.k,
        "v": pair.v,
        "rotation": configuration.rotation,
        "calibration": calibration.name,
        "calibration_sha256": calibration.sha256 or None,
    }


def configuration(of: CacheFields | CellFields | ComparisonFields | RecommendationFields) -> Configuration:
    """The inverse of `cache`."""
    return Configuration(
        CachePair(of.k, of.v), of.rotation, Calibration(of.calibration, None, of.calibration_sha256 or "")
    )


def cell(evaluation: Evaluation, corpus: Corpus, configuration: Configuration) -> CellFields:
    """One configuration on one text."""
    return cell_of(evaluation, evaluation.sweep.job(corpus, configuration))


def cell_of(evaluation: Evaluation, job: EvalJob) -> CellFields:
    """Every statistic of one run; None throughout, and `failure`, where there is none."""
    measured = evaluation.ledger.measured.get(job)
    return CellFields(
        corpus=job.corpus.name,
        **cache(job.configuration),
        bits_per_value=job.configuration.bits_per_value(evaluation.sweep.model),
        **statistics(measured),
        failure=failure(evaluation.ledger, job),
    )


def statistics(measured: Measured | None) -> dict[str, Any]:
    """The figures of a cell by name, see UNITS, and what ran; None throughout where nothing was measured."""
    found = measured.divergence if measured else None
    figures: dict[str, Any] = {}
    for name, of in ESTIMATES.items():
        spread = getattr(found, of) if found else None
        figures |= {name: spread and number(spread.value), f"{name}_error": spread and number(spread.error)}
    return {
        **figures,
        "ppl_correlation": found and number(found.correlation),
        "median_kld": found and number(found.median),
        "max_kld": found and number(found.maximum),
        "kld": found and cast(KldFields, {f"{percent:g}%": number(value) for percent, value in found.kld.points}),
        "dp": found and cast(DpFields, {f"{percent:g}%": number(value) for percent, value in found.dp.points}),
        "chunks": found and len(found.running),
        "running": found and _running(found),
        "effective": measured and measured.effective,
        "seconds": measured and round(measured.seconds, 2),
        "machine": measured and measured.machine,
        "peak_mib": _mib(measured.peak) if measured else None,
        "logits_mib": _mib(measured.logits) if measured else None,
        "positions": tuple(map(_position, found.positions)) if found else (),
    }


def _mib(size: int | None) -> float | None:
    return None if size is None else round(size / MIB, 1)


def _position(one: Position) -> PositionFields:
    spreads = [one.kld, one.ln_ratio, one.rms_dp, one.same_top]
    figures = [number(value) for spread in spreads for value in (spread.value, spread.error)]
    return PositionFields(one.begin, one.end, one.tokens, *figures)


def _running(found: Divergence) -> RunningFields:
    columns = {name: tuple(number(getattr(row, of).value) for row in found.running) for name, of in RUNNING.items()}
    return RunningFields(**columns)


def failure(ledger: EvalLedger, job: EvalJob) -> str | None:
    """Why there is no figure, or none that is finite."""
    if job in ledger.failures:
        return ledger.failures[job].message.partition("\n")[0]
    measured = ledger.measured.get(job)
    if measured is None:
        return "not measured"
    return None if measured.is_finite else "not finite"


def controls(evaluation: Evaluation) -> ControlFields:
    """The noise floor on each text, q4_0 without rotation, the completion probe, and the path that people decode on."""
    corpora = evaluation.sweep.corpora
    return ControlFields(
        tuple(noise_floor(evaluation, corpus) for corpus in corpora),
        tuple(cell(evaluation, corpus, CONTROL) for corpus in corpora),
        tuple(_probe(probe) for probe in evaluation.probes),
        tuple(_decoding(path, evaluation.sweep.ctx) for path in decode_paths(evaluation)),
    )


def decode_paths(evaluation: Evaluation) -> tuple[DecodePath, ...]:
    """What is recommended, token by token, on each text."""
    sweep, ledger, chosen = evaluation.sweep, evaluation.ledger, evaluation.choice.configuration
    equal = evaluation.criteria.equal
    return tuple(decode_path(sweep, ledger, corpus, chosen, equal) for corpus in sweep.corpora)


def _decoding(path: DecodePath, ctx: int) -> DecodePathFields:
    runs, agreed = [statistics(run) for run in (path.batch, path.single)], path.agreed
    names = ("chunks", "mean_kld", "mean_kld_error", "max_kld", "rms_dp", "same_top", "ppl", "seconds")
    figures: dict[str, Any] = {name: tuple(run[name] for run in runs) for name in names}
    return DecodePathFields(
        corpus=path.corpus,
        **cache(path.configuration),
        ok=path.ok,
        verdict=path.verdict,
        finding=str(path),
        ubatch=(ctx, TOKEN_BY_TOKEN),
        **figures,
        difference=number(agreed.difference) if agreed else None,
        bound=number(agreed.bound) if agreed else None,
        failure=path.failure,
    )


def noise_floor(evaluation: Evaluation, corpus: Corpus) -> NoiseFloor:
    """Both runs of f16 against itself, and whether nothing but the 16-bit storage of the base shows."""
    jobs = evaluation.sweep.noise(corpus)
    runs = [evaluation.ledger.measured[job].divergence for job in jobs if job in evaluation.ledger.measured]
    most = most_noise(evaluation.sweep.runner.binaries.backend)
    silent = all(abs(run.mean.value) <= most and run.maximum <= NOISE_MAX for run in runs)
    return NoiseFloor(
        corpus=corpus.name,
        ok=len(runs) == len(jobs) and silent,
        mean_kld=tuple(number(run.mean.value) for run in runs),
        max_kld=tuple(number(run.maximum) for run in runs),
        same_top=tuple(number(run.same_top.value) for run in runs),
        repeats=len(runs) == len(jobs) and repr(runs[0]) == repr(runs[1]),  # an error may be nan
        bound=NoiseBound(most, NOISE_MAX),
    )


def _probe(probe: Probe) -> ProbeFields:
    return ProbeFields(**cache(probe.configuration), right=probe.right, answers=probe.answers)


def _verdicts(evaluation: Evaluation) -> VerdictFields:
    return VerdictFields(
        tuple(comparison(one) for one in evaluation.comparisons),
        tuple(PerplexityFields(one.corpus, one.reliable, one.reasons) for one in evaluation.perplexity),
    )


def comparison(one: Comparison) -> ComparisonFields:
    """A comparison with its interval and its verdict."""
    found, said = one.plain, one.finding
    ratio = one.difference if one.unit == PERCENT else None
    return ComparisonFields(
        corpus=one.corpus,
        **cache(one.configuration),
        against=one.against,
        quantity=one.quantity,
        difference=number(found.mean) if found else None,
        low=number(found.low) if found else None,
        high=number(found.high) if found else None,
        confidence=found.confidence if found else None,
        chunks=(1 if one.blocks else found.chunks) if found else None,
        verdict=said.word,
        finding=str(said),
        unit=said.unit,
        at_least=said.at_least,
        within=said.within,
        chunks_more=said.chunks_more,
        ratio=exp(ratio.mean) if ratio else None,
        ratio_low=exp(ratio.low) if ratio else None,
        ratio_high=exp(ratio.high) if ratio else None,
        blocks=found.chunks if found and one.blocks else None,
    )


def _resolution(found: Resolution) -> ResolutionFields:
    return ResolutionFields(
        looks=found.looks.chunks,
        confidence=found.looks.confidence,
        chunks=found.chunks,
        settled=found.settled,
        chunks_run=found.chunks_run,
        chunks_full=found.chunks_full,
        seconds=round(found.seconds, 2),
        seconds_full=round(found.seconds_full, 2),
    )


def _recommendation(choice: Choice, tolerance: Tolerance) -> RecommendationFields:
    return RecommendationFields(
        **cache(choice.configuration),
        environment=choice.environment,
        reason=choice.reason,
        mean_kld=number(choice.mean_kld),
        same_top=number(choice.same_top),
        ctx=choice.memory.ctx,
        kv_mib=choice.memory.mib,
        kv_mib_f16=choice.memory_f16.mib,
        saved_mib=choice.saved_mib,
        memory_exact=choice.memory.exact and choice.memory_f16.exact,
        command=choice.command,
        max_kld=number(tolerance.mean_kld),
        min_same_top=tolerance.same_top,
        settled=choice.settled,
    )


def shareable(evaluation: Evaluation) -> EvalDocument:
    """The document without folders of this machine, and of messages only the line that says what happened."""
    return private.shareable(document(evaluation), path_names(evaluation.sweep))


def without_folders(text: str, evaluation: Evaluation) -> str:
    """The first line of a text, with names in place of the paths that the evaluation knows."""
    return private.without_folders(text, path_names(evaluation.sweep))


def path_names(sweep: Sweep) -> dict[str, str]:
    """What stands in place of the paths of model, texts, calibrations, programs and work folder."""
    calibrations = [one.calibration for one in sweep.configurations]
    return {
        str(sweep.model.path): sweep.model.path.name,
        str(sweep.runner.binaries.bin_dir): "BIN_DIR",
        str(sweep.runner.work): "work",
        **{str(one.path): one.path.name for one in calibrations if one.path},
        **{str(corpus.path): corpus.name for corpus in sweep.corpora},
    }
