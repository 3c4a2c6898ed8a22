"""One entry that measures the speed of KV caches: over types, depths and threads, two builds interleaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.bench.document import Subject
from turbotool.bench.figures import BenchCell, make_cells
from turbotool.bench.plan import AGAINST, OURS, BenchSettings, Build, examine, left_out, make_plan
from turbotool.bench.rounds import BenchLedger, run_rounds, verdict
from turbotool.bench.write import BenchReport
from turbotool.errors import Interrupted, TurbotoolError, UsageMistake
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import AUTO, Calibration, require_files
from turbotool.programs.binaries import Binaries
from turbotool.programs.choose import choose_binaries, named_binaries
from turbotool.programs.llamabench import DECODE, PREFILL, PROGRAM, Phase
from turbotool.programs.runner import KEPT, Runner
from turbotool.system.extras import require_library
from turbotool.system.files import fresh_file, remove, writable_folder
from turbotool.system.machine import read_machine, usable_cpus
from turbotool.system.process import display
from turbotool.system.session import Session

DEPTHS = (0, 4096)
PROMPT, GENERATED, ROUNDS = 256, 16, 5


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that was run: what it is about, and what was measured."""

    subject: Subject
    ledger: BenchLedger

    @property
    def cells(self) -> tuple[BenchCell, ...]:
        return make_cells(self.subject.plan, self.ledger)

    def error(self) -> TurbotoolError | None:
        """What the command ends with; None if no cell failed."""
        return verdict(self.subject.plan, self.ledger)


def run(
    session: Session,
    pairs: Sequence[CachePair],
    *,
    depths: Sequence[int] = DEPTHS,
    threads: Sequence[int] | None = None,
    prompt: int = PROMPT,
    generated: int = GENERATED,
    rounds: int = ROUNDS,
    model: Path | None = None,
    backend: str = "cpu",
    bin_dir: Path | None = None,
    against: Path | None = None,
    report: Path | None = None,
    plot: bool = True,
    calibrations: Sequence[Calibration] = (AUTO,),
) -> Benchmark:
    """Time the build of a backend, made if needed, or the llama-bench in `bin_dir`; beside it the one in `against`.

    `depths` are tokens in the cache, `threads` (default: one, and all usable CPUs) numbers of threads, `prompt` and
    `generated` tokens that are timed (0 leaves a phase out), `model` a GGUF file (default: the small one). `report` is
    a folder that receives tables and, with `plot`, a picture. `calibrations` are those of caches with a quantized K;
    the build beside ours does without if it knows nothing of them.

    Raises UsageMistake where nothing is left to measure, ModelError, ToolMissing, UnknownCacheType,
    ConfigurationMismatch, what building raises, NoSpace and Interrupted; a cell that fails does not keep the others
    from being measured.

    >>> done = run(session, [CachePair.parse("turbo4")], depths=[0], rounds=1)
    >>> [cell.speed.median for cell in done.cells if cell.speed]
    """
    settings = _settings(pairs, depths, threads, (prompt, generated), rounds)
    settings = replace(settings, calibrations=tuple(dict.fromkeys(calibrations)))
    require_files(settings.calibrations)
    # what was named is looked at before a build of many minutes and a measurement of more
    named = named_binaries(bin_dir, backend, (PROGRAM,)) if bin_dir else None
    other = named_binaries(against, backend, (PROGRAM,)) if against else None
    if report:
        if plot:
            needed = "the plot of a report needs"
            require_library("matplotlib>=3.8", "bench", needed, ", or leave the plot out with --no-plot")
        writable_folder(report)
    chosen = choose_model(session, model)
    _warn(session, chosen, settings)
    ours = named or choose_binaries(session, backend, None)
    binaries = {OURS: ours, AGAINST: other} if other else {OURS: ours}
    plan = make_plan(chosen, settings, _examine(session, binaries, chosen, settings))
    for line in left_out(plan):
        session.out.say(line)
    subject = Subject(plan, read_machine(), _command(settings, chosen, backend, bin_dir, against))
    return _measure(session, subject, BenchReport(report, subject, plot=plot) if report else None)


def _settings(
    pairs: Sequence[CachePair],
    depths: Sequence[int],
    threads: Sequence[int] | None,
    tokens: tuple[int, int],
    rounds: int,
) -> BenchSettings:
    if not any(tokens):
        raise UsageMistake("--pp 0 and --tg 0 leave nothing to measure")
    phases = tuple(Phase(kind, count) for kind, count in zip((PREFILL, DECODE), tokens, strict=True) if count)
    counts = tuple(threads or dict.fromkeys((1, usable_cpus())))
    return BenchSettings(tuple(dict.fromkeys(pairs)), tuple(depths), counts, phases, rounds)


def _warn(session: Session, model: Model, settings: BenchSettings) -> None:
    """What can be measured but means little."""
    needed = max(settings.depths) + max(phase.tokens for phase in settings.phases)
    if needed > model.n_ctx_train:
        trained = f"{model.path.name} was trained for {model.n_ctx_train} tokens"
        session.out.warn(f"{trained}, {needed} are measured all the same")
    if max(settings.threads) > usable_cpus():
        session.out.warn(f"{max(settings.threads)} threads share {usable_cpus()} CPUs")


def _examine(session: Session, binaries: Mapping[str, Binaries], model: Model, settings: BenchSettings) -> list[Build]:
    """Each build's first run, into a log that is started anew; calibrations, too, are its own."""
    work = session.layout.builds / "bench" / next(iter(binaries.values())).backend
    log = fresh_file(work / "bench.log")
    remove(work / KEPT)
    builds = []
    for name, found in binaries.items():
        session.out.say(f"{name}: {found.bin_dir}")
        runner = Runner(found, work, usable_cpus(), log, timed=True, kept=work / KEPT / name)
        builds.append(examine(name, runner, model, settings))
    return builds


def _command(settings: BenchSettings, model: Model, backend: str, bin_dir: Path | None, against: Path | None) -> str:
    """The command with every value that it used; folders of this machine are not named."""
    words = ["turbotool", "bench", "--kv", ",".join(pair.short for pair in settings.pairs)]
    words += ["--calibration", ",".join(map(str, settings.calibrations))]
    words += ["--depth", ",".join(map(str, settings.depths)), "--threads", ",".join(map(str, settings.threads))]
    for kind in (PREFILL, DECODE):
        phase = settings.phase(kind)
        words += [f"--{kind}", str(phase.tokens if phase else 0)]
    words += ["--repeat", str(settings.rounds)]
    words += [] if backend == "cpu" else ["--backend", backend]
    words += [] if model.is_default else ["--model", model.path.name]
    words += ["--bin-dir", "BIN_DIR"] if bin_dir else []
    words += ["--against", "OTHER_BIN_DIR"] if against else []
    return display(words)


def _measure(session: Session, subject: Subject, report: BenchReport | None) -> Benchmark:
    """All rounds, the report after each of them."""
    ledger = BenchLedger()

    def save() -> None:
        if report:
            report.save(ledger)

    if report:
        report.begin()
    try:
        run_rounds(subject.plan, ledger, session.out, save)
    except (Interrupted, KeyboardInterrupt):
        save()
        if report:
            session.out.say(f"{ledger.rounds} complete rounds are in {report.folder}")
        raise
    if report:
        report.finish(ledger)
    return Benchmark(subject, ledger)
