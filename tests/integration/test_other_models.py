"""Turbo caches in models that the default one is not: sliding windows, rerankers, encoders with and without a cache.

What the default model can show of a server is checked by `turbotool verify`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import pytest
from kindred_models import ranking, windowed
from tiny_encoders import MEAN, RANK, write_bert, write_t5

from turbotool.inputs.corpus import default_corpus
from turbotool.inputs.default_model import default_model
from turbotool.inputs.model import Model, read_model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, can_gain
from turbotool.kv.rotation import OFF
from turbotool.layout import find_layout
from turbotool.programs import server
from turbotool.programs.binaries import Binaries
from turbotool.programs.runner import Runner
from turbotool.programs.server import Prediction, Server, Setup, serve
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.verify.checks.likeness import MOST_DRAWS, MOST_F16, Twice, mean_kld

pytestmark = pytest.mark.slow

TURBO4 = CachePair("turbo4", "turbo4")
WINDOW = 64
PROMPT, CONTINUED = 300, 16  # tokens
NEAR_THE_END = 8  # tokens: upstream keeps a checkpoint of a window some tokens before the end of a prompt


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(find_layout(), Output(quiet=True))


@pytest.fixture(scope="module")
def model(session: Session) -> Model:
    return read_model(default_model(session), is_default=True)


@pytest.fixture
def runner(built: dict[str, Any], tmp_path: Path) -> Runner:
    return Runner(Binaries(Path(built["bin_dir"])), tmp_path, 2, tmp_path / "log")


@pytest.fixture(scope="module")
def text(session: Session, tmp_path_factory: pytest.TempPathFactory) -> str:
    return default_corpus(session.layout.tree, tmp_path_factory.mktemp("corpus")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sliding(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(windowed(model.path, tmp_path_factory.mktemp("sliding") / "sliding.gguf", WINDOW))


@pytest.fixture(scope="module")
def reranker(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(ranking(model.path, tmp_path_factory.mktemp("reranker") / "reranker.gguf"))


def said(one: Server) -> str:
    return one.log.read_text(encoding="utf-8", errors="replace")


def test_a_model_with_windows_is_the_default_model_while_a_text_is_shorter(
    runner: Runner, model: Model, sliding: Model, text: str
) -> None:
    """But for rounding, and not where the text is longer: what is seen of it below is of windows."""
    short: list[list[Prediction]] = []
    long: list[list[Prediction]] = []
    for one in (model, sliding):
        with serve(runner, one, F16, name="short") as running:
            places = [text[at : at + 2000] for at in range(0, 8000, 2000)]
            for tokens, found in ((WINDOW - CONTINUED, short), (PROMPT, long)):
                prompts = [running.first(place, tokens) for place in places]
                found.append([running.next_token(prompt, slot=0, top=200) for prompt in prompts])
    assert Twice(*short).apart <= MOST_F16 < Twice(*long).apart


@pytest.mark.parametrize("pair", [F16, TURBO4], ids=str)
def test_a_prompt_with_windows_is_not_computed_again_after_a_restart(
    runner: Runner, sliding: Model, text: str, pair: CachePair
) -> None:
    with serve(runner, sliding, pair, name="killed", setup=Setup(1, 2048)) as running:
        prompt = running.first(text, PROMPT)
        running.complete(prompt, slot=0, n=0)
        saved = running.slot(0, "save", "windows.bin")["n_saved"]
        before = running.complete(prompt, slot=0, n=CONTINUED)
        running.kill()
    with serve(runner, sliding, pair, name="restarted", setup=Setup(1, 2048)) as running:
        assert running.slot(0, "restore", "windows.bin")["n_restored"] == saved == PROMPT
        after = running.complete(prompt, slot=0, n=CONTINUED)
    assert after.cached >= PROMPT - NEAR_THE_END
    assert after.text == before.text


def test_where_windows_are_computed_again_the_log_warns_of_it(runner: Runner, sliding: Model, text: str) -> None:
    """Restored, and asked for a prompt that ends before the only window that the file has."""
    with serve(runner, sliding, TURBO4, name="windows", setup=Setup(1, 2048)) as running:
        long, short = (running.first(text, n) for n in (PROMPT, PROMPT - 2 * NEAR_THE_END))
        running.complete(long, slot=0, n=0)
        running.slot(0, "save", "windows.bin")
        running.slot(0, "erase")
        running.slot(0, "restore", "windows.bin")
        assert "forcing full prompt re-processing" not in said(running)
        assert running.complete(short, slot=0, n=1).cached == 0
        warned = [line for line in said(running).splitlines() if "forcing full prompt re-processing" in line]
        assert [" W slot " in line for line in warned] == [True]


QUERY = "What is the capital of France?"
DOCUMENTS = [
    "Paris is the capital of France.",
    "Bread is made of flour, water and salt.",
    "The capital of Germany is Berlin.",
    "France is a country in Europe whose capital is Paris, on the Seine.",
    "A cat sat on the mat.",
    "Rust is a language.",
]


def scores(running: Server) -> list[float]:
    results = running.call("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS})["results"]
    return [one["relevance_score"] for one in sorted(results, key=lambda one: one["index"])]


def test_a_reranker_with_a_cache_scores_as_with_f16(runner: Runner, reranker: Model) -> None:
    """Within half of what tells its documents apart, on the average."""
    found = {}
    for name in ("f16", "q8_0", "turbo4"):
        pair = CachePair(name, name)
        setup = Setup(calibration=AUTO if can_gain(pair) else UNCALIBRATED, words=("--reranking",))
        with serve(runner, reranker, pair, name=name, setup=setup) as running:
            found[name] = scores(running)
    spread = pstdev(found["f16"])
    off = {name: mean(abs(a - b) for a, b in zip(found["f16"], found[name], strict=True)) for name in found}
    assert spread > 0.03
    assert 0 < off["q8_0"] <= spread / 2
    assert 0 < off["turbo4"] <= spread / 2


@pytest.mark.parametrize("pooling", [MEAN, RANK], ids=["embeddings", "reranking"])
def test_an_encoder_keeps_no_cache_and_takes_any_type_of_it(
    runner: Runner, model: Model, tmp_path: Path, pooling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what it computes with f16; there is nothing to calibrate, and no line of a cache to compare."""
    monkeypatch.setattr(server, "require_effective", lambda *_: None)
    encoder = replace(model, path=write_bert(tmp_path / "encoder.gguf", pooling))
    found = []
    for pair, calibration in ((F16, UNCALIBRATED), (TURBO4, AUTO)):
        words = ("--embeddings",) if pooling == MEAN else ("--reranking",)
        with serve(
            runner, encoder, pair, name="encoder", setup=Setup(1, 256, calibration=calibration, words=words)
        ) as one:
            found.append(one.embed("7 11 13") if pooling == MEAN else scores(one))
            assert "KV buffer size" not in said(one)
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


@pytest.mark.parametrize("v", ["q8_0", "turbo4"])
def test_a_quantized_v_is_decoded_where_attention_has_a_bias(runner: Runner, tmp_path: Path, v: str) -> None:
    """T5 does without flash attention although it is on, and its text is what it is with f16."""
    shape = ("-c", "256", "-n", "24", "-fa", "on", "-no-cnv", "--no-warmup", "--no-display-prompt")
    words = ("-p", "7 11 13", "--temp", "0", "--ignore-eos", "--no-perf", "-lv", "1")
    path = write_t5(tmp_path / "t5.gguf")
    plain, found = (
        runner.good("llama-completion", ["-m", path, *shape, *words, "-ctv", type_v]).output for type_v in ("f16", v)
    )
    assert plain.strip()
    assert found == plain


def test_a_quantized_v_without_flash_attention_is_refused_with_the_reason(runner: Runner, model: Model) -> None:
    words: list[str | Path] = [
        "-m",
        model.path,
        "-c",
        "256",
        "-n",
        "1",
        "-no-cnv",
        "-p",
        "x",
        "-fa",
        "off",
        *TURBO4.flags,
    ]
    done = runner.plain("llama-completion", words)
    assert done.returncode > 0
    assert "quantized V cache requires flash_attn to be enabled" in done.output


def test_flash_attention_turns_itself_on_where_v_is_quantized(runner: Runner, model: Model) -> None:
    words = ["-c", "256", "-n", "1", "-no-cnv", "-p", "x"]
    run = runner.cached("llama-completion", model, TURBO4, words, knobs=OFF, flash="auto")
    assert run.effective.flash_attn == "enabled"


def test_a_turbo_k_predicts_the_same_without_flash_attention(runner: Runner, model: Model, text: str) -> None:
    pair = CachePair("turbo4", "f16")
    found = {}
    for flash, one in (("on", F16), ("on", pair), ("off", pair)):
        with serve(runner, model, one, name="flash", setup=Setup(words=("-fa", flash))) as running:
            prompts = [running.first(text[at : at + 2000], 200) for at in range(0, 12000, 2000)]
            found[flash, one] = [running.next_token(prompt, slot=0, top=200) for prompt in prompts]
    loss = mean_kld(found["on", F16], found["on", pair])
    assert 0 < Twice(found["on", pair], found["off", pair]).apart < MOST_DRAWS * loss


def test_a_calibration_of_another_model_is_not_taken_for_a_draft(runner: Runner, model: Model, reranker: Model) -> None:
    """The file that is named is of the model; a draft that it does not fit measures its own."""
    named = replace(AUTO, name="default.kvcal.gguf", path=model.path.with_suffix(".kvcal.gguf"))
    setup = Setup(calibration=named, draft=reranker.path, draft_pair=TURBO4)
    with serve(runner, model, TURBO4, name="draft", setup=setup) as running:
        assert running.complete("Once upon a time", slot=0, n=16).drafted > 0
    lines = [line for line in said(running).splitlines() if "kv_calibration: on" in line]
    assert [str(named.path) in line for line in lines] == [True, False]
