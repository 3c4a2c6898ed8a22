"""`turbotool calibrate`: means and scales that a quantized KV cache loses less with, measured on a text."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli.options import session_options
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.session import Session

PATH = click.Path(path_type=Path)
SMALLEST_CTX = 128  # 2 chunks of it have the tokens that llama-perplexity needs for statistics
MAX_SEQUENCES = 1 << 16


@click.command()
@click.argument("model_path", metavar="MODEL", type=PATH)
@click.option("--corpus", "corpora", type=PATH, multiple=True, help="A UTF-8 text; repeat for more  [default: docs]")
@click.option(
    "--ctx", type=click.IntRange(SMALLEST_CTX, MAX_TOKENS), default=512, show_default=True, help="Tokens of a sequence."
)
@click.option(
    "--sequences",
    type=click.IntRange(1, MAX_SEQUENCES),
    default=8,
    show_default=True,
    help="Sequences that are measured.",
)
@click.option("--out", type=PATH, metavar="FILE", help="Write it there  [default: NAME.kvcal.gguf beside the model]")
@click.option("--embed", type=PATH, metavar="FILE", help="Write a copy of the model that holds it, and no other file.")
@click.option("--cache", default="turbo4", show_default=True, metavar="TYPE[/TYPE]", help="The cache that is checked.")
@click.option(
    "--chunks", type=click.IntRange(2, MAX_SEQUENCES), default=4, show_default=True, help="Chunks of the check."
)
@click.option("--no-check", is_flag=True, help="Do not measure what the cache loses without and with it.")
@click.option("--backend", default="cpu", show_default=True, help="Which build to measure with.")
@click.option("--bin-dir", type=PATH, help="Measure with the programs in this folder instead of building.")
@click.option(
    "--report", "folder", type=PATH, metavar="DIR", help="Write calibration.html there  [default: in build/calibrate]"
)
@click.option("--no-plot", is_flag=True, help="No calibration.html, which needs matplotlib and jinja2.")
@session_options
def calibrate(
    model_path: Path,
    corpora: tuple[Path, ...],
    ctx: int,
    sequences: int,
    out: Path | None,
    embed: Path | None,
    cache: str,
    chunks: int,
    no_check: bool,
    backend: str,
    bin_dir: Path | None,
    folder: Path | None,
    no_plot: bool,
    session: Session,
) -> None:
    """Calibrate the KV cache of MODEL on a text: the programs then lose less of K at the same size.

    The file is written beside the model, where llama.cpp's programs find it with --kv-calibration auto. A part of the
    text is held back; on it, the KLD of a cache is measured without and with the calibration.
    """
    from turbotool.calibration.check import WORSE
    from turbotool.calibration.document import document
    from turbotool.calibration.run import run
    from turbotool.calibration.table import text
    from turbotool.kv.cachetype import CachePair

    made = run(
        session,
        model_path,
        corpora=corpora,
        ctx=ctx,
        sequences=sequences,
        out=out,
        embedded=embed,
        pair=CachePair.parse(cache),
        chunks=0 if no_check else chunks,
        backend=backend,
        bin_dir=bin_dir,
        report=folder,
        plot=not no_plot,
    )
    session.out.result(text(made))
    if made.page:
        session.out.say(f"report: {made.page}")
    if made.check and made.check.verdict == WORSE and not made.target.embeds:
        session.out.warn(f"programs with --kv-calibration auto may use it all the same; remove {made.target.path}")
    session.out.document(document(made))
