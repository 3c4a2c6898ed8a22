"""llama-kv-divergence on a real model: the figures of llama-perplexity, without its file."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import document

from turbotool.errors import BinaryFailed
from turbotool.inputs.default_model import default_model
from turbotool.inputs.model import Model, read_model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO
from turbotool.layout import find_layout
from turbotool.programs.choose import named_binaries
from turbotool.programs.divergence import Divergence, Estimate
from turbotool.programs.kvdivergence import compare_streamed
from turbotool.programs.perplexity import Text, compare, scored, write_base
from turbotool.programs.runner import Runner
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.slow

SECONDS = 3600  # of a command; the machine may be busy
CTX, CHUNKS = 512, 4
CACHES = (CachePair("q8_0", "q8_0"), CachePair("q8_0", "turbo4"), CachePair("turbo4", "turbo4"))
# The file has 16 bits of a probability, and what is compared with it leaves out words below e^-16: of 49,152 words
# those together are up to half a percent of all, and what the caches differ by in them is missing.
LEFT_OUT = {"mean": 0.005, "rms_dp": 0.005}
NEAR = {"ppl": 2e-3, "mean_dp": 1e-3}  # of a perplexity of 20, and of a figure that is printed with three decimals


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    bin_dir = Path(document("build", timeout=SECONDS)["bin_dir"])
    work = tmp_path_factory.mktemp("work")
    return Runner(named_binaries(bin_dir), work, 2, work / "log")


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model(default_model(Session(find_layout(), Output(quiet=True))))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(
        "\n\n".join(one.read_text(encoding="utf-8") for one in sorted(find_layout().tree.glob("docs/*.md")))
    )
    return Text(path, CTX, CHUNKS)


def near(one: Estimate, other: Estimate, far: float) -> None:
    assert one.value == pytest.approx(other.value, abs=far)
    assert one.error == pytest.approx(other.error, abs=far)


def alike(found: Divergence, stored: Divergence, base: Estimate) -> None:
    """To the precision of what was stored and printed; `base` is the perplexity of f16 before it was stored."""
    near(found.ppl_base, base, 1e-4)
    # a word that came although it was 16 nats below the likeliest one is stored as that
    clipped = abs(math.log(stored.ppl_base.value / base.value))
    assert found.ln_ratio.value == pytest.approx(stored.ln_ratio.value, abs=5e-5 + clipped)
    for name, far in NEAR.items():
        near(getattr(found, name), getattr(stored, name), far)
    for name, share in LEFT_OUT.items():
        near(getattr(found, name), getattr(stored, name), share * getattr(stored, name).value)
    # two words of one 16-bit step have no order in the file
    near(found.same_top, stored.same_top, 100 * 2 / (CHUNKS * scored(CTX)))
    assert found.maximum == pytest.approx(stored.maximum, rel=0.01)
    assert found.median == pytest.approx(stored.median, rel=0.02)
    assert found.dp.at(99.0) == pytest.approx(stored.dp.at(99.0), abs=0.01)
    assert len(found.running) == len(stored.running)
    for row, other in zip(found.running, stored.running, strict=True):
        near(row.kld, other.kld, LEFT_OUT["mean"] * other.kld.value + 1e-5)
        near(row.ppl, other.ppl, NEAR["ppl"])


def test_figures_are_those_of_llama_perplexity(runner: Runner, model: Model, text: Text) -> None:
    base = write_base(runner, model, text, F16, runner.work / "f16").ppl
    for pair in CACHES:
        stored, _ = compare(runner, model, text, pair, runner.work / "f16", calibration=AUTO)
        found, run = compare_streamed(runner, model, text, pair, calibration=AUTO)
        alike(found, stored, base)
        # what the log says last is about the cache, not about f16 beside it
        assert [(one.k, one.v) for one in run.effective.caches] == [(pair.k, pair.v)]
        assert run.effective.in_force


def test_f16_beside_itself_is_nothing(runner: Runner, model: Model, text: Text) -> None:
    found, _ = compare_streamed(runner, model, replace(text, chunks=1), F16)
    assert (found.mean.value, found.maximum, found.same_top.value, found.rms_dp.value) == (0, 0, 100, 0)
    assert found.ppl == found.ppl_base


def test_positions_are_whole_chunks_of_which_the_second_half_counts(runner: Runner, model: Model, text: Text) -> None:
    """At a context of more than one batch, with the memory of one of them."""
    longer = replace(text, ctx=1536, chunks=2)
    found, run = compare_streamed(runner, model, longer, CachePair("q8_0", "q8_0"), calibration=AUTO)
    told = found.positions
    assert (told[0].begin, told[-1].end) == (0, 1535)
    assert all(one.end == other.begin for one, other in pairwise(told))
    assert all(one.tokens == 2 * (one.end - one.begin) for one in told)
    counted = [one for one in told if one.begin >= 768]
    assert sum(one.tokens for one in counted) == 2 * scored(1536)
    mean = sum(one.tokens * one.kld.value for one in counted) / sum(one.tokens for one in counted)
    assert found.mean.value == pytest.approx(mean, rel=1e-9)
    # stored, 768 tokens of 49,152 words take 144 MiB in floats, twice; that and more is the whole process here
    assert run.done.peak is not None
    assert not list(runner.work.glob("*.logits"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-c", "8192", "--chunks", "1"], "you need at least 16384 tokens"),
        (["-c", "2"], "a chunk needs a context of 3 tokens or more"),
        (["-c", "64", "--chunks", "0"], "there are no chunks to measure"),
        (["-c", "64", "--ppl-stride", "32"], "that is for llama-perplexity"),
    ],
)
def test_what_it_cannot_do_is_refused_at_once(runner: Runner, model: Model, words: list[str], told: str) -> None:
    short = runner.work / "short.txt"
    short.write_text("a few words " * 100)
    with pytest.raises(BinaryFailed, match="llama-kv-divergence ended with exit status 1"):
        runner.cached("llama-kv-divergence", model, F16, ["-f", short, *words])
    assert runner.log
    assert told in runner.log.read_text(encoding="utf-8").rpartition("llama-kv-divergence -m")[2]
