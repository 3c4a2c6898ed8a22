"""`turbotool eval`: which KV cache to run on a model, measured against f16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli import fail, output_options
from turbotool.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.binaries import Binaries
    from turbotool.cachetype import CachePair
    from turbotool.evalcell import Configuration
    from turbotool.evalchoice import Tolerance
    from turbotool.evaldocument import Evaluation
    from turbotool.evalplan import Corpus, Sweep
    from turbotool.evalstore import Store
    from turbotool.layout import Layout
    from turbotool.model import Model

PATH = click.Path(path_type=Path)
KV = "q8_0,q8_0/turbo4,turbo4"
ROTATION = "off,k,v,kv"
SMALLEST_CTX = 16
MAX_TOKENS = 1 << 24


@click.command()
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
    folder: Path | None,
    out: Output,
) -> None:
    """KLD and perplexity of KV caches and rotations on MODEL against f16, and which one to run.

    A cell that was measured before with the same programs, model, text and settings is not measured again.
    """
    from turbotool.atomic import file_lock
    from turbotool.cachetype import CachePair
    from turbotool.evalcell import parse_rotations
    from turbotool.evalchoice import Tolerance
    from turbotool.evalplan import require_tokens
    from turbotool.evalstats import require_scipy
    from turbotool.evalstore import open_store
    from turbotool.layout import find_layout
    from turbotool.model import choose_model
    from turbotool.product import choose_binaries

    require_scipy()
    _require_enough(ctx, chunks)
    pairs = [CachePair.parse(word.strip()) for word in kv.split(",")]
    rotations = parse_rotations(rotation)
    layout = find_layout()
    # what was named is looked at before a build of many minutes and a measurement of more
    texts = [_text(path) for path in corpora]
    named = _named(bin_dir, backend) if bin_dir else None
    if folder:
        _prepare(folder)
    model = choose_model(layout, model_path, out)
    binaries = named or choose_binaries(layout, backend, None, out)
    work = layout.builds / "eval"
    texts = texts or [_default_text(layout, work)]
    for text in texts:
        require_tokens(text, ctx)
    options = _options(pairs, rotations, ctx, chunks, max_kld, min_same_top, serve_ctx)
    with file_lock(work / "lock", out, f"evaluate {model.path.name}"), open_store(work / "eval.sqlite", out) as store:
        sweep, left_out = _sweep(binaries, model, texts, pairs, rotations, ctx, chunks, work, store, out)
        command = _command(model, corpora, options, backend, bin_dir)
        tolerance = Tolerance(max_kld, min_same_top)
        found = _evaluate(sweep, store, tolerance, serve_ctx or model.n_ctx_train, command, left_out, out)
    _publish(found, folder, out)


def _require_enough(ctx: int, chunks: int) -> None:
    from turbotool.evalplan import FEWEST_SCORED
    from turbotool.perplexity import scored

    if scored(ctx) * chunks < FEWEST_SCORED:
        raise click.UsageError(
            f"{chunks} chunks of {ctx} have {scored(ctx) * chunks} scored tokens, "
            f"statistics need {FEWEST_SCORED}: use --chunks {-(-FEWEST_SCORED // scored(ctx))} or more"
        )


def _text(path: Path) -> Path:
    from turbotool.corpus import named_corpus

    return named_corpus(path)


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


def _prepare(folder: Path) -> None:
    """Make the folder of the report, and find out now whether it can be written and drawn."""
    from turbotool.benchplot import require_matplotlib
    from turbotool.benchreport import require_folder

    require_matplotlib()
    try:
        require_folder(folder)
    except OSError as error:
        raise click.BadParameter(f"cannot write to {folder}: {error.strerror}", param_hint="--report") from error


def _options(
    pairs: list[CachePair],
    rotations: tuple[str, ...],
    ctx: int,
    chunks: int,
    max_kld: float,
    min_same_top: float,
    serve_ctx: int | None,
) -> list[str]:
    """The options with every value that was used."""
    words = ["--kv", ",".join(dict.fromkeys(pair.short for pair in pairs)), "--rotation", ",".join(rotations)]
    words += ["--ctx", str(ctx), "--chunks", str(chunks), "--max-kld", f"{max_kld:g}"]
    words += ["--min-same-top", f"{min_same_top:g}"]
    return words + (["--serve-ctx", str(serve_ctx)] if serve_ctx else [])


def _command(model: Model, corpora: tuple[Path, ...], options: list[str], backend: str, bin_dir: Path | None) -> str:
    """The command that repeats it; folders of this machine are not named."""
    from turbotool.process import display

    words = ["turbotool", "eval", *([] if model.is_default else [model.path.name])]
    words += [word for path in corpora for word in ("--corpus", path.name)]
    words += [*options, *([] if backend == "cpu" else ["--backend", backend])]
    return display([*words, *(["--bin-dir", "BIN_DIR"] if bin_dir else [])])


def _sweep(
    binaries: Binaries,
    model: Model,
    texts: list[Path],
    pairs: list[CachePair],
    rotations: tuple[str, ...],
    ctx: int,
    chunks: int,
    work: Path,
    store: Store,
    out: Output,
) -> tuple[Sweep, tuple[Configuration, ...]]:
    """The plan, and the configurations that are left out because a rotation does nothing to them."""
    from turbotool.binaries import Runner
    from turbotool.evalplan import WORSE, Sweep, binaries_hash, configurations, require_types
    from turbotool.machine import usable_cpus

    log = work / "eval.log"
    log.unlink(missing_ok=True)
    runner = Runner(binaries, work, usable_cpus(), log)
    require_types(runner, [*pairs, WORSE.pair])
    kept, left_out = configurations(pairs, rotations, model)
    if left_out:
        out.say(f"left out, because nothing is rotated there: {', '.join(map(str, left_out))}")
    if ctx > model.n_ctx_train:
        out.warn(f"{model.path.name} was trained for {model.n_ctx_train} tokens, {ctx} are measured all the same")
    out.say(f"evaluating {binaries.bin_dir} with {model.path.name}")
    corpora = _corpora(texts, store)
    hashes = (binaries_hash(store, binaries), store.sha256(model.path))
    return Sweep(runner, model, *hashes, corpora, kept, ctx, chunks), left_out


def _corpora(texts: list[Path], store: Store) -> tuple[Corpus, ...]:
    """Each text once, by its content; equal file names get a number."""
    from turbotool.evalplan import Corpus

    by_content = {store.sha256(path): path for path in reversed(texts)}
    found: list[Corpus] = []
    for sha256, path in reversed(by_content.items()):
        same = sum(corpus.path.name == path.name for corpus in found)
        found.append(Corpus(f"{path.name} ({same + 1})" if same else path.name, path, sha256))
    return tuple(found)


def _evaluate(
    sweep: Sweep,
    store: Store,
    tolerance: Tolerance,
    serve_ctx: int,
    command: str,
    left_out: tuple[Configuration, ...],
    out: Output,
) -> Evaluation:
    """Measure, judge, choose, and ask the three questions under f16 and under what was chosen."""
    from turbotool.evalcell import F16, Configuration
    from turbotool.evalchoice import choose
    from turbotool.evaldocument import Evaluation
    from turbotool.evalprobe import probe
    from turbotool.evalrun import run_sweep
    from turbotool.evalverdict import compare_all, judge
    from turbotool.machine import read_machine

    machine = read_machine()
    ledger = run_sweep(sweep, store, sweep.runner.work, out)
    comparisons = compare_all(sweep, ledger)
    choice = choose(sweep, ledger, comparisons, tolerance, serve_ctx)
    asked = dict.fromkeys((Configuration(F16), choice.configuration))
    probes = tuple(probe(sweep, store, configuration) for configuration in asked)
    judged = judge(sweep, ledger)
    return Evaluation(sweep, ledger, comparisons, judged, probes, choice, tolerance, machine, command, left_out)


def _publish(found: Evaluation, folder: Path | None, out: Output) -> None:
    """Tables, verdicts, recommendation, report and document; the command fails if something could not be measured."""
    from turbotool.evaldocument import document
    from turbotool.evalrun import verdict
    from turbotool.evaltable import conclusions, rows, text

    if folder:
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
