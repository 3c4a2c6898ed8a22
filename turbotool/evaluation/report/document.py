"""An evaluation as one JSON document, and as one that may be shown to others: it names no folder of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.measure.work import EvalLedger, verdict
from turbotool.evaluation.sweep import CONTROL, Corpus, EvalJob, Sweep
from turbotool.programs.perplexity import NOISE_MAX, most_noise
from turbotool.report.document import finite

PRIVATE = ("bin_dir", "log", "path")
UNITS = {
    "mean_kld, median_kld, kld": "nats a token",
    "ppl, ppl_f16, ppl_ratio": "perplexity, and its ratio to that of f16",
    "same_top": "% of tokens whose likeliest successor is that of f16",
    "mean_dp, rms_dp, dp": "percentage points of the probability of the right token",
    "bits_per_value": "bits of a cached value, both sides averaged, padding included",
    "*_error": "standard error over tokens",
    "low, high": "interval of a paired difference over chunks",
    "running": "means over the chunks up to each, as printed",
}
RUNNING = {"ppl": "ppl", "ln_ppl_ratio": "ln_ratio", "mean_kld": "kld", "rms_dp": "rms_dp", "same_top": "same_top"}


def document(evaluation: Evaluation) -> dict[str, object]:
    """The document of `turbotool eval --json`. What is not finite is null, and `failure` then says why."""
    sweep, ledger = evaluation.sweep, evaluation.ledger
    failed = verdict(ledger, sweep.runner.log)
    binaries = sweep.runner.binaries
    found = {
        "ok": failed is None,
        "model": {"path": str(sweep.model.path), "name": sweep.model.path.name, "sha256": sweep.model_sha256},
        "binaries": {
            "bin_dir": str(binaries.bin_dir),
            "backend": binaries.backend,
            "tree": binaries.tree or None,
            "sha256": sweep.binaries,
        },
        "corpora": [{"name": one.name, "path": str(one.path), "sha256": one.sha256} for one in sweep.corpora],
        "settings": {"ctx": sweep.ctx, "chunks": sweep.chunks, "flash_attn": "on"},
        "machine": evaluation.machine.as_json(),
        "command": evaluation.command,
        "plan": evaluation.plan,
        "units": UNITS,
        "cells": [cell(evaluation, corpus, one) for corpus in sweep.corpora for one in sweep.configurations],
        "left_out": [{"k": one.pair.k, "v": one.pair.v, "rotation": one.rotation} for one in sweep.left_out],
        "controls": controls(evaluation),
        "verdicts": {
            "comparisons": [one.as_json() for one in evaluation.comparisons],
            "perplexity": [one.as_json() for one in evaluation.perplexity],
        },
        "recommendation": {
            **evaluation.choice.as_json(),
            "max_kld": evaluation.tolerance.mean_kld,
            "min_same_top": evaluation.tolerance.same_top,
        },
        "log": str(sweep.runner.log),
        **({"error": failed.as_json()} if failed else {}),
    }
    plain = finite(found)
    assert isinstance(plain, dict)  # noqa: S101 (a mapping stays one)
    return plain


def cell(evaluation: Evaluation, corpus: Corpus, configuration: Configuration) -> dict[str, object]:
    """One configuration on one text."""
    return cell_of(evaluation, evaluation.sweep.job(corpus, configuration))


def cell_of(evaluation: Evaluation, job: EvalJob) -> dict[str, object]:
    """Every statistic of one run; None throughout, and `failure`, where there is none."""
    measured = evaluation.ledger.measured.get(job)
    return {
        "corpus": job.corpus.name,
        "k": job.configuration.pair.k,
        "v": job.configuration.pair.v,
        "rotation": job.configuration.rotation,
        "bits_per_value": job.configuration.bits_per_value(evaluation.sweep.model),
        **statistics(measured),
        "effective": measured and dict(measured.effective),
        "seconds": measured and round(measured.seconds, 2),
        "machine": measured and measured.machine,
        "failure": failure(evaluation.ledger, job),
    }


def statistics(measured: Measured | None) -> dict[str, object]:
    """Figures by name; see UNITS."""
    found = measured.divergence if measured else None
    spreads = {
        "ppl": found and found.ppl,
        "ppl_f16": found and found.ppl_base,
        "ppl_ratio": found and found.ratio,
        "ln_ppl_ratio": found and found.ln_ratio,
        "ppl_difference": found and found.difference,
        "mean_kld": found and found.mean,
        "mean_dp": found and found.mean_dp,
        "rms_dp": found and found.rms_dp,
        "same_top": found and found.same_top,
    }
    figures: dict[str, object] = {}
    for name, spread in spreads.items():
        figures |= {name: spread and spread.value, f"{name}_error": spread and spread.error}
    return {
        **figures,
        "ppl_correlation": found and found.correlation,
        "median_kld": found and found.median,
        "max_kld": found and found.maximum,
        "kld": found and {f"{percent:g}%": value for percent, value in found.kld.points},
        "dp": found and {f"{percent:g}%": value for percent, value in found.dp.points},
        "chunks": found and len(found.running),
        "running": found and {name: [getattr(row, of).value for row in found.running] for name, of in RUNNING.items()},
    }


def failure(ledger: EvalLedger, job: EvalJob) -> str | None:
    """Why there is no figure, or none that is finite."""
    if job in ledger.failures:
        return ledger.failures[job].message.partition("\n")[0]
    measured = ledger.measured.get(job)
    if measured is None:
        return "not measured"
    return None if measured.is_finite else "not finite"


def controls(evaluation: Evaluation) -> dict[str, object]:
    """The noise floor on each text, q4_0 without rotation, and the completion probe."""
    sweep = evaluation.sweep
    return {
        "noise_floor": [noise_floor(evaluation, corpus) for corpus in sweep.corpora],
        "q4_0": [cell(evaluation, corpus, CONTROL) for corpus in sweep.corpora],
        "completion": [probe.as_json() for probe in evaluation.probes],
    }


def noise_floor(evaluation: Evaluation, corpus: Corpus) -> dict[str, Any]:
    """Both runs of f16 against itself, and whether nothing but the 16-bit storage of the base shows."""
    jobs = evaluation.sweep.noise(corpus)
    runs = [evaluation.ledger.measured[job].divergence for job in jobs if job in evaluation.ledger.measured]
    most = most_noise(evaluation.sweep.runner.binaries.backend)
    silent = all(abs(run.mean.value) <= most and run.maximum <= NOISE_MAX for run in runs)
    return {
        "corpus": corpus.name,
        "ok": len(runs) == len(jobs) and silent,
        "mean_kld": [run.mean.value for run in runs],
        "max_kld": [run.maximum for run in runs],
        "same_top": [run.same_top.value for run in runs],
        "repeats": len(runs) == len(jobs) and repr(runs[0]) == repr(runs[1]),  # an error may be nan
        "bound": {"mean_kld": most, "max_kld": NOISE_MAX},
    }


def shareable(evaluation: Evaluation) -> dict[str, object]:
    """The document without folders of this machine, and of messages only the line that says what happened."""
    found = _shared(document(evaluation), evaluation)
    assert isinstance(found, dict)  # noqa: S101 (a mapping stays one)
    return found


def _shared(value: object, evaluation: Evaluation) -> object:
    if isinstance(value, Mapping):
        return {name: _shared(item, evaluation) for name, item in value.items() if name not in PRIVATE}
    if isinstance(value, list):
        return [_shared(item, evaluation) for item in value]
    return without_folders(value, evaluation) if isinstance(value, str) else value


def without_folders(text: str, evaluation: Evaluation) -> str:
    """The first line of a text, with names in place of the paths that `nameless` knows."""
    return nameless(text, evaluation.sweep)


def nameless(text: str, sweep: Sweep) -> str:
    """The first line of a text, with names in place of the paths of model, texts, programs and work folder."""
    names = {str(sweep.model.path): sweep.model.path.name, str(sweep.runner.binaries.bin_dir): "BIN_DIR"}
    names |= {str(sweep.runner.work): "work", **{str(corpus.path): corpus.name for corpus in sweep.corpora}}
    found = text.partition("\n")[0]
    for path in sorted(names, key=len, reverse=True):
        found = found.replace(path, names[path])
    return found


JSON_NAME, CSV_NAME, MARKDOWN_NAME, HTML_NAME = "eval.json", "eval.csv", "eval.md", "eval.html"
