"""Cells whose logits are stored nowhere: f16 is computed beside each cache, with fake programs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, typed
from eval_site import EvalSite
from fake_eval import eval_programs, eval_runs
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st
from known_results import MEASURED

from turbotool.errors import BinaryFailed, CorpusError, NoSpace, ToolMissing
from turbotool.evaluation.cell import Configuration, Measured, Origin
from turbotool.evaluation.judge import stats
from turbotool.evaluation.judge.finding import NATS, UNRESOLVED, WORSE, Finding
from turbotool.evaluation.measurement import measurement, restored
from turbotool.evaluation.planfile import CHOSEN, STORED, STREAMED
from turbotool.evaluation.sweep import Corpus, SweepSettings, is_streamed
from turbotool.inputs.model import Model, read_model
from turbotool.kv.cachetype import CachePair
from turbotool.programs.binaries import Binaries
from turbotool.programs.divergence import Estimate, Position
from turbotool.programs.kvdivergence import parse_streamed
from turbotool.programs.runner import Runner

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")
CELLS = ("--kv", "q8_0,turbo4", "--rotation", "off")
STREAM = (*CELLS, "--chunks", "4", "--logits", "streamed")
ALONE = (*CELLS, "--ctx", "1024", "--chunks", "1", "--logits", "streamed")


@pytest.fixture
def streams(site: EvalSite) -> EvalSite:
    """A site whose programs can do without stored logits."""
    eval_programs(site.folder / "bin", streams=True)
    return site


def figures(done: Done) -> list[list[float]]:
    names = ("mean_kld", "ppl", "ln_ppl_ratio", "chunks", "median_kld")
    return [[cell[name] for name in names] for cell in done.document["cells"]]


def test_figures_are_those_of_stored_logits_and_nothing_is_stored(streams: EvalSite) -> None:
    done = streams.eval(*STREAM, "--json")
    assert (done.code, streams.measured("base"), streams.measured("cell")) == (0, [], [])
    assert not list(streams.work.glob("*.logits"))
    cells = ["f16/f16/off"] * 2 + ["q4_0/q4_0/off", "q8_0/q8_0/off", "turbo4/turbo4/off"]
    assert streams.measured("beside") == [*cells, "q8_0/q8_0/off", "q8_0/q8_0/off"]
    assert done.document["settings"]["logits"] == "streamed"
    assert done.document["controls"]["noise_floor"][0]["ok"]
    assert {cell["logits_mib"] for cell in done.document["cells"]} == {0}
    stored = streams.eval(*STREAM[:-1], "stored", "--json")
    assert stored.document["settings"]["logits"] == "stored"
    for one, other in zip(figures(done), figures(stored), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert stored.document["cells"][0]["positions"] == []


def test_f16_is_computed_in_batches_and_the_control_token_by_token(streams: EvalSite) -> None:
    done = streams.eval(*STREAM, "--json")
    runs = [one["words"] for one in eval_runs(streams.folder) if one["what"] == "beside"]
    at_once = [(words[words.index("-b") + 1], words[words.index("-ub") + 1]) for words in runs]
    assert at_once == [("512", "512")] * 6 + [("512", "1")]
    (found,) = done.document["controls"]["decode_path"]
    assert (found["ok"], found["verdict"], found["ubatch"]) == (True, "identical", [512, 1])


def test_what_was_streamed_is_kept_apart_from_what_was_stored(streams: EvalSite) -> None:
    streams.eval(*STREAM)
    streams.eval(*STREAM[:-1], "stored")
    before = len(eval_runs(streams.folder))
    done = streams.eval(*STREAM, "--json")
    again = [one["what"] for one in eval_runs(streams.folder)[before:]]
    assert again == []
    assert "in the store" in done.stderr
    assert len(done.document["cells"][0]["positions"]) == 9


def test_results_of_both_methods_may_be_compared_and_are_told_apart(streams: EvalSite) -> None:
    streams.eval(*STREAM, "--report", streams.folder / "a")
    streams.eval(*STREAM[:-1], "stored", "--report", streams.folder / "b")
    done = typed(["eval", "compare", *(str(streams.folder / name) for name in "ab")], streams.capsys)
    assert done.code == 0
    assert "logits of f16: streamed in A, stored in B" in done.stdout


def test_the_method_is_a_part_of_what_is_measured() -> None:
    origin, cell = Origin("b", "m", "c", 512, 1), Configuration(CachePair("q8_0", "q8_0"))
    assert len({origin.key(cell), origin.key(cell, batch=512), origin.key(cell, batch=256)}) == 3
    # as it was before there was a choice: what older versions measured is found
    assert origin.key(cell, batch=0) == origin.key(cell)


def test_a_report_tells_of_positions_memory_and_disk(streams: EvalSite) -> None:
    folder = streams.folder / "report"
    done = streams.eval(*STREAM, "--report", folder)
    markdown = (folder / "eval.md").read_text(encoding="utf-8")
    page = Page((folder / "eval.html").read_text(encoding="utf-8"))
    (row,) = [row for row in page.rows if row[:3] == ["turbo4", "off", "0 to 255"]]
    assert row[3:] == ["1024", "0.010250 ± 0.000100", "98.97 ± 0.50"]
    assert f"| {' | '.join(row)} |" in markdown
    assert sum(row[:2] == ["turbo4", "off"] and " to " in row[2] for row in page.rows) == 9
    assert (folder / "eval.html").read_text(encoding="utf-8").count("<svg ") == 5
    assert "MiB resident, and no logits were stored" in done.stdout
    document = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    assert all(cell["peak_mib"] > 1 for cell in document["cells"])
    assert "--logits streamed" in document["command"]


def test_stored_logits_are_told_with_their_size_and_without_positions(streams: EvalSite) -> None:
    folder = streams.folder / "report"
    done = streams.eval(*STREAM[:-1], "stored", "--report", folder, "--json")
    # header, tokens, and of 255 tokens 4 words of 16 bits with 4 values before them
    assert done.document["cells"][0]["logits_mib"] == round((20 + 4 * (4 * 512 + 255 * 16)) / 2**20, 1)
    assert "KLD by position" not in (folder / "eval.md").read_text(encoding="utf-8")
    assert (folder / "eval.html").read_text(encoding="utf-8").count("<svg ") == 4


def test_one_chunk_is_told_by_its_blocks_and_settles_nothing(streams: EvalSite) -> None:
    done = streams.eval(*ALONE, "--json")
    told = {(one["k"], one["quantity"]): one for one in done.document["verdicts"]["comparisons"]}
    kld = told["turbo4", "mean_kld"]
    assert (kld["chunks"], kld["blocks"], kld["chunks_more"]) == (1, 8, None)
    assert (kld["verdict"], kld["finding"][-14:]) == ("worse", " in this chunk")
    assert kld["low"] < 0.0202 < kld["high"]
    assert done.document["recommendation"]["settled"] is False
    assert "are about this chunk alone" in streams.eval(*ALONE).stdout


def test_several_chunks_are_told_by_chunk(streams: EvalSite) -> None:
    done = streams.eval(*STREAM, "--json")
    assert {one["blocks"] for one in done.document["verdicts"]["comparisons"]} == {None}
    assert {one["chunks"] for one in done.document["verdicts"]["comparisons"]} == {4}


@pytest.mark.parametrize("trouble", ["silent", "garbled", "cut", "fewer"])
def test_what_is_no_result_is_the_failure_of_its_cell(site: EvalSite, trouble: str) -> None:
    eval_programs(site.folder / "bin", streams=True, trouble={"turbo4/turbo4/off": trouble})
    done = site.eval(*STREAM, "--json")
    assert done.code == BinaryFailed.exit_code
    kept, failed = done.document["cells"]
    assert kept["failure"] is None
    assert failed["failure"].startswith("llama-kv-divergence ")
    assert failed["mean_kld"] is None


def test_what_is_not_finite_is_said_so(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", streams=True, trouble={"turbo4/turbo4/off": "nan"})
    done = site.eval(*STREAM, "--json", "--report", site.folder / "report")
    assert done.document["cells"][1]["failure"] == "not finite"


def test_a_text_that_is_too_short_is_told_before_anything_is_measured(streams: EvalSite) -> None:
    """Its bytes would do; the fakes take a word for a token."""
    (streams.folder / "short.txt").write_text("a-long-word " * 900)
    done = streams.eval(*STREAM, "--corpus", streams.folder / "short.txt", "--json")
    assert done.code == CorpusError.exit_code
    assert "short.txt has 900 tokens; a chunk of 512 needs a text of at least 1024" in done.stderr
    assert streams.measured("beside") == []


def test_programs_that_cannot_do_it_are_refused_where_it_was_asked_for(site: EvalSite) -> None:
    done = site.eval(*STREAM, "--json")
    assert done.code == ToolMissing.exit_code
    assert "has no llama-kv-divergence" in done.stderr
    assert eval_runs(site.folder) == []


def test_a_full_disk_names_the_way_without_one(streams: EvalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, amount: int, what: str, hint: str) -> None:
        raise NoSpace(f"{what} needs {amount}", hint=hint)

    monkeypatch.setattr("turbotool.evaluation.measure.base.need_space", full)
    monkeypatch.setattr(Model, "n_vocab", 50_000, raising=False)
    done = streams.eval(*STREAM[:-1], "stored", "--json")
    assert done.code == NoSpace.exit_code
    assert "--logits streamed" in done.document["error"]["hint"]


@pytest.mark.parametrize(
    ("vocabulary", "ctx", "chunks", "streamed"),
    [
        (49_152, 512, 32, False),
        (262_144, 512, 32, False),  # what is measured unless something else is asked for is stored for every model
        (49_152, 4096, 4, False),
        (49_152, 8192, 1, True),  # 768 MiB of logits in memory
        (152_064, 2048, 1, True),
        (152_064, 512, 200, True),  # 14 GiB on the disk
        (0, 8192, 1, False),  # a vocabulary that is not known
    ],
)
def test_logits_that_would_be_too_many_are_streamed(
    streams: EvalSite, vocabulary: int, ctx: int, chunks: int, streamed: bool
) -> None:
    text = streams.folder / "long.txt"
    with text.open("wb") as stream:
        stream.truncate(2**20)
    model = replace(read_model(streams.folder / "model.gguf"), n_vocab=vocabulary)
    runner = Runner(Binaries(streams.folder / "bin"), streams.folder, 1)
    corpora = [Corpus("long.txt", text, "")]
    asked = SweepSettings((), (), ctx, chunks)
    assert asked.logits == CHOSEN
    assert is_streamed(runner, model, corpora, asked) is streamed
    assert is_streamed(runner, model, corpora, replace(asked, logits=STREAMED))
    assert not is_streamed(runner, model, corpora, replace(asked, logits=STORED))
    (streams.folder / "bin" / "llama-kv-divergence").unlink()
    assert not is_streamed(runner, model, corpora, asked)


def in_blocks(values: list[tuple[float, int]], ctx: int) -> Measured:
    """One chunk with these KLDs and tokens of its blocks, and something before them that does not count."""
    blocks, begin = [Position(0, ctx // 2, ctx // 2, *[Estimate(99.0)] * 4)], ctx // 2
    for value, tokens in values:
        blocks.append(Position(begin, begin + tokens, tokens, *[Estimate(value)] * 4))
        begin += tokens
    found = MEASURED.divergence
    return replace(MEASURED, divergence=replace(found, running=found.running[:1], positions=tuple(blocks)))


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 600)), min_size=2, max_size=9))
def test_the_mean_of_blocks_is_that_of_their_tokens(values: list[tuple[float, int]]) -> None:
    found = in_blocks(values, 512)
    assert stats.of_one_chunk(found, 512)
    mean = sum(value * tokens for value, tokens in values) / sum(tokens for _, tokens in values)
    for series in (stats.kld(found, 512), stats.ln_ratio(found, 512), stats.same_top(found, 512, 512)):
        assert len(series.values) == len(values)
        assert sum(series.values) / len(values) == pytest.approx(mean, abs=1e-9)
        assert series.bound == 0
    assert stats.lost_top(found, 512, 512).values == pytest.approx(
        [value - 100 for value in stats.same_top(found, 512, 512).values]
    )


def test_a_chunk_whose_blocks_are_not_known_is_no_blocks() -> None:
    found = MEASURED.divergence
    assert not stats.of_one_chunk(replace(MEASURED, divergence=replace(found, running=found.running[:1])), 512)
    assert not stats.of_one_chunk(in_blocks([(1.0, 255)], 512), 512)


def test_a_finding_about_one_chunk_says_so() -> None:
    assert str(Finding(WORSE, NATS, at_least=0.0123, alone=True)) == "worse by at least 0.012 nats in this chunk"
    assert str(Finding(UNRESOLVED, NATS, alone=True)) == "unresolved in this chunk: too few chunks"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_positions_memory_and_disk_come_back_from_the_store(value: float) -> None:
    found = replace(in_blocks([(value, 100), (0.5, 155)], 512), peak=123, logits=0)
    assert repr(restored(measurement(found))) == repr(found)


def line(name: str, **fields: Any) -> str:
    return json.dumps({name: fields}, separators=(",", ":")) + "\n"


def test_lines_that_are_not_whole_are_no_result() -> None:
    one = {"value": 1, "error": 0}
    shared = dict.fromkeys(("ln_ratio", "kld", "rms_dp", "same_top"), one)
    names = ("ppl", "ppl_base", "ratio", "difference", "mean", "mean_dp", "ln_ratio", "rms_dp", "same_top")
    text = line("running", chunk=1, ppl={"value": "nan", "error": "inf"}, **shared)
    text += line("position", begin=0, end=9, tokens=9, **shared)
    last = line(
        "divergence", chunks=1, correlation=1, kld={"points": [[0, 1]]}, dp={"points": []}, **dict.fromkeys(names, one)
    )
    found = parse_streamed("x I a log\n" + text + last)
    assert (repr(found.running[0].ppl), found.mean) == ("Estimate(value=nan, error=inf)", Estimate(1))
    for cut in range(len(text) + len(last)):
        with pytest.raises(BinaryFailed):
            parse_streamed((text + last)[:cut])
