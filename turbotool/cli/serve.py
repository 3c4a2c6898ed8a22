"""`turbotool serve`: from a model to an OpenAI-compatible server, with the context and the cache that fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli.options import finite_or_none, session_options
from turbotool.cli.plan import KV, MAX_SEQUENCES, in_bytes
from turbotool.evaluation.planfile import MAX_KLD
from turbotool.kv.cachetype import MAX_TOKENS
from turbotool.system.session import Session

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.serve.launch import LiveServer
    from turbotool.serve.plan import Wanted

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model_path", metavar="MODEL", type=PATH)
@click.argument("words", metavar="[-- LLAMA-SERVER-OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--memory", callback=in_bytes, metavar="SIZE", help="Take up to so much, such as 8GiB  [default: what is free]"
)
@click.option(
    "--ctx", type=click.IntRange(1, MAX_TOKENS), metavar="N", help="Tokens  [default: as many as fit and trained for]"
)
@click.option(
    "--quality",
    type=click.FloatRange(min=0),
    callback=finite_or_none,
    metavar="KLD",
    help=f"Tolerated mean KLD from f16 in nats  [default: {MAX_KLD}; any with --kv]",
)
@click.option("--kv", metavar="TYPE[/TYPE],...", help=f"Caches to choose from  [default: {KV}]")
@click.option(
    "--parallel",
    type=click.IntRange(1, MAX_SEQUENCES),
    metavar="N",
    help="Sequences with a context of their own  [default: llama-server's 4, which share one]",
)
@click.option(
    "--reserve",
    callback=in_bytes,
    metavar="SIZE",
    default="1GiB",
    show_default=True,
    help="What of the memory compute buffers may take.",
)
@click.option("--backend", help="Which build to serve with  [default: the one that is there; a GPU's before the CPU's]")
@click.option("--bin-dir", type=PATH, help="Serve with the programs in this folder instead of building.")
@click.option("--print", "only_print", is_flag=True, help="Print the command line, and start nothing.")
@session_options
def serve(
    model_path: Path,
    words: tuple[str, ...],
    memory: int | None,
    ctx: int | None,
    quality: float | None,
    kv: str | None,
    parallel: int | None,
    reserve: int,
    backend: str | None,
    bin_dir: Path | None,
    only_print: bool,
    session: Session,
) -> int:
    """Serve MODEL with llama-server: an address that every OpenAI client knows, from one command.

    The build that is there is used, or made. The context is as long as the memory allows, the cache the one that loses
    least there: by what `turbotool eval` has measured on this model, or else on a small one of its kind. A quantized K
    is calibrated. What is typed behind -- goes to llama-server, which ends with this command, and this command with it.
    """
    from turbotool.serve.document import document
    from turbotool.serve.run import prepare
    from turbotool.serve.run import serve as serve_plan
    from turbotool.serve.text import chosen_text, measure, ready_text

    out = session.out
    wanted = _wanted(ctx, quality, kv, parallel, words)
    plan = prepare(session, model_path, wanted, memory=memory, reserve=reserve, backend=backend, bin_dir=bin_dir)
    if plan.ctx > plan.model.n_ctx_train:
        out.warn(f"{plan.model.path.name} was trained for {plan.model.n_ctx_train} tokens, not {plan.ctx}")
    if only_print:
        out.say(chosen_text(plan))
        out.result(plan.command)
        out.document(document(plan, measure(plan)))
        return 0

    def ready(running: LiveServer) -> None:
        out.result(ready_text(plan, running))
        out.document(document(plan, measure(plan), running))

    out.result(chosen_text(plan))
    return serve_plan(session, plan, ready)


def _wanted(
    ctx: int | None, quality: float | None, kv: str | None, parallel: int | None, words: tuple[str, ...]
) -> Wanted:
    from turbotool.kv.cachetype import CachePair
    from turbotool.kv.serving import LLAMA_SERVER, Serving
    from turbotool.serve.plan import Wanted

    pairs = tuple(CachePair.parse(word.strip()) for word in (kv or KV).split(","))
    bound = MAX_KLD if quality is None and kv is None else quality
    return Wanted(ctx, bound, pairs, Serving(parallel, shared=False) if parallel else LLAMA_SERVER, words)
