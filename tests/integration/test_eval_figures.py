"""`turbotool eval` on real binaries, and its figures computed a second time from the probabilities of single tokens."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import document

from turbotool.evaluation.cell import Measured
from turbotool.evaluation.judge.stats import kld, ln_ratio, same_top
from turbotool.inputs.default_model import default_model
from turbotool.inputs.model import read_model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.layout import find_layout
from turbotool.programs.choose import named_binaries
from turbotool.programs.divergence import Divergence, parse_divergence, parse_running
from turbotool.programs.perplexity import Text, compare, save_logits, scored
from turbotool.programs.runner import Runner
from turbotool.system.output import Output
from turbotool.system.session import Session

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.slow

CTX, CHUNKS = 512, 2
PAIR = CachePair("q8_0", "turbo4")
# log probabilities are kept in steps of 16 / 65535 nats, which averages out over the tokens of a chunk
STEP = 2e-5
TRIES = 5
SECONDS = 3600  # of a command; the machine may be busy


@dataclass(frozen=True)
class Logits:
    """What `--save-all-logits` wrote: log probabilities (scored tokens, vocabulary), the tokens that came."""

    log_p: Any
    came: Any
    floor: Any  # of each token: smaller log probabilities were kept as this


def read_logits(path: Path) -> Logits:
    """Layout: upstream's `tools/perplexity/perplexity.cpp`."""
    raw = path.read_bytes()
    ctx, vocabulary, chunks = np.frombuffer(raw, np.int32, 3, 8)
    tokens = np.frombuffer(raw, np.int32, ctx * chunks, 20).reshape(chunks, ctx)
    width = 2 * ((vocabulary + 1) // 2) + 4
    rows = np.frombuffer(raw, np.uint16, offset=20 + 4 * ctx * chunks).reshape(-1, width)
    scale, low = np.ascontiguousarray(rows[:, :4]).view(np.float32).astype(float).T
    log_p = rows[:, 4 : 4 + vocabulary] * scale[:, None] + low[:, None]
    return Logits(log_p, tokens[:, ctx // 2 + 1 :].reshape(-1), low)


def chunks_of(values: Any) -> list[float]:
    return [float(chunk.mean()) for chunk in values.reshape(-1, scored(CTX))]


def cut_anywhere(log: str, whole: Divergence) -> None:
    """What was printed so far is a result when it is all there, and never a number that was not printed to its end."""
    raw = log[log.index("kl_divergence: computing") :].encode()
    table = whole.running
    for cut in range(len(raw)):
        part = raw[:cut].decode("utf-8", errors="replace")
        assert parse_divergence(part) in (None, whole)
        assert (rows := parse_running(part)) == table[: len(rows)]


def check(bin_dir: Path, model_path: Path, corpus: Path, work: Path) -> None:
    """Every chunk's KLD, ln(PPL / f16) and same top, from the program's table and from the tokens themselves."""
    model, text = read_model(model_path), Text(corpus, CTX, CHUNKS)
    runner = Runner(named_binaries(bin_dir), work, 2, work / "log")
    save_logits(runner, model, text, F16, work / "f16")
    save_logits(runner, model, text, PAIR, work / "pair")
    divergence, run = compare(runner, model, text, PAIR, work / "f16")
    cut_anywhere(run.done.output, divergence)
    measured = Measured(divergence, run.effective, run.done.seconds)
    base, other = read_logits(work / "f16"), read_logits(work / "pair")
    klds = (np.exp(base.log_p) * (base.log_p - other.log_p) * (base.log_p > -16)).sum(axis=1)
    found = kld(measured)
    for value, true, bound in zip(found.values, chunks_of(klds), found.bounds, strict=True):
        assert value == pytest.approx(true, abs=bound + STEP)
    assert divergence.maximum == pytest.approx(klds.max(), rel=0.02)
    assert divergence.median == pytest.approx(np.median(klds), rel=0.02)
    at = np.arange(len(base.came)), base.came
    # the program has the other cache's own probabilities, the file not those below the floor
    cut = chunks_of(other.log_p[at] <= other.floor + STEP)
    assert 0 in cut
    ratios = ln_ratio(measured)
    for value, true, bound, lost in zip(
        ratios.values, chunks_of(base.log_p[at] - other.log_p[at]), ratios.bounds, cut, strict=True
    ):
        assert lost or value == pytest.approx(true, abs=bound + STEP)
    tops = chunks_of(100.0 * (base.log_p.argmax(axis=1) == other.log_p.argmax(axis=1)))
    # two tokens that share a step have an order in the program, and none in the file
    assert same_top(measured, CTX).values == pytest.approx(tops, abs=2.1 * 100 / scored(CTX))
    assert divergence.ppl.value == pytest.approx(math.exp(-other.log_p[at].mean()), rel=1e-2 if any(cut) else 1e-4)


def test_statistics_follow_from_the_probabilities_of_single_tokens(tmp_path: Path) -> None:
    layout = find_layout()
    bin_dir = Path(document("build", timeout=SECONDS)["bin_dir"])
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join(path.read_text(encoding="utf-8") for path in sorted(layout.tree.glob("docs/*.md"))))
    check(bin_dir, default_model(Session(layout, Output(quiet=True))), corpus, tmp_path)


def test_an_evaluation_is_measured_once_and_then_read_from_the_store(tmp_path: Path) -> None:
    words = ("eval", "--kv", "q8_0,q8_0/turbo4", "--rotation", "off,v", "--chunks", str(CHUNKS))
    first = document(*words, "--report", tmp_path / "report", timeout=SECONDS)
    assert [cell["failure"] for cell in first["cells"]] == [None] * 4
    assert first["controls"]["noise_floor"][0]["ok"]
    assert first["controls"]["decode_path"][0]["ok"]
    assert first["controls"]["q4_0"][0]["mean_kld"] > max(cell["mean_kld"] for cell in first["cells"])
    assert first["recommendation"]["memory_exact"]
    seconds = []
    for _ in range(TRIES):
        started = time.monotonic()
        assert document(*words, timeout=SECONDS)["cells"] == first["cells"]
        seconds.append(time.monotonic() - started)
    # two seconds on an idle machine; measuring anything again would take a minute
    assert min(seconds) < 6
