"""`turbotool eval`: which KV cache to run on a model, measured against f16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli import CommandWithOthers, fail, output_options, prepare_folder
from turbotool.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.binaries import Binaries
    from turbotool.evalchoice import Tolerance
    from turbotool.evaldocument import Evaluation
    from turbotool.evalplan import Settings, Sweep
    from turbotool.evalstore import Store
    from turbotool.layout import Layout
    from turbotool.model import Model

PATH = click.Path(path_type=Path)
OTHERS = {"compare": ("turbotool.commands.evalcompare", "Set two result sets side by side: eval compare A B.")}
KV = "q8_0,q8_0/turbo4,turbo4"
ROTATION = "off,k,v,kv"
SMALLEST_CTX = 16
MAX_TOKENS = 1 << 24


@click.command(cls=CommandWithOthers, others=OTHERS)
@click.argument("model_path", metavar="[MODEL]", type=PATH, required=False)
@click.option("--corpus", "corpora", type=PATH, multiple=True, help="A UTF-8 text; repeat for more  [default: docs]")
@click.option("--kv", default=KV, show_default=True, metavar="TYPE[/TYPE],...", help="Caches; K/V for two types.")
@click.option("--rotation", default=ROTATION, show_default=True, metavar="SIDES,...", help="Rotated sides.")
@click.option(
    "--ctx", type=click.IntRange(SMALLEST_CTX, MAX_TOKENS), default=512, show_default=True, help="Tokens of a chunk."
)
@click.option("--chunks", type=click.IntRange(1, MAX_TOKENS), default=32, show_default=True, help="Chunks of a text.")
@click.option("--max-kld", type=click.FloatRange(min=0), default=0.02, show_default=True, help="Tolerated KLD (nats).")
@click.option(
    "--min-same-top", type=click.FloatRange(0, 100), default=93.0, show_default=True, help="Tolerated same top (%)."
)
@click.option(
    "--serve-ctx", type=click.IntRange(1, MAX_TOKENS), help="Tokens to serve  [default: as many as trained for]"
)
@click.option("--backend", default="cpu", show_default=True, help="Which build to evaluate.")
@click.option("--bin-dir", type=PATH, help="Evaluate the programs in this folder instead of building.")
@click.option("--scheduler", metavar="ADDRESS", help="Measure on the workers of this Dask scheduler.")
@click.option("--report", "folder", type=PATH, metavar="DIR", help="Write eval.html, eval.md, eval.csv and eval.json.")
@output_options
def eval(  # noqa: A001 (the name of the command)
    model_path: Path | None,
    corpora: tuple[Path, ...],
    kv: str,
    rotation: str,
    ctx: int,
    chunks: int,
    max_kld: float,
    min_same_top: float,
    serve_ctx: int | None,
    backend: str,
    bin_dir: Path | None,
    scheduler: str | None,
    folder: Path | None,
    out: Output,
) -> None:
    """KLD and perplexity of KV caches and rotations on MODEL against f16, and which one to run.

    A cell that was measured before with the same programs, model, text and settings is not measured again.
    """
    from turbotool.atomic import file_lock
    from turbotool.evalchoice import Tolerance
    from turbotool.evalplan import require_tokens
    from turbotool.evalstats import require_scipy
    from turbotool.evalstore import open_store
    from turbotool.extra import require_library
    from turbotool.layout import find_layout
    from turbotool.model import choose_model
    from turbotool.product import choose_binaries

    settings, tolerance = _settings(kv, rotation, ctx, chunks), Tolerance(max_kld, min_same_top)
    require_scipy()
    layout = find_layout()
    # what was named is looked at before a build of many minutes and a measurement of more
    named_texts = [_text(path, ctx) for path in corpora]
    named = _named(bin_dir, backend) if bin_dir else None
    if scheduler:
        from turbotool.evalcluster import require_scheduler

        require_scheduler(scheduler)
    if folder:
        require_library("matplotlib>=3.8", "eval", "the plots of a report need")
        prepare_folder(folder)
    model = choose_model(layout, model_path, out)
    if ctx > model.n_ctx_train:
        out.warn(f"{model.path.name} was trained for {model.n_ctx_train} tokens, {ctx} are measured all the same")
    binaries = named or choose_binaries(layout, backend, None, out)
    work = layout.builds / "eval"
    texts = named_texts or [_default_text(layout, work)]
    require_tokens(texts[0], ctx)
    words = ["turbotool", "eval", *([] if model.is_default else [model.path.name])]
    words += [word for path in corpora for word in ("--corpus", path.name)]
    words += [*_options(settings, tolerance, serve_ctx), *([] if backend == "cpu" else ["--backend", backend])]
    words += ["--bin-dir", "BIN_DIR"] if bin_dir else []
    with file_lock(work / "lock", out, f"evaluate {model.path.name}"), open_store(work / "eval.sqlite", out) as store:
        sweep = _sweep(binaries, model, texts, settings, work, store, out)
        found = _evaluate(sweep, store, tolerance, serve_ctx or model.n_ctx_train, words, out, scheduler)
    _publish(found, folder, out)


def _settings(kv: str, rotation: str, ctx: int, chunks: int) -> Settings:
    """Raises UnknownCacheType for an unknown type or rotation, UsageError for too few tokens."""
    from turbotool.cachetype import CachePair
    from turbotool.evalcell import parse_rotations
    from turbotool.evalplan import FEWEST_SCORED, Settings
    from turbotool.perplexity import scored

    pairs = tuple(dict.fromkeys(CachePair.parse(word.strip()) for word in kv.split(",")))
    settings = Settings(pairs, parse_rotations(rotation), ctx, chunks)
    if settings.scored < FEWEST_SCORED:
        raise click.UsageError(
            f"{chunks} chunks of {ctx} have {settings.scored} scored tokens, "
            f"statistics need {FEWEST_SCORED}: use --chunks {-(-FEWEST_SCORED // scored(ctx))} or more"
        )
    return settings


def _text(path: Path, ctx: int) -> Path:
    """Raises CorpusError if it cannot be read, or is too short for one chunk."""
    from turbotool.corpus import named_corpus
    from turbotool.evalplan import require_tokens

    text = named_corpus(path, shortest=0)  # tokens are what counts
    require_tokens(text, ctx)
    return text


def _default_text(layout: Layout, work: Path) -> Path:
    from turbotool.corpus import default_corpus

    return default_corpus(layout.tree, work)


def _named(folder: Path, backend: str) -> Binaries:
    """The programs in a folder, those that are needed among them. Raises ToolMissing."""
    from turbotool.binaries import named_binaries
    from turbotool.evalplan import PROGRAMS

    binaries = named_binaries(folder, backend)
    for program in PROGRAMS:
        binaries.require(program)
    return binaries


def _options(settings: Settings, tolerance: Tolerance, serve_ctx: int | None) -> list[str]:
    """The options with every value that was used."""
    words = ["--kv", ",".join(pair.short for pair in settings.pairs), "--rotation", ",".join(settings.rotations)]
    words += ["--ctx", str(settings.ctx), "--chunks", str(settings.chunks)]
    words += ["--max-kld", f"{tolerance.mean_kld:g}", "--min-same-top", f"{tolerance.same_top:g}"]
    return words + (["--serve-ctx", str(serve_ctx)] if serve_ctx else [])


def _sweep(
    binaries: Binaries, model: Model, texts: list[Path], settings: Settings, work: Path, store: Store, out: Output
) -> Sweep:
    """The plan, with a log that is started anew; what is left out is said."""
    from turbotool.binaries import Runner
    from turbotool.evalplan import make_sweep
    from turbotool.machine import usable_cpus

    log = work / "eval.log"
    log.unlink(missing_ok=True)
    out.say(f"evaluating {binaries.bin_dir} with {model.path.name}")
    sweep = make_sweep(Runner(binaries, work, usable_cpus(), log), model, texts, settings, store)
    if sweep.left_out:
        out.say(f"left out, because nothing is rotated there: {', '.join(map(str, sweep.left_out))}")
    return sweep


def _evaluate(
    sweep: Sweep,
    store: Store,
    tolerance: Tolerance,
    serve_ctx: int,
    words: list[str],
    out: Output,
    scheduler: str | None,
) -> Evaluation:
    """Measure, judge, choose, and ask the three questions under f16 and under what was chosen."""
    from turbotool.evalcell import F16, Configuration
    from turbotool.evalchoice import choose
    from turbotool.evaldocument import Evaluation
    from turbotool.evalprobe import probe
    from turbotool.evalrun import run_sweep
    from turbotool.evalverdict import compare_all, judge
    from turbotool.machine import read_machine
    from turbotool.process import display

    machine = read_machine()
    ledger = run_sweep(sweep, store, sweep.runner.work, out, scheduler)
    comparisons = compare_all(sweep, ledger)
    choice = choose(sweep, ledger, comparisons, tolerance, serve_ctx)
    asked = dict.fromkeys((Configuration(F16), choice.configuration))
    probes = tuple(probe(sweep, store, configuration) for configuration in asked)
    judged = judge(sweep, ledger)
    return Evaluation(sweep, ledger, comparisons, judged, probes, choice, tolerance, machine, display(words))


def _publish(found: Evaluation, folder: Path | None, out: Output) -> None:
    """Tables, verdicts, recommendation, report and document; the command fails if something could not be measured."""
    from turbotool.evaldocument import document
    from turbotool.evalrun import verdict
    from turbotool.evaltable import conclusions, rows, text

    if folder:  # first: whatever happens to a terminal, the report is there
        from turbotool.evalreport import write_report

        write_report(folder, found)
    for corpus in found.sweep.corpora:
        out.say(f"\n{corpus.name}\n{text(rows(found, corpus))}")
    out.say("\n" + "\n".join(conclusions(found)))
    if folder:
        out.say(f"report: {folder}")
    result, failed = document(found), verdict(found.ledger, found.sweep.runner.log)
    if failed:
        fail(failed, out, result)
    out.document(result)
