"""`turbotool plan`: what the KV caches of a model take, from the metadata of its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli.options import numbers, session_options
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.session import Session

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.kv.serving import Serving

KV = "f16,q8_0,q8_0/turbo4,q4_0,turbo4,turbo3,turbo2"
MAX_SEQUENCES = 256  # llama.cpp's own limit
UNITS = {
    **{f"{prefix}iB": 1 << 10 * power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
}
SIZE = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?) ?({'|'.join(UNITS)})")


def in_bytes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A callback that reads a size with its unit: `24GiB` is 24 * 1024**3, `24GB` is 24 * 1000**3."""
    if value is None:
        return None
    match = SIZE.fullmatch(value)
    if not match:
        raise click.BadParameter(f"'{value}' is no size with a unit, such as 24GiB or 500MiB", ctx=ctx, param=parameter)
    return int(float(match[1]) * UNITS[match[2]])


@click.command()
@click.argument("model_path", metavar="[MODEL]", type=click.Path(path_type=Path), required=False)
@click.option("--kv", default=KV, show_default=True, metavar="TYPE[/TYPE],...", help="Caches; K/V for two types.")
@click.option(
    "--ctx",
    "contexts",
    callback=numbers(1, MAX_TOKENS),
    metavar="N,...",
    help="Tokens to serve  [default: as many as trained for]",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, MAX_SEQUENCES),
    metavar="N",
    help="Sequences with a context of their own  [default: llama-server's 4, which share one]",
)
@click.option("--budget", callback=in_bytes, metavar="SIZE", help="Memory that there is, such as 24GiB.")
@click.option(
    "--reserve",
    callback=in_bytes,
    metavar="SIZE",
    default="1GiB",
    show_default=True,
    help="What of the budget compute buffers may take.",
)
@session_options
def plan(
    model_path: Path | None,
    kv: str,
    contexts: tuple[int, ...] | None,
    parallel: int | None,
    budget: int | None,
    reserve: int,
    session: Session,
) -> None:
    """Memory of the KV caches of MODEL by type and context, and what fits a budget.

    It reads the header of the file; nothing is run. Without MODEL it is about the small default one.
    """
    from turbotool.inputs.default_model import choose_model
    from turbotool.inputs.model import weight_bytes
    from turbotool.kv.cachetype import CachePair
    from turbotool.memory.document import document
    from turbotool.memory.plan import Budget, make_plan
    from turbotool.memory.text import text

    pairs = [CachePair.parse(word.strip()) for word in kv.split(",")]
    model = choose_model(session, model_path)
    allowed = Budget(budget, weight_bytes(model.path), reserve) if budget is not None else None
    made = make_plan(model, pairs, sorted(contexts or (model.n_ctx_train,)), _serving(parallel), allowed)
    for ctx in contexts or ():
        if ctx > model.n_ctx_train:
            session.out.warn(f"{model.path.name} was trained for {model.n_ctx_train} tokens, not {ctx}")
    session.out.result(text(made))
    session.out.document(document(made))


def _serving(parallel: int | None) -> Serving:
    from turbotool.kv.serving import LLAMA_SERVER, Serving

    return Serving(parallel, shared=False) if parallel else LLAMA_SERVER
