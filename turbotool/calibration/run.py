"""One entry that calibrates the KV cache of a model: measures, writes the file, draws it, and checks what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.calibration.calibration import CalibratedModel
from turbotool.calibration.check import RUNS, KldCheck, check, need_base_space
from turbotool.calibration.destination import Destination, choose_target
from turbotool.calibration.page import require_page_libraries, write_page
from turbotool.calibration.passages import Passages, make_passages, require_passages
from turbotool.calibration.program import PROGRAM, embed, measure
from turbotool.calibration.statistics import Statistics
from turbotool.errors import ModelError, ToolMissing, UsageMistake
from turbotool.inputs.corpus import default_corpus, named_corpus
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.metadata import OTHER_MODEL
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import can_gain
from turbotool.kv.size import refusal
from turbotool.programs.choose import choose_binaries, named_binaries
from turbotool.programs.perplexity import require_chunk
from turbotool.programs.runner import Runner
from turbotool.system.files import fresh_file, scratch_folder, writable_folder
from turbotool.system.locks import file_lock
from turbotool.system.machine import usable_cpus
from turbotool.system.process import display
from turbotool.system.session import Session

CTX, SEQUENCES, CHUNKS = 512, 8, 4
CACHE = CachePair("turbo4", "turbo4")
CHECKER = "llama-perplexity"


@dataclass(frozen=True)
class _Asked:
    """What is calibrated, on what, and where it goes. Without `chunks` nothing is checked."""

    model: Model
    texts: tuple[Path, ...]
    ctx: int
    sequences: int
    chunks: int
    pair: CachePair
    target: Destination
    report: Path | None
    runner: Runner
    command: str


def run(
    session: Session,
    model: Path,
    *,
    corpora: Sequence[Path] = (),
    ctx: int = CTX,
    sequences: int = SEQUENCES,
    out: Path | None = None,
    embedded: Path | None = None,
    pair: CachePair = CACHE,
    chunks: int = CHUNKS,
    backend: str = "cpu",
    bin_dir: Path | None = None,
    report: Path | None = None,
    plot: bool = True,
) -> CalibratedModel:
    """Calibrate a model with the build of a backend, made if needed, or with the programs in `bin_dir`.

    It is measured on `sequences` of `ctx` tokens of the `corpora` (UTF-8 texts; default: llama.cpp's documentation) and
    written to `out` (default: where the programs find it, beside the model), or into the copy `embedded` of the model.
    What `pair` loses without and with it is measured on `chunks` of other text; 0 leaves that out. `report` is the
    folder of the page with the plots (default: in build/calibrate); with `plot=False` there is none.

    Raises UsageMistake for a place that cannot be written and for a `pair` without a quantized K, ModelError,
    CorpusError, ToolMissing, what building raises, NoSpace, BinaryFailed, ConfigurationMismatch and Interrupted. What
    was written stays if the check fails.

    >>> run(session, Path("model.gguf")).check.verdict
    """
    if report and not plot:
        raise UsageMistake("--report and --no-plot exclude each other", hint="name one of them")
    if not can_gain(pair):
        raise UsageMistake(
            f"{pair.short} is not calibrated: its K is not quantized", hint="name another one with --cache"
        )
    # what was named is looked at before a build of many minutes and a measurement of more
    texts = tuple(named_corpus(path, shortest=0) for path in dict.fromkeys(corpora))
    if texts:
        require_passages(texts, ctx, sequences, chunks)
    chosen = _model(session, model, ctx, pair if chunks else None)
    target = choose_target(chosen, texts, out, embedded)
    programs = (PROGRAM, CHECKER) if chunks else (PROGRAM,)
    named = named_binaries(bin_dir, backend, programs) if bin_dir else None
    folder = _page_folder(session, chosen, report) if plot else None
    work = session.layout.builds / "calibrate"
    if chunks:
        need_base_space(work, chosen, ctx, chunks)
    binaries = named or choose_binaries(session, backend, None)
    binaries.require(PROGRAM)
    texts = texts or (default_corpus(session.layout.tree, work),)
    require_passages(texts, ctx, sequences, chunks)
    command = _command(chosen, corpora, (ctx, sequences, chunks), target, pair, backend, named=bin_dir is not None)
    with file_lock(work / "lock", session.out, f"calibrate {chosen.path.name}"):
        runner = Runner(binaries, work, usable_cpus(), fresh_file(work / "calibrate.log"))
        asked = _Asked(chosen, texts, ctx, sequences, chunks, pair, target, folder, runner, command)
        with scratch_folder(session.layout, "calibrate") as scratch:
            return _calibrate(session, asked, scratch)


def _model(session: Session, path: Path, ctx: int, pair: CachePair | None) -> Model:
    """Raises ModelError, also if the model cannot have the cache that is checked; warns if it is trained for less."""
    model = choose_model(session, path)
    if not model.head_dim_k:
        raise ModelError(f"{model.path} has no attention: there is no KV cache to calibrate", hint=OTHER_MODEL)
    if pair and (refused := refusal(model.kv, pair)):
        raise ModelError(
            f"{model.path.name} cannot have a {pair.short} cache to check the calibration with: {refused}",
            hint="name another one with --cache, or leave the check out with --no-check",
        )
    if ctx > model.n_ctx_train:
        trained = f"{model.path.name} was trained for {model.n_ctx_train} tokens"
        session.out.warn(f"{trained}, {ctx} are measured all the same")
    return model


def _page_folder(session: Session, model: Model, named: Path | None) -> Path | None:
    """Where the page goes; None if nobody asked for one and the libraries are missing, which is told."""
    try:
        require_page_libraries()
    except ToolMissing as error:
        if named:
            raise
        session.out.say(f"no page with plots: {error.message}; {error.hint}")
        return None
    folder = named or session.layout.builds / "calibrate" / model.path.stem
    writable_folder(folder)
    return folder


def _command(
    model: Model,
    corpora: Sequence[Path],
    numbers: tuple[int, int, int],
    target: Destination,
    pair: CachePair,
    backend: str,
    *,
    named: bool,
) -> str:
    """The command with every value that it used; folders of this machine are not named."""
    ctx, sequences, chunks = numbers
    words = ["turbotool", "calibrate", model.path.name]
    words += [word for path in corpora for word in ("--corpus", path.name)]
    words += ["--ctx", str(ctx), "--sequences", str(sequences)]
    words += ["--embed" if target.embeds else "--out", target.path.name]
    words += ["--cache", pair.short, "--chunks", str(chunks)] if chunks else ["--no-check"]
    words += [] if backend == "cpu" else ["--backend", backend]
    return display(words + (["--bin-dir", "BIN_DIR"] if named else []))


def _calibrate(session: Session, asked: _Asked, scratch: Path) -> CalibratedModel:
    """Measure, write, check, draw."""
    session.out.say(f"calibrating {asked.model.path.name} with {asked.runner.binaries.bin_dir}")
    passages = make_passages(asked.texts, asked.ctx, asked.sequences, asked.chunks, scratch)
    if passages.held:
        require_chunk(asked.runner, asked.model, passages.held, asked.pair)
    calibration = scratch / "calibration.gguf"
    statistics = _measure(session, asked, passages, calibration)
    found = _check(session, asked, passages)
    made = CalibratedModel(
        asked.model,
        asked.texts,
        asked.ctx,
        asked.sequences,
        asked.target,
        statistics,
        asked.pair,
        found,
        None,
        asked.runner.log or scratch,
        asked.command,
    )
    return replace(made, page=write_page(asked.report, made)) if asked.report else made


def _measure(session: Session, asked: _Asked, passages: Passages, calibration: Path) -> Statistics:
    """Measure the calibration and put it in its place; says what it replaces, and what the text lacked."""
    total = asked.sequences + asked.target.embeds
    with session.out.progress("calibrate") as step:
        step(0, total, "loading the model")
        statistics = measure(
            asked.runner,
            asked.model.path,
            passages.measured,
            calibration,
            lambda done: step(done, total, f"sequence {min(done + 1, asked.sequences)} of {asked.sequences}"),
        )
        if asked.target.embeds:
            step(asked.sequences, total, "copying the model")
            _embed(asked, calibration)
        else:
            asked.target.keep(calibration)
        step(total, total, "done")
    if (given := statistics.n_tokens // asked.ctx) < asked.sequences:
        session.out.warn(f"the text gave {given} sequences of {asked.ctx} tokens, not {asked.sequences}")
    session.out.say(f"{'replaced' if asked.target.replaces else 'wrote'} {asked.target.path}")
    return statistics


def _embed(asked: _Asked, calibration: Path) -> None:
    try:
        embed(asked.runner, asked.model.path, calibration, asked.target.part)
        asked.target.keep_copy()
    finally:
        asked.target.part.unlink(missing_ok=True)


def _check(session: Session, asked: _Asked, passages: Passages) -> KldCheck | None:
    if passages.held is None:
        return None
    with session.out.progress("check") as step:
        found = check(
            asked.runner,
            asked.model,
            passages.held,
            asked.pair,
            asked.target.served(asked.model.path),
            lambda done: step(done, len(RUNS), (*RUNS, "done")[done]),
        )
    if found.chunks < asked.chunks:
        session.out.warn(
            f"the text that was held back gave {found.chunks} chunks of {asked.ctx} tokens, not {asked.chunks}"
        )
    return found
