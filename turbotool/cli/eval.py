"""`turbotool eval`: which KV cache to run on a model, measured against f16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from turbotool.cli.lazy import CommandWithOthers
from turbotool.cli.options import fail, output_options, prepare_folder
from turbotool.evaluation import planfile
from turbotool.evaluation.planfile import MAX_KLD, MIN_SAME_TOP, SMALLEST_CTX, EvalPlan
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.evaluation.evaluation import Evaluation
    from turbotool.evaluation.report.models import ModelOutcome
    from turbotool.evaluation.store import Store
    from turbotool.evaluation.sweep import Sweep, SweepSettings
    from turbotool.inputs.model import Model
    from turbotool.kv.cachetype import CachePair
    from turbotool.layout import Layout
    from turbotool.programs.binaries import Binaries
    from turbotool.programs.runner import Runner

PATH = click.Path(path_type=Path)
OTHERS = {"compare": ("turbotool.cli.compare", "Set two result sets side by side: eval compare A B.")}
KV = "q8_0,q8_0/turbo4,turbo4"
ROTATION = "off,k,v,kv"


@click.command(cls=CommandWithOthers, others=OTHERS)
@click.argument("models", metavar="[MODEL]...", type=PATH, nargs=-1)
@click.option("--plan", "plan_word", metavar="NAME|FILE", help="Measure what a plan says; options replace its values.")
@click.option("--list-plans", is_flag=True, help="Tell which plans are shipped, and exit.")
@click.option("--corpus", "corpora", type=PATH, multiple=True, help="A UTF-8 text; repeat for more  [default: docs]")
@click.option("--kv", default=KV, show_default=True, metavar="TYPE[/TYPE],...", help="Caches; K/V for two types.")
@click.option("--rotation", default=ROTATION, show_default=True, metavar="SIDES,...", help="Rotated sides.")
@click.option(
    "--ctx", type=click.IntRange(SMALLEST_CTX, MAX_TOKENS), default=512, show_default=True, help="Tokens of a chunk."
)
@click.option("--chunks", type=click.IntRange(1, MAX_TOKENS), default=32, show_default=True, help="Chunks of a text.")
@click.option(
    "--max-kld", type=click.FloatRange(min=0), default=MAX_KLD, show_default=True, help="Tolerated KLD (nats)."
)
@click.option(
    "--min-same-top",
    type=click.FloatRange(0, 100),
    default=MIN_SAME_TOP,
    show_default=True,
    help="Tolerated same top (%).",
)
@click.option(
    "--serve-ctx", type=click.IntRange(1, MAX_TOKENS), help="Tokens to serve  [default: as many as trained for]"
)
@click.option("--backend", default="cpu", show_default=True, help="Which build to evaluate.")
@click.option("--bin-dir", type=PATH, help="Evaluate the programs in this folder instead of building.")
@click.option("--scheduler", metavar="ADDRESS", help="Measure on the workers of this Dask scheduler.")
@click.option(
    "--report", "folder", type=PATH, metavar="DIR", help="Write eval.html, .md, .csv and .json; several: models.*"
)
@output_options
def eval(  # noqa: A001 (the name of the command)
    models: tuple[Path, ...],
    plan_word: str | None,
    list_plans: bool,
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
    """KLD and perplexity of KV caches and rotations on each MODEL against f16, and which one to run.

    A cell that was measured before with the same programs, model, text and settings is not measured again. A plan (a
    file, or the name of a shipped one) says what to measure; what is typed beside it replaces its values, except for
    models and texts, which either the plan or the command line names.
    """
    from turbotool.evaluation.cell import parse_rotations
    from turbotool.evaluation.evaluation import Evaluation
    from turbotool.evaluation.judge.stats import require_scipy
    from turbotool.evaluation.store import open_store
    from turbotool.evaluation.sweep import make_sweep, require_tokens
    from turbotool.layout import find_layout
    from turbotool.programs.choose import choose_binaries
    from turbotool.system.extras import require_library
    from turbotool.system.locks import file_lock
    from turbotool.system.process import display

    if list_plans:
        _list_plans(out)
        return
    models = tuple(dict.fromkeys(models))
    asked = EvalPlan(
        _pairs(kv), parse_rotations(rotation), ctx, chunks, "", "", models, corpora, max_kld, min_same_top, serve_ctx
    )
    plan = _plan(plan_word, asked, out)
    settings = _settings(plan)
    require_scipy()
    layout = find_layout()
    # what was named is looked at before a build of many minutes and a measurement of more
    named_texts = [_text(path, plan.ctx) for path in plan.corpora]
    named = _named(bin_dir, backend) if bin_dir else None
    if scheduler:
        from turbotool.evaluation.measure.cluster import require_scheduler

        require_scheduler(scheduler)
    if folder:
        require_library("matplotlib>=3.8", "eval", "the plots of a report need")
        prepare_folder(folder)
    subjects = [_model(layout, path, plan.ctx, out) for path in plan.models or (None,)]
    binaries = named or choose_binaries(layout, backend, None, out)
    work = layout.builds / "eval"
    texts = named_texts or [_default_text(layout, work)]
    require_tokens(texts[0], plan.ctx)
    words = ["turbotool", "eval", *(model.path.name for model in subjects if not model.is_default)]
    words += [word for path in plan.corpora for word in ("--corpus", path.name)]
    words += [*_options(plan), *([] if backend == "cpu" else ["--backend", backend])]
    command = display(words + (["--bin-dir", "BIN_DIR"] if bin_dir else []))
    what = ", ".join(model.path.name for model in subjects)
    with file_lock(work / "lock", out, f"evaluate {what}"), open_store(work / "eval.sqlite", out) as store:
        runner = _runner(binaries, work)
        sweeps = [make_sweep(runner, model, texts, settings, store) for model in subjects]
        found = _outcomes(sweeps, store, plan, command, scheduler, out)
    first = found[0]
    if len(found) == 1 and isinstance(first, Evaluation):
        _publish(first, folder, out)
    else:
        _publish_all(found, command, folder, out)


def _pairs(text: str) -> tuple[CachePair, ...]:
    """Each once. Raises UnknownCacheType."""
    from turbotool.kv.cachetype import CachePair

    return tuple(dict.fromkeys(CachePair.parse(word.strip()) for word in text.split(",")))


def _plan(word: str | None, asked: EvalPlan, out: Output) -> EvalPlan:
    """What was typed, put into the plan of that name if there is one. Raises PlanError, UsageError."""
    if word is None:
        return asked
    context = click.get_current_context()
    typed = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    typed = [name for name in typed if name in planfile.KEYS and getattr(asked, name) != ()]
    plan = planfile.read_plan(word)
    for key, what in planfile.INPUTS.items():
        if key in typed and getattr(plan, key):
            raise click.UsageError(
                f"the plan {plan.name} names {key} of its own: leave out {what}, or take them out there"
            )
    plan, told = planfile.override(plan, asked, typed)
    for line in told:
        out.say(line)
    for key, what in planfile.INPUTS.items():
        named, needed = max(1, len(getattr(plan, key))), getattr(plan, f"min_{key}")
        if named < needed:
            raise click.UsageError(f"the plan {plan.name} needs {needed} {key} or more: name each with {what}")
    return plan


def _settings(plan: EvalPlan) -> SweepSettings:
    """Raises UsageError for too few tokens."""
    from turbotool.evaluation.sweep import FEWEST_SCORED, SweepSettings
    from turbotool.programs.perplexity import scored

    settings = SweepSettings(plan.kv, plan.rotation, plan.ctx, plan.chunks)
    if settings.scored < FEWEST_SCORED:
        raise click.UsageError(
            f"{plan.chunks} chunks of {plan.ctx} have {settings.scored} scored tokens, "
            f"statistics need {FEWEST_SCORED}: use --chunks {-(-FEWEST_SCORED // scored(plan.ctx))} or more"
        )
    return settings


def _list_plans(out: Output) -> None:
    plans = planfile.shipped()
    for plan in plans:
        cells = f"--kv {planfile.shown(plan.kv)} --rotation {planfile.shown(plan.rotation)}"
        out.say(f"{plan.name}: {plan.about}\n  {cells} --ctx {plan.ctx} --chunks {plan.chunks}")
    out.say(f"run one with --plan NAME; to change one, copy it from {planfile.FOLDER} and use --plan FILE.toml")
    out.document({"ok": True, "plans": [planfile.as_json(plan) for plan in plans]})


def _model(layout: Layout, path: Path | None, ctx: int, out: Output) -> Model:
    """Raises ModelError; warns if it was trained for less than is measured."""
    from turbotool.inputs.default_model import choose_model

    model = choose_model(layout, path, out)
    if ctx > model.n_ctx_train:
        out.warn(f"{model.path.name} was trained for {model.n_ctx_train} tokens, {ctx} are measured all the same")
    return model


def _text(path: Path, ctx: int) -> Path:
    """Raises CorpusError if it cannot be read, or is too short for one chunk."""
    from turbotool.evaluation.sweep import require_tokens
    from turbotool.inputs.corpus import named_corpus

    text = named_corpus(path, shortest=0)  # tokens are what counts
    require_tokens(text, ctx)
    return text


def _default_text(layout: Layout, work: Path) -> Path:
    from turbotool.inputs.corpus import default_corpus

    return default_corpus(layout.tree, work)


def _named(folder: Path, backend: str) -> Binaries:
    """The programs in a folder, those that are needed among them. Raises ToolMissing."""
    from turbotool.evaluation.identity import PROGRAMS
    from turbotool.programs.choose import named_binaries

    binaries = named_binaries(folder, backend)
    for program in PROGRAMS:
        binaries.require(program)
    return binaries


def _options(plan: EvalPlan) -> list[str]:
    """The options with every value that was used."""
    names = ("kv", "rotation", "ctx", "chunks", "max_kld", "min_same_top")
    words = [word for name in names for word in (planfile.option(name), planfile.shown(getattr(plan, name)))]
    return words + (["--serve-ctx", str(plan.serve_ctx)] if plan.serve_ctx else [])


def _runner(binaries: Binaries, work: Path) -> Runner:
    """With a log that is started anew."""
    from turbotool.programs.runner import Runner
    from turbotool.system.machine import usable_cpus

    log = work / "eval.log"
    log.unlink(missing_ok=True)
    return Runner(binaries, work, usable_cpus(), log)


def _outcomes(
    sweeps: list[Sweep], store: Store, plan: EvalPlan, command: str, scheduler: str | None, out: Output
) -> list[ModelOutcome]:
    """One model after the other. Of several, one that cannot be measured does not keep the others from it."""
    from turbotool.errors import ClusterError, TurbotoolError, first_line
    from turbotool.evaluation.measure.single import FATAL
    from turbotool.evaluation.report.models import Failed

    found: list[ModelOutcome] = []
    for number, sweep in enumerate(sweeps, start=1):
        count = f"model {number} of {len(sweeps)}: " if len(sweeps) > 1 else ""
        out.say(f"{count}evaluating {sweep.runner.binaries.bin_dir} with {sweep.model.path.name}")
        try:
            found.append(_evaluate(sweep, store, plan, command, scheduler, out))
        except (*FATAL, ClusterError):
            raise
        except TurbotoolError as error:
            if len(sweeps) == 1:
                raise
            out.warn(f"{sweep.model.path.name}: {first_line(error.message)}")
            found.append(Failed(sweep, error))
    return found


def _evaluate(
    sweep: Sweep, store: Store, plan: EvalPlan, command: str, scheduler: str | None, out: Output
) -> Evaluation:
    """Measure, judge, choose, and ask the three questions under f16 and under what was chosen."""
    from turbotool.evaluation.cell import F16, Configuration
    from turbotool.evaluation.evaluation import Evaluation
    from turbotool.evaluation.judge.choice import Tolerance, choose
    from turbotool.evaluation.judge.verdict import compare_all, judge
    from turbotool.evaluation.measure.local import run_sweep
    from turbotool.evaluation.measure.probe import probe
    from turbotool.system.machine import read_machine

    if sweep.left_out:
        out.say(f"left out, because nothing is rotated there: {', '.join(map(str, sweep.left_out))}")
    machine = read_machine()
    ledger = run_sweep(sweep, store, sweep.runner.work, out, scheduler)
    comparisons = compare_all(sweep, ledger)
    tolerance = Tolerance(plan.max_kld, plan.min_same_top)
    choice = choose(sweep, ledger, comparisons, tolerance, plan.serve_ctx or sweep.model.n_ctx_train)
    asked = dict.fromkeys((Configuration(F16), choice.configuration))
    probes = tuple(probe(sweep, store, configuration) for configuration in asked)
    judged = judge(sweep, ledger)
    return Evaluation(
        sweep, ledger, comparisons, judged, probes, choice, tolerance, machine, command, plan.name or None
    )


def _publish(found: Evaluation, folder: Path | None, out: Output) -> None:
    """Tables, verdicts, recommendation, report and document; the command fails if something could not be measured."""
    from turbotool.evaluation.measure.work import verdict
    from turbotool.evaluation.report.document import document
    from turbotool.evaluation.report.table import conclusions, rows, text

    if folder:  # first: whatever happens to a terminal, the report is there
        from turbotool.evaluation.report.write import write_report

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


def _publish_all(found: list[ModelOutcome], command: str, folder: Path | None, out: Output) -> None:
    """The same for several models: one table of all of them, and a report of each beside that of all."""
    from turbotool.evaluation.report.models import conclusions, documents, failure, kld_table, ppl_table
    from turbotool.report.table import aligned

    if folder:
        from turbotool.evaluation.report.write_models import write_reports

        write_reports(folder, found, command)
    each = documents(found)
    for title, table in (("mean KLD (nats)", kld_table(each)), ("perplexity", ppl_table(each))):
        out.say(f"\n{title}\n{aligned(table, [True] * len(table[0]))}")
    out.say("\n" + "\n".join(conclusions(each)))
    if folder:
        out.say(f"report: {folder}")
    failed = failure(found)
    result = {
        "ok": failed is None,
        "command": command,
        "models": each,
        **({"error": failed.as_json()} if failed else {}),
    }
    if failed:
        fail(failed, out, result)
    out.document(result)
