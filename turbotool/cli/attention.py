"""`turbotool bench attention`: how long the attention alone takes."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli.bench import MAX_THREADS
from turbotool.cli.options import numbers, session_options
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.session import Session

PATH = click.Path(path_type=Path)
MAX_HEADS = 1024


@click.command()
@click.option("--kv", default="f16,q8_0,turbo4", show_default=True, metavar="TYPE[/TYPE],...", help="Caches.")
@click.option("--head", default="64", show_default=True, metavar="N[/N],...", help="Values of a head; K/V for two.")
@click.option(
    "--group",
    default="3",
    callback=numbers(1, MAX_HEADS),
    metavar="N,...",
    help="Query heads of a KV head  [default: 3]",
)
@click.option(
    "--tokens",
    default="1",
    callback=numbers(1, MAX_TOKENS),
    metavar="N,...",
    help="Tokens that ask at once  [default: 1]",
)
@click.option(
    "--depth",
    "depths",
    default="4096",
    callback=numbers(1, MAX_TOKENS),
    metavar="N,...",
    help="Cells of the cache  [default: 4096]",
)
@click.option(
    "--threads", default="1", callback=numbers(1, MAX_THREADS), metavar="N,...", help="Numbers of threads  [default: 1]"
)
@click.option("--heads-kv", type=click.IntRange(1, MAX_HEADS), default=3, show_default=True, help="KV heads.")
@click.option(
    "--mib", type=click.IntRange(1, 4096), default=64, show_default=True, help="Size of the caches: layers fill it."
)
@click.option("--repeat", type=click.IntRange(1, 1000), default=5, show_default=True, help="Rounds.")
@click.option(
    "--within", "repeats", type=click.IntRange(1, 10000), default=20, show_default=True, help="Repetitions in a round."
)
@click.option("--against", type=PATH, metavar="BIN_DIR", help="Compare with the build in this folder.")
@click.option("--bin-dir", type=PATH, help="Measure the programs in this folder instead of building.")
@session_options
def attention(
    kv: str,
    head: str,
    group: tuple[int, ...],
    tokens: tuple[int, ...],
    depths: tuple[int, ...],
    threads: tuple[int, ...],
    heads_kv: int,
    mib: int,
    repeat: int,
    repeats: int,
    against: Path | None,
    bin_dir: Path | None,
    session: Session,
) -> None:
    """ns for each cell and KV head that attention takes on the CPU, without a model; two builds in turn.

    On a small model the rest of the model hides it.
    """
    from turbotool.bench.attention import run_attention
    from turbotool.bench.attention_document import attention_document
    from turbotool.bench.attention_table import attention_text
    from turbotool.kv.cachetype import CachePair
    from turbotool.programs.attentionspeed import AttentionSettings, parse_heads

    pairs = tuple(dict.fromkeys(CachePair.parse(word.strip()) for word in kv.split(",")))
    settings = AttentionSettings(pairs, parse_heads(head), group, tokens, depths, threads, heads_kv, repeats, mib)
    done = run_attention(session, settings, rounds=repeat, bin_dir=bin_dir, against=against)
    session.out.result(attention_text(done))
    session.out.document(attention_document(done))
