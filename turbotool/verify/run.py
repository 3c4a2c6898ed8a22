"""One entry that proves binaries with a real model."""

from __future__ import annotations

from pathlib import Path

from turbotool.inputs.corpus import default_corpus
from turbotool.inputs.model import Model
from turbotool.layout import Layout
from turbotool.programs.binaries import Binaries
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import Runner
from turbotool.system.machine import usable_cpus
from turbotool.system.output import Output
from turbotool.verify.check import Context

QUICK_CHUNKS = 1
FULL_CHUNKS = 4


def make_context(
    layout: Layout, name: str, binaries: Binaries, model: Model, corpus: Path | None, out: Output, *, quick: bool
) -> Context:
    """A context whose runs log to verify.log, started anew, in folder `name`; without `corpus` on the default one."""
    work = layout.builds / "verify" / name
    work.mkdir(parents=True, exist_ok=True)
    log = work / "verify.log"
    log.unlink(missing_ok=True)
    runner = Runner(binaries, work, usable_cpus(), log)
    chunks = QUICK_CHUNKS if quick else FULL_CHUNKS
    text = Text(corpus or default_corpus(layout.tree, work), ctx=512, chunks=chunks)
    return Context(runner, model, text, out, quick, default_text=corpus is None)
