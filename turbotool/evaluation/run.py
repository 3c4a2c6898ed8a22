"""One entry that evaluates KV caches and rotations on models against f16, and says which one to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import ClusterError, TurbotoolError, UsageMistake, first_line
from turbotool.evaluation import planfile
from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.identity import PROGRAMS, binaries_hash
from turbotool.evaluation.judge.choice import choose
from turbotool.evaluation.judge.contest import Contest, Criteria
from turbotool.evaluation.judge.decode import decode_path
from turbotool.evaluation.judge.finding import Equivalence
from turbotool.evaluation.judge.looks import FIRST, Looks, doubling
from turbotool.evaluation.judge.stats import require_scipy
from turbotool.evaluation.judge.tolerance import Tolerance
from turbotool.evaluation.judge.verdict import compare_all, judge
from turbotool.evaluation.measure.decode import measure_decode
from turbotool.evaluation.measure.local import run_sweep
from turbotool.evaluation.measure.probe import probe
from turbotool.evaluation.measure.single import FATAL
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.planfile import EQUAL, EvalPlan
from turbotool.evaluation.report.models_document import Failed, ModelOutcome
from turbotool.evaluation.resolution import resolve
from turbotool.evaluation.store import Store, open_store
from turbotool.evaluation.sweep import FEWEST_SCORED, Sweep, SweepSettings, make_sweep, require_tokens
from turbotool.inputs.corpus import default_corpus, named_corpus
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16
from turbotool.kv.calibration import left_alone, require_files
from turbotool.programs.binaries import Binaries
from turbotool.programs.choose import choose_binaries, named_binaries
from turbotool.programs.perplexity import scored
from turbotool.programs.runner import KEPT, Runner
from turbotool.system.extras import require_library
from turbotool.system.files import fresh_file, writable_folder
from turbotool.system.locks import file_lock
from turbotool.system.machine import read_machine, usable_cpus
from turbotool.system.output import Output
from turbotool.system.process import display
from turbotool.system.session import Session


@dataclass(frozen=True)
class Evaluated:
    """What came of each model, in the order in which they were named, and the command that repeats it."""

    outcomes: tuple[ModelOutcome, ...]
    command: str

    @property
    def single(self) -> Evaluation | None:
        """The evaluation, if one model was asked for and could be measured."""
        first = self.outcomes[0]
        return first if len(self.outcomes) == 1 and isinstance(first, Evaluation) else None


@dataclass(frozen=True)
class _Task:
    """What is the same for every model."""

    plan: EvalPlan
    store: Store
    command: str
    scheduler: str | None
    out: Output


def run(
    session: Session,
    plan: EvalPlan,
    *,
    backend: str = "cpu",
    bin_dir: Path | None = None,
    scheduler: str | None = None,
    report: Path | None = None,
) -> Evaluated:
    """Measure what the plan says with the build of a backend, made if needed, or with the programs in `bin_dir`.

    What the store in build/eval holds is not measured again. `scheduler` is the address of a Dask scheduler whose
    workers measure; `report` a folder that receives the report. Raises UsageMistake for too few tokens or a folder that
    cannot be written, ModelError, CorpusError, ToolMissing, UnknownCacheType, what building raises, NoSpace,
    StoreError, ClusterError and Interrupted. A cell that fails is in its evaluation; of several models, one that cannot
    be measured does not keep the others from it.

    >>> plan = EvalPlan(kv=(CachePair.parse("turbo4"),), rotation=("off",), ctx=512, chunks=4)
    >>> run(session, plan).single.choice.command
    """
    settings = _settings(plan)
    require_scipy()
    require_files(plan.calibration)
    # what was named is looked at before a build of many minutes and a measurement of more
    texts = [_text(path, plan.ctx) for path in plan.corpora]
    named = named_binaries(bin_dir, backend, PROGRAMS) if bin_dir else None
    if scheduler:
        from turbotool.evaluation.measure.cluster import require_scheduler

        require_scheduler(scheduler)
    if report:
        require_library("matplotlib>=3.8", "eval", "the plots of a report need")
        require_library("jinja2>=3.1", "eval", "the pages of a report need")
        writable_folder(report)
    models = [_model(session, path, plan.ctx) for path in plan.models or (None,)]
    binaries = named or choose_binaries(session, backend, None)
    work = session.layout.builds / "eval"
    texts = texts or [default_corpus(session.layout.tree, work)]
    require_tokens(texts[0], plan.ctx)
    command = _command(plan, models, backend, named=bin_dir is not None)
    what = ", ".join(model.path.name for model in models)
    with (
        file_lock(work / "lock", session.out, f"evaluate {what}"),
        open_store(work / "eval.sqlite", session.out) as store,
    ):
        runner = _runner(binaries, work, binaries_hash(store, binaries))
        sweeps = [make_sweep(runner, model, texts, settings, store) for model in models]
        outcomes = _outcomes(sweeps, _Task(plan, store, command, scheduler, session.out))
    done = Evaluated(tuple(outcomes), command)
    if report:
        _write(report, done)
    return done


def _settings(plan: EvalPlan) -> SweepSettings:
    """Raises UsageMistake for too few tokens."""
    settings = SweepSettings(plan.kv, plan.rotation, plan.ctx, plan.chunks, plan.calibration, plan.logits)
    if settings.scored < FEWEST_SCORED:
        raise UsageMistake(
            f"{plan.chunks} chunks of {plan.ctx} have {settings.scored} scored tokens, "
            f"statistics need {FEWEST_SCORED}: use --chunks {-(-FEWEST_SCORED // scored(plan.ctx))} or more"
        )
    return settings


def _text(path: Path, ctx: int) -> Path:
    """Raises CorpusError if it cannot be read, or is too short for one chunk."""
    text = named_corpus(path, shortest=0)  # tokens are what counts
    require_tokens(text, ctx)
    return text


def _model(session: Session, path: Path | None, ctx: int) -> Model:
    """Raises ModelError; warns if it was trained for less than is measured."""
    model = choose_model(session, path)
    if ctx > model.n_ctx_train:
        trained = f"{model.path.name} was trained for {model.n_ctx_train} tokens"
        session.out.warn(f"{trained}, {ctx} are measured all the same")
    return model


def _command(plan: EvalPlan, models: Sequence[Model], backend: str, *, named: bool) -> str:
    """The command with every value that it used; folders of this machine are not named."""
    words = ["turbotool", "eval", *(model.path.name for model in models if not model.is_default)]
    words += [word for path in plan.corpora for word in ("--corpus", path.name)]
    for name in ("kv", "calibration", "rotation", "ctx", "chunks", "max_kld", "min_same_top"):
        words += [planfile.option(name), planfile.shown(getattr(plan, name))]
    changed = [name for name in EQUAL if getattr(plan, name) != EQUAL[name]]
    words += [word for name in changed for word in (planfile.option(name), planfile.shown(getattr(plan, name)))]
    words += ["--until-resolved"] if plan.until_resolved else []
    words += ["--logits", plan.logits] if plan.logits != planfile.CHOSEN else []
    words += ["--serve-ctx", str(plan.serve_ctx)] if plan.serve_ctx else []
    words += [] if backend == "cpu" else ["--backend", backend]
    return display(words + (["--bin-dir", "BIN_DIR"] if named else []))


def _runner(binaries: Binaries, work: Path, sha256: str) -> Runner:
    """With a log that is started anew, and a folder of calibrations that these programs alone have measured."""
    return Runner(binaries, work, usable_cpus(), fresh_file(work / "eval.log"), kept=work / KEPT / sha256[:16])


def _outcomes(sweeps: Sequence[Sweep], task: _Task) -> list[ModelOutcome]:
    """One model after the other. Of several, one that cannot be measured does not keep the others from it."""
    found: list[ModelOutcome] = []
    for number, sweep in enumerate(sweeps, start=1):
        count = f"model {number} of {len(sweeps)}: " if len(sweeps) > 1 else ""
        task.out.say(f"{count}evaluating {sweep.runner.binaries.bin_dir} with {sweep.model.path.name}")
        try:
            found.append(_evaluate(sweep, task))
        except (*FATAL, ClusterError):
            raise
        except TurbotoolError as error:
            if len(sweeps) == 1:
                raise
            task.out.warn(f"{sweep.model.path.name}: {first_line(error.message)}")
            found.append(Failed(sweep, error))
    return found


def _evaluate(sweep: Sweep, task: _Task) -> Evaluation:
    """Measure, judge, choose, and look at what was chosen: the path that it decodes on, and three questions."""
    if sweep.left_out:
        task.out.say(f"left out, because nothing is rotated there: {', '.join(map(str, sweep.left_out))}")
    machine, plan, criteria, resolution = read_machine(), task.plan, _criteria(task.plan), None
    if sweep.streamed:
        task.out.say("no logits are stored: f16 is computed beside each cache")
    for line in left_alone(plan.kv, plan.calibration):
        task.out.say(line)
    if plan.until_resolved:
        ledger, resolution = resolve(sweep, task.store, criteria, task.out, task.scheduler)
    else:
        ledger = run_sweep(sweep, task.store, sweep.runner.work, task.out, task.scheduler)
    choice = choose(Contest(sweep, ledger, criteria), plan.serve_ctx or sweep.model.n_ctx_train)
    _look_at_decoding(sweep, task, ledger, choice.configuration, criteria.equal)
    asked = dict.fromkeys((Configuration(F16), choice.configuration))
    return Evaluation(
        sweep,
        ledger,
        compare_all(sweep, ledger, criteria.looks, criteria.equal),
        judge(sweep, ledger),
        tuple(probe(sweep, task.store, configuration) for configuration in asked),
        choice,
        criteria,
        machine,
        task.command,
        plan.name or None,
        resolution,
    )


def _look_at_decoding(
    sweep: Sweep, task: _Task, ledger: EvalLedger, configuration: Configuration, equal: Equivalence
) -> None:
    """Enter the runs of that control; one that does not agree is told at once, and by every report."""
    found = measure_decode(sweep, task.store, configuration, task.out)
    ledger.measured |= found.measured
    ledger.failures |= found.failures
    for corpus in sweep.corpora:
        if not (path := decode_path(sweep, ledger, corpus, configuration, equal)).ok:
            task.out.warn(f"{sweep.model.path.name}: {path}")


def _criteria(plan: EvalPlan) -> Criteria:
    """What the plan judges by. The first look has enough tokens for statistics."""
    first = max(FIRST, -(-FEWEST_SCORED // scored(plan.ctx)))
    return Criteria(
        doubling(plan.chunks, first) if plan.until_resolved else Looks((plan.chunks,)),
        Tolerance(plan.max_kld, plan.min_same_top),
        Equivalence(plan.equal_kld, plan.equal_ppl, plan.equal_top),
    )


def _write(folder: Path, done: Evaluated) -> None:
    if done.single:
        from turbotool.evaluation.report.write import write_report

        write_report(folder, done.single)
    else:
        from turbotool.evaluation.report.write_models import write_reports

        write_reports(folder, done.outcomes, done.command)
