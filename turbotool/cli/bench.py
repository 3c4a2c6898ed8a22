"""`turbotool bench`: speed over cache types, depths and threads, measured by llama-bench."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli.lazy import CommandWithOthers
from turbotool.cli.options import fail, numbers, session_options
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.session import Session

PATH = click.Path(path_type=Path)
KV = "f16,q8_0,q4_0,turbo4,turbo3,turbo2"
MAX_THREADS = 512  # ggml's own limit
OTHERS = {"attention": ("turbotool.cli.attention", "The attention alone, without a model: ns for each cell.")}


@click.command(cls=CommandWithOthers, others=OTHERS)
@click.option("--kv", default=KV, show_default=True, metavar="TYPE[/TYPE],...", help="Caches; K/V for two types.")
@click.option("--calibration", default="auto", show_default=True, metavar="off,auto,FILE", help="Of a quantized K.")
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
@session_options
def bench(
    kv: str,
    calibration: str,
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
    session: Session,
) -> None:
    """Speed of cache types at depths and threads, two builds interleaved; medians over rounds, ratios within one.

    It runs llama-bench, with flash attention, and without the rotation of K and V that llama.cpp may add. A build that
    knows nothing of calibrated caches is measured without.
    """
    from turbotool.bench.document import document
    from turbotool.bench.run import run
    from turbotool.bench.table import text
    from turbotool.kv.cachetype import CachePair
    from turbotool.kv.calibration import parse_calibrations

    done = run(
        session,
        [CachePair.parse(word.strip()) for word in kv.split(",")],
        depths=depths,
        threads=threads,
        prompt=pp,
        generated=tg,
        rounds=repeat,
        model=model_path,
        backend=backend,
        bin_dir=bin_dir,
        against=against,
        report=folder,
        plot=not no_plot,
        calibrations=parse_calibrations(calibration),
    )
    if folder:
        session.out.say(f"report: {folder}")
    session.out.result(text(done.cells))
    result = document(done.subject, done.ledger)
    if failed := done.error():
        fail(failed, session.out, result)
    session.out.document(result)
