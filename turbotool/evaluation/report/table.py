"""The cells of an evaluation and their verdicts as tables: for a terminal, in Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.judge.interval import CONFIDENCE
from turbotool.evaluation.judge.verdict import BASE, KLD, LN_RATIO, OFF, PLAIN, SAME_TOP, Comparison
from turbotool.evaluation.measure.decode import TOKEN_BY_TOKEN
from turbotool.evaluation.measure.probe import Probe
from turbotool.evaluation.report.document import cell_of, decode_paths, failure, noise_floor, without_folders
from turbotool.evaluation.sweep import CONTROL, Corpus, EvalJob
from turbotool.kv.effective import Effective, Rotation
from turbotool.kv.size import MIB
from turbotool.programs.divergence import Estimate
from turbotool.report import table
from turbotool.report.table import NOTHING, Column, shown_columns

CSV_COLUMNS = (
    *("corpus", "k", "v", "rotation", "calibration", "bits_per_value", "ppl", "ppl_error", "ppl_f16", "ppl_f16_error"),
    *("ppl_ratio", "ppl_ratio_error", "ln_ppl_ratio", "ln_ppl_ratio_error", "ppl_difference", "ppl_difference_error"),
    *("ppl_correlation", "mean_kld", "mean_kld_error", "median_kld", "max_kld", "mean_dp", "mean_dp_error"),
    *("rms_dp", "rms_dp_error", "same_top", "same_top_error", "chunks", "seconds", "failure", "peak_mib", "logits_mib"),
)
REASONS_TOLD = 3  # of those that make perplexity unreliable
SEQUENTIAL = f"intervals hold {CONFIDENCE:.0%} over all looks together"
DECODED = "What is recommended, computed a chunk at once, as everything above, and token by token, as text is generated"
DECODING = {"mean": 6, "rms_dp": 3, "same_top": 2}  # statistics with their decimals
BY_POSITION = (
    "Where a token stands in its chunk; the positions of the second half are those that all other figures are of. "
    "Errors are standard errors over tokens"
)
ONE_CHUNK = "one chunk was measured: differences are told of its blocks of positions, and are about this chunk alone"
QUANTITIES = {KLD: "mean KLD (nats)", LN_RATIO: "ln(PPL/f16)", SAME_TOP: "same top (%)"}


@dataclass(frozen=True)
class CellRow:
    """One cell with what is said about it: verdicts by (against, quantity), and why there is no figure."""

    job: EvalJob
    measured: Measured | None
    bits: float
    verdicts: Mapping[tuple[str, str], str]
    failure: str | None


def _spread(name: str, digits: int) -> Callable[[CellRow], str]:
    def show(row: CellRow) -> str:
        found: Estimate | None = getattr(row.measured.divergence, name) if row.measured else None
        return shown(found, digits)

    return show


def shown(found: Estimate | None, digits: int) -> str:
    """`0.0079 ± 0.0003`."""
    return NOTHING if found is None else found.text(digits)


def _verdict(against: str, quantity: str) -> Callable[[CellRow], str]:
    return lambda row: row.verdicts.get((against, quantity), NOTHING)


COLUMNS: tuple[Column[CellRow], ...] = (
    Column("cache", lambda row: row.job.configuration.cache, is_text=True),
    Column("rotation", lambda row: row.job.configuration.rotation, is_text=True),
    Column("bits", lambda row: f"{row.bits:.3f}"),
    Column("mean KLD (nats)", _spread("mean", 6)),
    Column("same top (%)", _spread("same_top", 2)),
    Column("PPL", _spread("ppl", 4)),
    Column("ln(PPL/f16)", _spread("ln_ratio", 5)),
    Column("KLD to off", _verdict(OFF, KLD), is_text=True),
    Column("top to off", _verdict(OFF, SAME_TOP), is_text=True),
    Column("KLD to uncalibrated", _verdict(PLAIN, KLD), is_text=True),
    Column("PPL to off", _verdict(OFF, LN_RATIO), is_text=True),
    Column("PPL to f16", _verdict(BASE, LN_RATIO), is_text=True),
    Column("trouble", lambda row: row.failure or NOTHING, is_text=True),
)


def rows(evaluation: Evaluation, corpus: Corpus) -> tuple[CellRow, ...]:
    """The configurations in the order of the plan, the q4_0 control last if it is not among them."""
    configurations = dict.fromkeys((*evaluation.sweep.configurations, CONTROL))
    return tuple(_row(evaluation, corpus, configuration) for configuration in configurations)


def _row(evaluation: Evaluation, corpus: Corpus, configuration: Configuration) -> CellRow:
    job = evaluation.sweep.job(corpus, configuration)
    verdicts = {
        (found.against, found.quantity): str(found.finding)
        for found in evaluation.comparisons
        if (found.corpus, found.configuration) == (corpus.name, configuration)
    }
    trouble = failure(evaluation.ledger, job)
    return CellRow(
        job,
        evaluation.ledger.measured.get(job),
        configuration.bits_per_value(evaluation.sweep.model),
        verdicts,
        trouble and without_folders(trouble, evaluation),
    )


def columns(found: Sequence[CellRow]) -> tuple[Column[CellRow], ...]:
    """Those that say anything about these rows."""
    return shown_columns(COLUMNS, found)


def text(found: Sequence[CellRow]) -> str:
    """Aligned lines."""
    return table.text(columns(found), found)


def markdown_table(found: Sequence[CellRow]) -> str:
    """The same in Markdown."""
    return table.markdown(columns(found), found)


def intervals(found: Sequence[Comparison]) -> list[list[str]]:
    """Every comparison as a line of a table, the heading first."""
    lines = [["text", "cache", "rotation", "against", "quantity", "difference", "interval", "verdict"]]
    for one in found:
        between = one.plain
        lines.append(
            [
                one.corpus,
                one.configuration.cache,
                one.configuration.rotation,
                one.against,
                QUANTITIES[one.quantity],
                f"{between.mean:+.6f}" if between else NOTHING,
                f"{between.low:+.6f} to {between.high:+.6f}" if between else NOTHING,
                str(one.finding),
            ]
        )
    return lines


def comma_separated(evaluation: Evaluation) -> str:
    """One line for each cell and the q4_0 control on each text; figures in full, empty where there is none."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for corpus in evaluation.sweep.corpora:
        for row in rows(evaluation, corpus):
            writer.writerow({**vars(cell_of(evaluation, row.job)), "failure": row.failure})
    return sink.getvalue()


def conclusions(evaluation: Evaluation) -> list[str]:
    """What follows from the figures, a line each: controls, perplexity, recommendation."""
    sweep, choice = evaluation.sweep, evaluation.choice
    lines = [_floor(evaluation, corpus) for corpus in sweep.corpora]
    lines += map(str, decode_paths(evaluation))
    lines += _in_force(evaluation)
    for found in evaluation.perplexity:
        told = [*found.reasons[:REASONS_TOLD], *_more(len(found.reasons) - REASONS_TOLD)]
        lines += [f"perplexity is unreliable for this model on {found.corpus}: {reason}" for reason in told]
        if found.reliable:
            lines.append(f"perplexity and KLD do not contradict each other on {found.corpus}")
    lines += [
        f"completion under {probe.configuration}: {probe.right} of {len(probe.answers)} right"
        + (f" ({trouble[0].error})" if (trouble := [answer for answer in probe.answers if answer.error]) else "")
        for probe in evaluation.probes
    ]
    lines += _lost(evaluation.probes)
    saved = f"{choice.memory.mib:.0f} MiB of KV cache at {choice.memory.ctx} tokens"
    if choice.saved_mib:
        saved += f", {choice.saved_mib:.0f} MiB less than f16"
    doubt = "" if choice.memory.exact else " (an estimate: the binary's own sizes do not follow from the heads)"
    lines += [ONE_CHUNK] if any(one.blocks for one in evaluation.comparisons) else []
    lines += _cost(evaluation)
    if evaluation.resolution:
        lines.append(f"{evaluation.resolution}; {SEQUENTIAL}")
    return [*lines, f"recommended: {choice.configuration}: {choice.reason}", f"  {saved}{doubt}", f"  {choice.command}"]


def _cost(evaluation: Evaluation) -> list[str]:
    """The most memory and disk that a run took, as far as it is known."""
    found = evaluation.ledger.measured.values()
    peaks = [one.peak for one in found if one.peak is not None]
    logits = [one.logits for one in found if one.logits is not None]
    if not peaks or not logits:
        return []
    stored = f"{max(logits) / MIB:.0f} MiB of stored logits" if max(logits) else "no logits were stored"
    return [f"a run had at most {max(peaks) / MIB:.0f} MiB resident, and {stored}"]


def _more(count: int) -> list[str]:
    return [f"and {count} more reasons, all in the JSON document"] if count > 0 else []


def _lost(probes: Sequence[Probe]) -> list[str]:
    """A warning if what is recommended answers fewer prompts than f16, the first of the probes."""
    lost = probes[0].right - probes[-1].right if probes else 0
    return [f"under {probes[-1].configuration} {lost} answers are lost: read them before using it"] if lost > 0 else []


def _floor(evaluation: Evaluation, corpus: Corpus) -> str:
    found = noise_floor(evaluation, corpus)
    state = "zero" if found.ok else "NOT ZERO"
    again = "both runs alike" if found.repeats else "the runs differ"
    klds = " and ".join("nan" if kld is None else f"{abs(kld):.6f}" for kld in found.mean_kld)
    return f"noise floor on {corpus.name}: {state}; f16 against itself {klds} nats, {again}"


def _in_force(evaluation: Evaluation) -> list[str]:
    """How caches were calibrated; runs after the first one take what that has kept."""
    found = {
        (job.configuration.calibration, one.layers, one.hash): one.source
        for job, measured in reversed(evaluation.ledger.measured.items())
        for one in measured.effective.in_force
    }
    return [
        f"calibrated with {asked}: {layers} layers, hash {of} ({found[asked, layers, of]})"
        for asked, layers, of in found
    ]


def decoding(evaluation: Evaluation) -> list[list[str]]:
    """Both runs of the control of the decode path on each text, the heading first."""
    lines = [["text", "cache", "tokens at once", "mean KLD (nats)", "maximum", "RMS Δp (%)", "same top (%)", "verdict"]]
    for path in decode_paths(evaluation):
        for at_once, run in ((evaluation.sweep.ctx, path.batch), (TOKEN_BY_TOKEN, path.single)):
            found = run.divergence if run else None
            spreads = [shown(getattr(found, name) if found else None, digits) for name, digits in DECODING.items()]
            most = f"{found.maximum:.6f}" if found else NOTHING
            start = [path.corpus, str(path.configuration), str(at_once)]
            lines.append([*start, spreads[0], most, *spreads[1:], path.verdict])
    return lines


def by_position(evaluation: Evaluation, corpus: Corpus) -> list[list[str]]:
    """KLD by position of each cell on a text, the heading first; nothing else where no program told of it."""
    lines = [["cache", "rotation", "positions", "tokens", "mean KLD (nats)", "same top (%)"]]
    for row in rows(evaluation, corpus):
        for one in row.measured.divergence.positions if row.measured else ():
            start = [row.job.configuration.cache, row.job.configuration.rotation, f"{one.begin} to {one.end - 1}"]
            lines.append([*start, str(one.tokens), shown(one.kld, 6), shown(one.same_top, 2)])
    return lines


def effective(evaluation: Evaluation) -> list[list[str]]:
    """What each run reported about its cache, the heading first."""
    lines = [
        [
            "text",
            "cache",
            "asked rotation",
            "K",
            "V",
            "K rotated",
            "V rotated",
            "turbo K",
            "turbo V",
            "calibration",
            "KV MiB",
        ]
    ]
    for job, measured in evaluation.ledger.measured.items():
        found = measured.effective
        sides = ({cache.k for cache in found.caches}, {cache.v for cache in found.caches})
        rotations = map(_state, (found.attn_k, found.attn_v, found.turbo_k, found.turbo_v))
        size = f"{sum(cache.mib for cache in found.caches):.2f}"
        at_once = f", ubatch {job.ubatch}" if job.ubatch else ""
        asked = [job.corpus.name, job.configuration.cache + at_once, job.configuration.rotation]
        lines.append([*asked, *(", ".join(sorted(types)) for types in sides), *rotations, _calibrated(found), size])
    return lines


def _calibrated(found: Effective) -> str:
    """`on, hash 0123456789abcdef (auto's file)`, or why there is none."""
    states = [f"on, hash {one.hash} ({one.source})" if one.on else f"off ({one.reason})" for one in found.calibrations]
    return "; ".join(dict.fromkeys(states)) or NOTHING


def _state(rotation: Rotation | None) -> str:
    if not rotation:
        return NOTHING
    return f"on, {rotation.size}" if rotation.on else "off"
