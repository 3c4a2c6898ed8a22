"""`turbotool eval`: which KV cache to run on a model, measured against f16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from turbotool.cli.lazy import CommandWithOthers
from turbotool.cli.options import F, fail, finite, session_options
from turbotool.evaluation import planfile
from turbotool.evaluation.planfile import EQUAL, MAX_KLD, MIN_SAME_TOP, SMALLEST_CTX, EvalPlan
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.output import Output
from turbotool.system.session import Session

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.evaluation.evaluation import Evaluation
    from turbotool.evaluation.run import Evaluated
    from turbotool.kv.cachetype import CachePair

PATH = click.Path(path_type=Path)
OTHERS = {"compare": ("turbotool.cli.compare", "Set two result sets side by side: eval compare A B.")}
KV = "q8_0,q8_0/turbo4,turbo4"
ROTATION = "off,k,v,kv"
CALIBRATION = "auto"
LOGITS = (planfile.CHOSEN, planfile.STORED, planfile.STREAMED)


def equal_options(function: F) -> F:
    """Add --equal-kld, --equal-ppl and --equal-top: differences that make none."""
    helps = {
        "equal_kld": "KLDs that differ by less are equal (%).",
        "equal_ppl": "Perplexities, too (%).",
        "equal_top": "Same tops, too (points).",
    }
    for name, text in reversed(helps.items()):
        kind, default = click.FloatRange(0, 100), EQUAL[name]
        option = click.option(
            planfile.option(name), type=kind, callback=finite, default=default, show_default=True, help=text
        )
        function = option(function)
    return function


@click.command(cls=CommandWithOthers, others=OTHERS)
@click.argument("models", metavar="[MODEL]...", type=PATH, nargs=-1)
@click.option("--plan", "plan_word", metavar="NAME|FILE", help="Measure what a plan says; options replace its values.")
@click.option("--list-plans", is_flag=True, help="Tell which plans are shipped, and exit.")
@click.option("--corpus", "corpora", type=PATH, multiple=True, help="A UTF-8 text; repeat for more  [default: docs]")
@click.option("--kv", default=KV, show_default=True, metavar="TYPE[/TYPE],...", help="Caches; K/V for two types.")
@click.option("--rotation", default=ROTATION, show_default=True, metavar="SIDES,...", help="Rotated sides.")
@click.option(
    "--calibration", default=CALIBRATION, show_default=True, metavar="off,auto,FILE", help="Of a quantized K."
)
@click.option(
    "--ctx", type=click.IntRange(SMALLEST_CTX, MAX_TOKENS), default=512, show_default=True, help="Tokens of a chunk."
)
@click.option("--chunks", type=click.IntRange(1, MAX_TOKENS), default=32, show_default=True, help="Chunks of a text.")
@click.option(
    "--max-kld",
    type=click.FloatRange(min=0),
    callback=finite,
    default=MAX_KLD,
    show_default=True,
    help="Tolerated KLD (nats).",
)
@click.option(
    "--min-same-top",
    type=click.FloatRange(0, 100),
    callback=finite,
    default=MIN_SAME_TOP,
    show_default=True,
    help="Tolerated same top (%).",
)
@equal_options
@click.option(
    "--until-resolved", is_flag=True, help="Add chunks, --chunks at most, until the recommendation cannot change."
)
@click.option(
    "--logits",
    type=click.Choice(LOGITS),
    default=planfile.CHOSEN,
    show_default=True,
    help="Of f16: in a file, or computed anew beside each cache.",
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
@session_options
def eval(  # noqa: A001 (the name of the command)
    models: tuple[Path, ...],
    plan_word: str | None,
    list_plans: bool,
    corpora: tuple[Path, ...],
    kv: str,
    rotation: str,
    calibration: str,
    ctx: int,
    chunks: int,
    max_kld: float,
    min_same_top: float,
    equal_kld: float,
    equal_ppl: float,
    equal_top: float,
    until_resolved: bool,
    logits: str,
    serve_ctx: int | None,
    backend: str,
    bin_dir: Path | None,
    scheduler: str | None,
    folder: Path | None,
    session: Session,
) -> None:
    """KLD and perplexity of KV caches and rotations on each MODEL against f16, and which one to run.

    Caches are calibrated as the programs do it by themselves, unless --calibration says off, names the file of a
    calibration, or several of those to be compared.

    A cell that was measured before with the same programs, model, text and settings is not measured again. A plan (a
    file, or the name of a shipped one) says what to measure; what is typed beside it replaces its values, except for
    models and texts, which either the plan or the command line names.
    """
    from turbotool.evaluation.cell import parse_rotations
    from turbotool.evaluation.run import run
    from turbotool.kv.calibration import parse_calibrations

    if list_plans:
        _list_plans(session.out)
        return
    models = tuple(dict.fromkeys(models))
    asked = EvalPlan(
        kv=_pairs(kv),
        rotation=parse_rotations(rotation),
        ctx=ctx,
        chunks=chunks,
        models=models,
        corpora=corpora,
        max_kld=max_kld,
        min_same_top=min_same_top,
        serve_ctx=serve_ctx,
        calibration=parse_calibrations(calibration),
        equal_kld=equal_kld,
        equal_ppl=equal_ppl,
        equal_top=equal_top,
        until_resolved=until_resolved,
        logits=logits,
    )
    plan = _plan(plan_word, asked, session.out)
    done = run(session, plan, backend=backend, bin_dir=bin_dir, scheduler=scheduler, report=folder)
    if done.single:
        _publish(done.single, folder, session.out)
    else:
        _publish_all(done, folder, session.out)


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


def _list_plans(out: Output) -> None:
    plans = planfile.shipped()
    for plan in plans:
        cells = f"--kv {planfile.shown(plan.kv)} --calibration {planfile.shown(plan.calibration)}"
        cells += f" --rotation {planfile.shown(plan.rotation)}"
        out.result(f"{plan.name}: {plan.about}\n  {cells} --ctx {plan.ctx} --chunks {plan.chunks}")
    out.say(f"run one with --plan NAME; to change one, copy it from {planfile.FOLDER} and use --plan FILE.toml")
    out.document(planfile.plans_document(plans))


def _publish(found: Evaluation, folder: Path | None, out: Output) -> None:
    """Tables, verdicts, recommendation and document; the command fails if something could not be measured."""
    from turbotool.evaluation.measure.work import verdict
    from turbotool.evaluation.report.document import document
    from turbotool.evaluation.report.table import conclusions, rows, text

    for corpus in found.sweep.corpora:
        out.result(f"\n{corpus.name}\n{text(rows(found, corpus))}")
    out.result("\n" + "\n".join(conclusions(found)))
    if folder:
        out.say(f"report: {folder}")
    result = document(found)
    if failed := verdict(found.ledger, found.sweep.runner.log):
        fail(failed, out, result)
    out.document(result)


def _publish_all(done: Evaluated, folder: Path | None, out: Output) -> None:
    """The same for several models: one table of all of them."""
    from turbotool.evaluation.report.models import conclusions, kld_table, ppl_table
    from turbotool.evaluation.report.models_document import document, documents, failure
    from turbotool.report.table import aligned

    each = documents(done.outcomes)
    for title, table in (("mean KLD (nats)", kld_table(each)), ("perplexity", ppl_table(each))):
        out.result(f"\n{title}\n{aligned(table, [True] * len(table[0]))}")
    out.result("\n" + "\n".join(conclusions(each)))
    if folder:
        out.say(f"report: {folder}")
    result = document(each, done.command)
    if failed := failure(done.outcomes):
        fail(failed, out, result)
    out.document(result)
