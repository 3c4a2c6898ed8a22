"""What an evaluation measures: every cache and rotation on every text, and the controls that always run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import CorpusError, ModelError, UnknownCacheType
from turbotool.evaluation.cell import Configuration, Origin
from turbotool.evaluation.identity import PROGRAMS, STREAMING, binaries_hash
from turbotool.evaluation.planfile import CHOSEN, STREAMED
from turbotool.evaluation.store import Store
from turbotool.inputs.metadata import OTHER_MODEL
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import OPTION, UNCALIBRATED, Calibration, beside, calibrations_of, refuse_programs
from turbotool.kv.rotation import gate_is_on
from turbotool.programs.kvdivergence import BATCH, logits_in_memory
from turbotool.programs.perplexity import Text, base_bytes, scored
from turbotool.programs.runner import Runner

NOISE = (Configuration(F16), Configuration(F16))  # f16 against itself, twice
CONTROL = Configuration(CachePair("q4_0", "q4_0"))  # without rotation and calibration: known to be worse
FEWEST_SCORED = 100  # llama-perplexity makes no statistics of fewer tokens
# Above these, logits are streamed unless something else was asked for. They depend on nothing of this machine, so that
# the same command measures the same everywhere.
MOST_STORED = 8 * 2**30  # bytes on the disk, of a text
MOST_HELD = 512 * 2**20  # bytes in memory, of a chunk


@dataclass(frozen=True)
class SweepSettings:
    """What is asked for: caches, rotated sides (off, k, v, kv), tokens of a chunk, chunks of a text, calibrations, and
    what becomes of the logits of f16 (auto, stored, streamed).
    """

    pairs: tuple[CachePair, ...]
    rotations: tuple[str, ...]
    ctx: int
    chunks: int
    calibrations: tuple[Calibration, ...] = (UNCALIBRATED,)
    logits: str = CHOSEN

    @property
    def scored(self) -> int:
        """Tokens of a text that count."""
        return scored(self.ctx) * self.chunks


@dataclass(frozen=True)
class Corpus:
    """A text by its name, its absolute path, and the sha256 of its bytes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class EvalJob:
    """One run of llama-perplexity: a configuration on a text. `repeat` counts the runs of f16 against itself (1, 2).

    `ubatch` is how many tokens are computed at once, of a run that is compared with another of the same cache; 0 stands
    for a whole chunk.
    """

    corpus: Corpus
    configuration: Configuration
    repeat: int = 0
    ubatch: int = 0

    def __str__(self) -> str:
        again = f" (run {self.repeat})" if self.repeat else ""
        at_once = f" at ubatch {self.ubatch}" if self.ubatch else ""
        return f"{self.configuration}{again}{at_once} on {self.corpus.name}"


@dataclass(frozen=True)
class Sweep:
    """Everything that is measured. `binaries` and `model_sha256` are hashes of content.

    `left_out` are the configurations that were asked for but are the same as one that is measured. `calibrates` says
    whether the programs know of calibrations, `controls` whether the noise floor and q4_0 are measured, too. Each
    configuration is measured at each of `ubatches`, see `EvalJob`. `streamed`: f16 is computed beside each of them, and
    no logits are stored.
    """

    runner: Runner
    model: Model
    binaries: str
    model_sha256: str
    corpora: tuple[Corpus, ...]
    configurations: tuple[Configuration, ...]
    ctx: int
    chunks: int
    left_out: tuple[Configuration, ...] = ()
    calibrates: bool = True
    controls: bool = True
    ubatches: tuple[int, ...] = (0,)
    streamed: bool = False

    def origin(self, job: EvalJob) -> Origin:
        calibration = job.configuration.calibration.sha256
        return Origin(self.binaries, self.model_sha256, job.corpus.sha256, self.ctx, self.chunks, calibration)

    def key(self, job: EvalJob) -> str:
        return self.origin(job).key(job.configuration, job.repeat, job.ubatch, BATCH if self.streamed else 0)

    def text(self, corpus: Corpus, ubatch: int = 0) -> Text:
        return Text(corpus.path, self.ctx, self.chunks, ubatch)

    def noise(self, corpus: Corpus) -> tuple[EvalJob, EvalJob]:
        """f16 against the base logits of f16, twice."""
        first, second = NOISE
        return EvalJob(corpus, first, 1), EvalJob(corpus, second, 2)

    def jobs(self, corpus: Corpus) -> tuple[EvalJob, ...]:
        """Controls first: if f16 does not match itself, nothing after it means anything."""
        cells = [self.job(corpus, one, ubatch) for one in self.configurations for ubatch in self.ubatches]
        controls = (*self.noise(corpus), self.job(corpus, CONTROL)) if self.controls else ()
        return tuple(dict.fromkeys((*controls, *cells)))

    def job(self, corpus: Corpus, configuration: Configuration, ubatch: int = 0) -> EvalJob:
        """The run that measures a configuration; an f16 cache is measured by the first run of the noise floor."""
        return EvalJob(corpus, configuration, 1 if configuration.pair == F16 else 0, ubatch)


def make_sweep(runner: Runner, model: Model, texts: Sequence[Path], settings: SweepSettings, store: Store) -> Sweep:
    """The plan.

    Raises UnknownCacheType for a type that the programs do not list, ModelError without attention, and
    ConfigurationMismatch where caches are to be calibrated by programs that know nothing of it.
    """
    if not model.head_dim_k:
        raise ModelError(f"{model.path} has no attention: there is no KV cache to evaluate", hint=OTHER_MODEL)
    said = runner.good(PROGRAMS[0], ["--help"], timeout=60).output
    require_types(said, [*settings.pairs, CONTROL.pair], runner)
    calibrates = OPTION in said
    if not calibrates:
        refuse_programs(PROGRAMS[0], runner.binaries.bin_dir, settings.pairs, settings.calibrations)
    calibrations = [hashed(one, model, store) for one in settings.calibrations]
    kept, left_out = configurations(settings.pairs, settings.rotations, model, calibrations)
    corpora = make_corpora(texts, store)
    return Sweep(
        runner,
        model,
        binaries_hash(store, runner.binaries),
        store.sha256(model.path),
        corpora,
        kept,
        settings.ctx,
        settings.chunks,
        left_out,
        calibrates,
        streamed=is_streamed(runner, model, corpora, settings),
    )


def is_streamed(runner: Runner, model: Model, corpora: Sequence[Corpus], settings: SweepSettings) -> bool:
    """Whether logits are not stored. Raises ToolMissing if that was asked for of programs that cannot do it.

    Chosen are those that would take more than MOST_STORED on the disk or MOST_HELD in memory.
    """
    if settings.logits == STREAMED:
        runner.binaries.require(STREAMING)
    if settings.logits != CHOSEN:
        return settings.logits == STREAMED
    stored = max(base_bytes(model.n_vocab, settings.ctx, most_chunks(one, settings)) for one in corpora)
    large = stored > MOST_STORED or logits_in_memory(model.n_vocab, scored(settings.ctx)) > MOST_HELD
    return large and runner.binaries.path(STREAMING).is_file()


def most_chunks(corpus: Corpus, of: SweepSettings | Sweep) -> int:
    """The most chunks that a text can have: a token takes a byte or more, but for one BOS."""
    return min(of.chunks, (corpus.path.stat().st_size + 1) // of.ctx)


def hashed(calibration: Calibration, model: Model, store: Store) -> Calibration:
    """The calibration with the sha256 of its file: with auto of the one beside the model, if there is one."""
    there = beside(model.path)
    path = there if calibration.is_auto and there.is_file() else calibration.path
    return replace(calibration, path=path, sha256=store.sha256(path)) if path else calibration


def make_corpora(texts: Sequence[Path], store: Store) -> tuple[Corpus, ...]:
    """Each text once, by its content; equal file names get a number."""
    by_content = {store.sha256(path): path for path in reversed(texts)}
    found: list[Corpus] = []
    for sha256, path in reversed(by_content.items()):
        same = sum(corpus.path.name == path.name for corpus in found)
        found.append(Corpus(f"{path.name} ({same + 1})" if same else path.name, path, sha256))
    return tuple(found)


def configurations(
    pairs: Iterable[CachePair],
    rotations: Sequence[str],
    model: Model,
    calibrations: Sequence[Calibration] = (UNCALIBRATED,),
) -> tuple[tuple[Configuration, ...], tuple[Configuration, ...]]:
    """Every pair with every calibration and rotation, and those left out because the rotation does nothing to them.

    A rotation of a side that cannot be rotated (float type, head size) is the same as none there, and so is the
    calibration of a K that is not quantized.
    """
    wanted = [
        Configuration(pair, rotation, calibration)
        for pair in dict.fromkeys(pairs)
        for calibration in calibrations_of(pair, calibrations)
        for rotation in rotations
    ]
    effective = {configuration: in_force(configuration, model) for configuration in wanted}
    kept = tuple(dict.fromkeys(effective.values()))
    return kept, tuple(one for one in wanted if one not in kept)


def in_force(configuration: Configuration, model: Model) -> Configuration:
    """The configuration with only those sides rotated that can be."""
    pair, knobs = configuration.pair, configuration.knobs
    sides = "k" if gate_is_on(knobs.k, knobs, pair.k, model.head_dim_k) else ""
    sides += "v" if gate_is_on(knobs.v, knobs, pair.v, model.head_dim_v) else ""
    return replace(configuration, rotation=sides or "off")


def require_types(said: str, pairs: Iterable[CachePair], runner: Runner) -> None:
    """Raise UnknownCacheType unless the help of llama-perplexity lists the types."""
    known = set(re.findall(r"\w+", said))
    lacking = sorted({name for pair in pairs for name in (pair.k, pair.v)} - known)
    if lacking:
        raise UnknownCacheType(
            f"the llama-perplexity in {runner.binaries.bin_dir} does not list {' and '.join(lacking)}",
            hint="leave it out of --kv, or run `turbotool build` and leave out --bin-dir",
        )


def require_tokens(path: Path, ctx: int) -> None:
    """Raise CorpusError if the text cannot have the tokens of one chunk: each takes a byte or more, but for one BOS."""
    bytes_there = path.stat().st_size
    if bytes_there + 1 < 2 * ctx:
        raise CorpusError(
            f"{path} has at most {bytes_there + 1} tokens; a chunk of {ctx} needs a text of at least {2 * ctx}",
            hint="name a longer text with --corpus FILE, or a smaller --ctx",
        )
