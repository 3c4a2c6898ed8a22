"""`turbotool bench`: speed over cache types, depths and threads, measured by llama-bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli.options import fail, numbers, output_options, prepare_folder
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.bench.document import Subject
    from turbotool.bench.plan import BenchSettings, Build
    from turbotool.bench.write import BenchReport
    from turbotool.inputs.model import Model
    from turbotool.layout import Layout
    from turbotool.programs.binaries import Binaries

PATH = click.Path(path_type=Path)
KV = "f16,q8_0,q4_0,turbo4,turbo3,turbo2"
MAX_THREADS = 512  # ggml's own limit


@click.command()
@click.option("--kv", default=KV, show_default=True, metavar="TYPE[/TYPE],...", help="Caches; K/V for two types.")
@click.option(
    "--depth",
    "depths",
    default="0,4096",
    show_default=True,
    callback=numbers(0, MAX_TOKENS),
    metavar="N,...",
    help="Tokens in the cache.",
)
@click.option(
    "--threads", callback=numbers(1, MAX_THREADS), metavar="N,...", help="Numbers of threads  [default: 1 and all CPUs]"
)
@click.option("--pp", type=click.IntRange(0, MAX_TOKENS), default=256, show_default=True, help="Tokens of the prompt.")
@click.option("--tg", type=click.IntRange(0, MAX_TOKENS), default=16, show_default=True, help="Tokens generated.")
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds.")
@click.option("--model", "model_path", type=PATH, help="A GGUF file  [default: the locked small model]")
@click.option("--against", type=PATH, metavar="BIN_DIR", help="Compare with the llama-bench in this folder.")
@click.option("--backend", default="cpu", show_default=True, help="Which build to measure.")
@click.option("--bin-dir", type=PATH, help="Measure the llama-bench in this folder instead of building.")
@click.option("--report", "folder", type=PATH, metavar="DIR", help="Write bench.json, bench.md and bench.svg there.")
@click.option("--no-plot", is_flag=True, help="No bench.svg, which needs matplotlib.")
@output_options
def bench(
    kv: str,
    depths: tuple[int, ...],
    threads: tuple[int, ...] | None,
    pp: int,
    tg: int,
    repeat: int,
    model_path: Path | None,
    against: Path | None,
    backend: str,
    bin_dir: Path | None,
    folder: Path | None,
    no_plot: bool,
    out: Output,
) -> None:
    """Speed of cache types at depths and threads, two builds interleaved; medians over rounds, ratios within one.

    It runs llama-bench, with flash attention, and without the rotation of K and V that llama.cpp may add.
    """
    from turbotool.bench.document import Subject
    from turbotool.bench.plan import AGAINST, OURS, left_out, make_plan
    from turbotool.bench.write import BenchReport
    from turbotool.inputs.default_model import choose_model
    from turbotool.layout import find_layout
    from turbotool.programs.choose import choose_binaries
    from turbotool.system.extras import require_library
    from turbotool.system.machine import read_machine

    settings = _settings(kv, depths, threads, pp, tg, repeat)
    layout = find_layout()
    # what was named is looked at before a build of many minutes and a measurement of more
    named = _named(bin_dir, backend) if bin_dir else None
    other = _named(against, backend) if against else None
    if folder:
        if not no_plot:
            needed = "the plot of a report needs"
            require_library("matplotlib>=3.8", "bench", needed, ", or leave the plot out with --no-plot")
        prepare_folder(folder)
    model = choose_model(layout, model_path, out)
    _warn(model, settings, out)
    ours = named or choose_binaries(layout, backend, None, out)
    binaries = {OURS: ours, AGAINST: other} if other else {OURS: ours}
    plan = make_plan(model, settings, _examine(layout, binaries, model, settings, out))
    for line in left_out(plan):
        out.say(line)
    subject = Subject(plan, read_machine(), _command(settings, model, backend, bin_dir, against))
    report = BenchReport(folder, subject, plot=not no_plot) if folder else None
    _measure(subject, report, out)


def _settings(
    kv: str, depths: tuple[int, ...], threads: tuple[int, ...] | None, pp: int, tg: int, repeat: int
) -> BenchSettings:
    """Raises UnknownCacheType for a cache that no build has."""
    from turbotool.bench.plan import BenchSettings
    from turbotool.kv.cachetype import CachePair
    from turbotool.programs.llamabench import DECODE, PREFILL, Phase
    from turbotool.system.machine import usable_cpus

    if not pp and not tg:
        raise click.UsageError("--pp 0 and --tg 0 leave nothing to measure")
    pairs = tuple(dict.fromkeys(CachePair.parse(word.strip()) for word in kv.split(",")))
    phases = tuple(Phase(kind, tokens) for kind, tokens in ((PREFILL, pp), (DECODE, tg)) if tokens)
    return BenchSettings(pairs, depths, threads or tuple(dict.fromkeys((1, usable_cpus()))), phases, repeat)


def _named(folder: Path, backend: str) -> Binaries:
    """The programs in a folder, llama-bench among them. Raises ToolMissing."""
    from turbotool.programs.choose import named_binaries
    from turbotool.programs.llamabench import PROGRAM

    binaries = named_binaries(folder, backend)
    binaries.require(PROGRAM)
    return binaries


def _warn(model: Model, settings: BenchSettings, out: Output) -> None:
    """What can be measured but means little."""
    from turbotool.system.machine import usable_cpus

    needed = max(settings.depths) + max(phase.tokens for phase in settings.phases)
    if needed > model.n_ctx_train:
        out.warn(f"{model.path.name} was trained for {model.n_ctx_train} tokens, {needed} are measured all the same")
    if max(settings.threads) > usable_cpus():
        out.warn(f"{max(settings.threads)} threads share {usable_cpus()} CPUs")


def _examine(
    layout: Layout, binaries: Mapping[str, Binaries], model: Model, settings: BenchSettings, out: Output
) -> list[Build]:
    """Each build's first run, into a log that is started anew."""
    from turbotool.bench.plan import examine
    from turbotool.programs.runner import Runner
    from turbotool.system.machine import usable_cpus

    work = layout.builds / "bench" / next(iter(binaries.values())).backend
    work.mkdir(parents=True, exist_ok=True)
    log = work / "bench.log"
    log.unlink(missing_ok=True)
    builds = []
    for name, found in binaries.items():
        out.say(f"{name}: {found.bin_dir}")
        builds.append(examine(name, Runner(found, work, usable_cpus(), log, timed=True), model, settings))
    return builds


def _command(settings: BenchSettings, model: Model, backend: str, bin_dir: Path | None, against: Path | None) -> str:
    """The command with every value that it used; folders of this machine are not named."""
    from turbotool.system.process import display

    words = ["turbotool", "bench", "--kv", ",".join(pair.short for pair in settings.pairs)]
    words += ["--depth", ",".join(map(str, settings.depths)), "--threads", ",".join(map(str, settings.threads))]
    for kind in ("pp", "tg"):
        phase = settings.phase(kind)
        words += [f"--{kind}", str(phase.tokens if phase else 0)]
    words += ["--repeat", str(settings.rounds)]
    words += [] if backend == "cpu" else ["--backend", backend]
    words += [] if model.is_default else ["--model", model.path.name]
    words += ["--bin-dir", "BIN_DIR"] if bin_dir else []
    words += ["--against", "OTHER_BIN_DIR"] if against else []
    return display(words)


def _measure(subject: Subject, report: BenchReport | None, out: Output) -> None:
    """All rounds, the report after each, the tables; the command fails if a cell did."""
    from turbotool.bench.document import document
    from turbotool.bench.figures import make_cells
    from turbotool.bench.rounds import BenchLedger, run_rounds, verdict
    from turbotool.bench.table import text
    from turbotool.errors import Interrupted

    ledger = BenchLedger()

    def save() -> None:
        if report:
            report.save(ledger)

    if report:
        report.begin()
    try:
        run_rounds(subject.plan, ledger, out, save)
    except (Interrupted, KeyboardInterrupt):
        save()
        if report:
            out.say(f"{ledger.rounds} complete rounds are in {report.folder}")
        raise
    if report:
        report.finish(ledger)
        out.say(f"report: {report.folder}")
    out.say(text(make_cells(subject.plan, ledger)))
    result, failed = document(subject, ledger), verdict(subject.plan, ledger)
    if failed:
        fail(failed, out, result)
    out.document(result)
