"""`turbotool eval` from the command line to its document, with fake programs whose figures are known exactly."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Done, apart
from eval_site import CELLS, KV, EvalSite, cells_of
from fake_eval import eval_programs, eval_runs
from processes import is_alive
from tiny_gguf import gguf_of, write

from turbotool.errors import (
    BinaryFailed,
    ConfigurationMismatch,
    CorpusError,
    Interrupted,
    ModelError,
    NoSpace,
    ToolMissing,
    TurbotoolError,
    UnknownCacheType,
)
from turbotool.programs import perplexity

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def test_every_cell_and_every_control_is_measured_once(site: EvalSite) -> None:
    done = site.eval(*KV, "--json")
    assert (done.code, done.document["ok"]) == (0, True)
    assert list(cells_of(done)) == CELLS
    assert Counter(site.measured()) == {
        "f16/f16/off": 2,
        "q4_0/q4_0/off": 1,
        **{"/".join(cell): 1 for cell in CELLS},
    }
    assert site.measured("base") == ["f16/f16/off"]
    cell = cells_of(done)["q8_0", "turbo4", "v"]
    kld = 0.011 * 0.9 * 1.025  # the mean of 1.01 to 1.04
    assert cell["mean_kld"] == pytest.approx(kld, abs=1e-6)
    assert (cell["mean_kld_error"], cell["chunks"], cell["failure"]) == (0.0001, 4, None)
    assert cell["ppl"] == pytest.approx(20 * 2.718281828 ** (2 * kld), abs=1e-4)
    assert cell["bits_per_value"] == 6.375
    assert cell["effective"]["attn_v"] == {"on": True, "size": 64, "type": "turbo4", "reason": "default"}
    controls = done.document["controls"]
    assert controls["noise_floor"][0]["ok"]
    assert controls["noise_floor"][0]["mean_kld"] == [0, 0]
    assert controls["q4_0"][0]["mean_kld"] == pytest.approx(0.06 * 1.025, abs=1e-6)
    assert [(probe["k"], probe["right"]) for probe in controls["completion"]] == [("f16", 3), ("q8_0", 3)]


def test_what_was_measured_is_not_measured_again(site: EvalSite) -> None:
    first = site.eval(*KV, "--json")
    runs = len(eval_runs(site.folder))
    second = site.eval(*KV, "--json")
    assert second.document["cells"] == first.document["cells"]
    assert len(eval_runs(site.folder)) == runs
    assert "all in the store" in second.stderr
    site.eval("--kv", "q8_0,turbo4", *KV[2:], "--quiet")
    assert [one["cell"] for one in eval_runs(site.folder)[runs:] if one["what"] in ("base", "cell")] == [
        "f16/f16/off",  # base logits
        "turbo4/turbo4/off",
        "turbo4/turbo4/v",
    ]


def test_other_content_is_measured_anew(site: EvalSite) -> None:
    words = ("--kv", "q8_0", "--rotation", "off", "--chunks", "4", "--quiet")
    site.eval(*words)
    assert len(site.measured()) == 4
    (site.folder / "text.txt").write_text("other " * 5000)
    site.eval(*words)
    assert len(site.measured()) == 8
    (site.folder / "bin" / "libggml.so").write_text("another build")
    site.eval(*words)
    assert len(site.measured()) == 12
    site.eval(*words[:-3], "--chunks", "5", "--quiet")
    assert len(site.measured()) == 16


def test_base_logits_are_gone_at_the_end(site: EvalSite) -> None:
    site.eval(*KV)
    assert not list(site.work.glob("*.logits"))
    assert not list(site.work.glob("*.part"))


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("interrupt", Interrupted.exit_code), ("terminate", Interrupted.exit_code), ("kill", -signal.SIGKILL)],
)
def test_a_run_that_was_ended_goes_on_where_it_stopped(site: EvalSite, trouble: str, code: int) -> None:
    """Ctrl-C, SIGTERM or SIGKILL at one cell: those before it are kept, and so are the base logits."""
    eval_programs(site.folder / "bin", trouble={"q8_0/turbo4/off": trouble})
    assert apart(*site.words(*KV), timeout=60).code == code
    pids = [int(one["pid"]) for one in eval_runs(site.folder)]
    assert trouble == "kill" or not any(map(is_alive, pids))
    stray = site.work / "0000000000000000.logits"
    stray.write_text("of another sweep")
    before = site.measured()
    assert before[-1] == "q8_0/turbo4/off"
    eval_programs(site.folder / "bin")
    assert site.eval(*KV, "--quiet").code == 0
    assert site.measured()[len(before) :] == ["q8_0/turbo4/off", "q8_0/turbo4/v"]
    assert site.measured("base") == ["f16/f16/off"]
    assert not stray.exists()


def test_a_crash_and_a_silent_cell_are_results_and_the_sweep_goes_on(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/q8_0/off": "SIGSEGV", "q8_0/turbo4/off": "silent"})
    done = site.eval(*KV, "--json")
    assert (done.code, done.document["ok"]) == (BinaryFailed.exit_code, False)
    assert cells_of(done)["q8_0", "q8_0", "off"]["failure"] == "llama-perplexity ended with signal SIGSEGV"
    assert cells_of(done)["q8_0", "q8_0", "off"]["mean_kld"] is None
    assert "did not print" in cells_of(done)["q8_0", "turbo4", "off"]["failure"]
    assert cells_of(done)["q8_0", "turbo4", "v"]["mean_kld"] > 0
    assert "2 of 9 runs could not be measured" in done.stderr
    eval_programs(site.folder / "bin")
    again = site.eval(*KV, "--json")
    assert again.code == 0
    assert cells_of(again)["q8_0", "q8_0", "off"]["failure"] is None


def test_a_value_that_is_not_finite_is_a_result(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/turbo4/off": "nan"})
    done = site.eval(*KV, "--json")
    assert done.code == 0
    cell = cells_of(done)["q8_0", "turbo4", "off"]
    assert (cell["failure"], cell["mean_kld"], cell["mean_kld_error"]) == ("not finite", None, 0.0001)
    assert done.document["recommendation"]["k"] == "q8_0"
    before = len(site.measured())
    site.eval(*KV, "--quiet")
    assert len(site.measured()) == before


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("substitute", "K cache type is f16, requested q8_0"), ("blocked", "attn_rot_v is off (default), expected on")],
)
def test_a_cell_that_ran_otherwise_than_asked_is_refused_with_the_difference(
    site: EvalSite, trouble: str, says: str
) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/turbo4/v": trouble})
    done = site.eval(*KV, "--json")
    assert done.code == done.document["error"]["code"] == ConfigurationMismatch.exit_code
    assert says in cells_of(done)["q8_0", "turbo4", "v"]["failure"]
    assert cells_of(done)["q8_0", "turbo4", "v"]["mean_kld"] is None


@pytest.mark.parametrize("removed", [False, True])
def test_programs_that_are_replaced_while_they_are_measured_are_noticed(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    library = site.folder / "bin" / "libggml.so.0.1.2"
    library.write_text("one")
    compare = perplexity.compare

    def replacing(*words: Any) -> Any:
        found = compare(*words)
        if words[3].k == "q8_0" and removed:
            shutil.rmtree(library.parent)
        elif words[3].k == "q8_0":
            library.write_text("another")
        return found

    monkeypatch.setattr("turbotool.evaluation.measure.single.compare", replacing)
    done = site.eval("--kv", "q8_0", "--rotation", "off", "--chunks", "4", "--json")
    assert done.code == ConfigurationMismatch.exit_code
    assert "were replaced while they were measured" in cells_of(done)["q8_0", "q8_0", "off"]["failure"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--kv", "turbo5"], UnknownCacheType.exit_code, "did you mean 'turbo4'?"),
        (["--kv", "iq4_nl"], UnknownCacheType.exit_code, "does not list iq4_nl"),
        (["--rotation", "both"], UnknownCacheType.exit_code, "unknown rotation 'both'"),
        (["--corpus", "nowhere.txt"], CorpusError.exit_code, "cannot read the text nowhere.txt"),
        (["--ctx", "20000"], CorpusError.exit_code, "needs a text of at least 40000"),
        (
            ["--corpus", "short.txt"],
            CorpusError.exit_code,
            "has at most 5 tokens; a chunk of 512 needs a text of at least 1024",
        ),
        (["--ctx", "64", "--chunks", "3"], 2, "use --chunks 4 or more"),
        (["--bin-dir", "nowhere"], ToolMissing.exit_code, "there is no folder"),
        (["--bin-dir", "work"], ToolMissing.exit_code, "has no llama-perplexity"),
        (["--report", "model.gguf"], 2, "cannot write to model.gguf"),
        (["--chunks", "0"], 2, "0 is not in the range"),
        (["--max-kld", "nan"], 2, "nan is no finite number"),
        (["--max-kld", "inf"], 2, "inf is no finite number"),
        (["--min-same-top", "nan"], 2, "nan is no finite number"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_measured(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, complaint: str
) -> None:
    monkeypatch.chdir(site.folder)
    (site.folder / "work").mkdir()
    (site.folder / "short.txt").write_text("word")
    done = site.eval(*words)
    assert (done.code, eval_runs(site.folder)) == (code, [])
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_programs_that_do_not_start_are_refused_before_anything_is_measured(site: EvalSite) -> None:
    (site.folder / "bin" / "llama-perplexity").write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    done = site.eval(*KV)
    assert done.code == BinaryFailed.exit_code
    assert "no such library" in done.stderr


def test_a_missing_model_is_refused_before_anything_is_measured(site: EvalSite) -> None:
    (site.folder / "model.gguf").unlink()
    assert site.eval(*KV).code == ModelError.exit_code
    assert eval_runs(site.folder) == []


def test_a_text_with_too_few_tokens_says_how_many_are_needed(site: EvalSite) -> None:
    (site.folder / "text.txt").write_text("a_long_word_of_one_token " * 1000)
    done = site.eval(*KV)
    assert done.code == CorpusError.exit_code
    assert "has 1000 tokens; a chunk of 512 needs a text of at least 1024" in done.stderr
    assert site.measured() == []


def test_a_second_text_that_is_too_short_is_told_before_the_first_is_measured(site: EvalSite) -> None:
    short = site.folder / "short.txt"
    short.write_text("a_long_word_of_one_token " * 1000)
    done = site.eval(*KV, "--corpus", short)
    assert done.code == CorpusError.exit_code
    assert "has 1000 tokens; a chunk of 512 needs a text of at least 1024" in done.stderr
    assert (site.measured(), site.measured("base")) == ([], [])


def test_a_text_of_fewer_chunks_than_asked_is_measured_to_its_end(site: EvalSite) -> None:
    done = site.eval("--kv", "q8_0", "--rotation", "off", "--chunks", "64", "--json")
    assert done.code == 0
    assert cells_of(done)["q8_0", "q8_0", "off"]["chunks"] == 9


def test_a_disk_that_cannot_hold_the_base_is_refused_before_anything_runs(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    done = site.eval(*KV)
    assert done.code == NoSpace.exit_code
    assert "4 chunks of base logits needs about" in done.stderr
    assert eval_runs(site.folder) == []


@pytest.mark.parametrize(
    ("free", "error", "says"),
    [
        ([1 << 40], BinaryFailed, "wrote incomplete base logits"),
        ([1 << 40, 0], NoSpace, "the rest of the base logits needs about 0 MiB"),
    ],
)
def test_base_logits_that_were_cut_are_not_used(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch, free: list[int], error: type[TurbotoolError], says: str
) -> None:
    """By a disk that another program filled meanwhile, or for another reason."""
    left = iter(free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(left, free[-1])))
    eval_programs(site.folder / "bin", trouble={"base": "short"})
    done = site.eval(*KV)
    assert done.code == error.exit_code
    assert says in done.stderr
    assert site.measured() == []
    assert not list(site.work.glob("*.logits"))


def test_a_damaged_store_is_kept_aside_and_everything_measured_again(site: EvalSite) -> None:
    site.eval(*KV, "--quiet")
    store = site.work / "eval.sqlite"
    store.write_bytes(store.read_bytes()[:3000])
    done = site.eval(*KV)
    assert done.code == 0
    assert "is damaged; it is kept as" in done.stderr
    assert (site.work / "eval.sqlite.damaged-1").stat().st_size == 3000


def test_a_rotation_that_does_nothing_is_left_out_and_said_so(site: EvalSite) -> None:
    done = site.eval("--kv", "f16/turbo4,f16", "--rotation", "off,k,v,kv", "--chunks", "4", "--json")
    assert list(cells_of(done)) == [("f16", "turbo4", "off"), ("f16", "turbo4", "v"), ("f16", "f16", "off")]
    assert "f16/turbo4 rotated k" in done.stderr
    assert len(done.document["left_out"]) == 5
    assert site.measured().count("f16/f16/off") == 2


def test_two_texts_are_measured_each_against_its_own_base(site: EvalSite) -> None:
    (site.folder / "other").mkdir()
    (site.folder / "other" / "text.txt").write_text("other " * 5000)
    shutil.copy(site.folder / "text.txt", site.folder / "same.txt")
    more = ("--corpus", site.folder / "other" / "text.txt", "--corpus", site.folder / "same.txt")
    done = site.eval("--kv", "q8_0", "--rotation", "off", "--chunks", "4", *more, "--json")
    assert [cell["corpus"] for cell in done.document["cells"]] == ["text.txt", "text.txt (2)"]
    assert len(site.measured("base")) == 2


def test_verdicts_and_recommendation_follow_from_the_figures(site: EvalSite) -> None:
    done = site.eval(*KV, "--max-kld", "0.012", "--min-same-top", "90", "--serve-ctx", "1000", "--json")
    found = done.document["verdicts"]["comparisons"]
    against_off = {
        (one["v"], one["quantity"]): one["verdict"]
        for one in found
        if (one["against"], one["rotation"]) == ("off", "v")
    }
    assert against_off["turbo4", "mean_kld"] == "better"
    assert done.document["verdicts"]["perplexity"] == [{"corpus": "text.txt", "reliable": True, "reasons": []}]
    recommended = done.document["recommendation"]
    assert (recommended["k"], recommended["v"], recommended["rotation"]) == ("q8_0", "turbo4", "v")
    assert recommended["environment"] == {"LLAMA_ATTN_ROT_V_OVERRIDE": "1"}
    # 2 layers, 1 head of 64 on each side: 256 bytes a cell and layer in f16, 102 in q8_0/turbo4; cells come in 256s
    # less a mean and a scale of 4 bytes for each value of K
    assert recommended["saved_mib"] == pytest.approx((1024 * 2 * (256 - 102) - 2 * 64 * 8) / 2**20)
    assert recommended["command"] == (
        f"LLAMA_ATTN_ROT_V_OVERRIDE=1 llama-server -m {site.folder}/model.gguf -c 1000 -fa on -ctk q8_0 -ctv turbo4 "
        "--kv-calibration auto"
    )


def test_verdicts_are_told_in_words_and_in_fields(site: EvalSite) -> None:
    done = site.eval(*KV, "--equal-ppl", "2", "--json")
    found = {
        (one["v"], one["rotation"], one["against"], one["quantity"]): one
        for one in done.document["verdicts"]["comparisons"]
    }
    rotated = found["turbo4", "v", "off", "mean_kld"]
    assert (rotated["verdict"], rotated["unit"], rotated["chunks_more"]) == ("better", "%", None)
    assert rotated["finding"] == f"better by at least {int(rotated['at_least'] * 10) / 10} %"
    assert rotated["ratio"] == pytest.approx(0.9, rel=1e-3)
    assert rotated["at_least"] == pytest.approx(100 * (1 - rotated["ratio_high"]))
    assert rotated["ratio_low"] < rotated["ratio"] < rotated["ratio_high"]
    assert rotated["low"] < rotated["difference"] < rotated["high"] < 0
    worse = found["turbo4", "off", "f16", "ln_ppl_ratio"]
    assert worse["finding"] == "worse by at least 2.2 %"  # ln is twice a KLD of 0.0113
    equal = found["q8_0", "off", "f16", "ln_ppl_ratio"]
    assert (equal["verdict"], equal["finding"]) == ("equal", "equal within 2 %")
    assert equal["within"] == pytest.approx(2)
    settings = done.document["settings"]
    assert (settings["equal_kld"], settings["equal_ppl"], settings["equal_top"]) == (5, 2, 1)
    assert "--equal-ppl 2" in done.document["command"]
    assert "--equal-kld" not in done.document["command"]
    assert "resolution" not in done.document


def test_chunks_are_added_until_the_recommendation_is_settled(site: EvalSite) -> None:
    """Cells that one look decides are not measured again; the store has them all when the command is typed again."""
    words = ("--kv", "q8_0,q8_0/turbo4", "--rotation", "off", "--chunks", "9", "--until-resolved")
    done = site.eval(*words, "--max-kld", "0.0114", "--min-same-top", "90", "--json")
    found = done.document["resolution"]
    assert found["looks"] == [4, 8, 9]
    assert found["confidence"] == 0.95
    assert (found["chunks"], found["settled"]) == (9, False)
    # a KLD so near to what is tolerated that 8 chunks cannot tell
    assert Counter(site.measured())["q8_0/turbo4/off"] == 2
    assert Counter(site.measured())["q8_0/q8_0/off"] == Counter(site.measured())["q4_0/q4_0/off"] == 1
    # four runs besides it, two of them of f16
    assert (found["chunks_run"], found["chunks_full"]) == (4 * 4 + 4 + 9, 5 * 9)
    assert {cell["v"]: cell["chunks"] for cell in done.document["cells"]} == {"q8_0": 4, "turbo4": 9}
    assert not done.document["recommendation"]["settled"]
    assert "not settled after 9 of at most 9 chunks: 29 chunks were run instead of 45 (36 % fewer)" in done.stderr
    assert "--chunks 9" in done.document["command"]
    assert done.document["command"].endswith("--until-resolved --bin-dir BIN_DIR")
    runs = len(eval_runs(site.folder))
    site.eval(*words, "--max-kld", "0.0114", "--min-same-top", "90", "--quiet")
    assert len(eval_runs(site.folder)) == runs
    cells = len(site.measured())
    clear = site.eval(*words, "--max-kld", "0.02", "--min-same-top", "90", "--json").document
    assert (clear["resolution"]["chunks"], clear["recommendation"]["settled"]) == (4, True)
    assert len(site.measured()) == cells


def test_perplexity_that_falls_below_f16_is_called_unreliable(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"ppl": -1})
    done = site.eval(*KV, "--json")
    (judged,) = done.document["verdicts"]["perplexity"]
    assert not judged["reliable"]
    assert any("below f16's 20" in reason for reason in judged["reasons"])
    assert "perplexity is unreliable for this model" in done.stderr


def test_a_recommendation_that_loses_answers_says_so(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/turbo4/v": "forgets"})
    done = site.eval(*KV, "--max-kld", "0.012", "--min-same-top", "90")
    assert "under q8_0/turbo4 rotated v 1 answers are lost" in done.stdout


def test_a_probe_that_crashes_is_told(site: EvalSite) -> None:
    (site.folder / "bin" / "llama-cli").write_text("#!/bin/sh\nkill -SEGV $$\n")
    done = site.eval(*KV, "--json")
    assert done.code == 0
    answers = done.document["controls"]["completion"][0]["answers"]
    assert {answer["error"] for answer in answers} == {"llama-cli ended with signal SIGSEGV"}


def test_a_model_without_attention_is_refused(site: EvalSite) -> None:
    write(site.folder, gguf_of("mamba", {"attention.head_count": 0}))
    done = site.eval(*KV)
    assert done.code == 23
    assert "no attention" in done.stderr


BOTH = ("--kv", "turbo4,f16", "--rotation", "off", "--chunks", "4", "--calibration", "off,auto")


def by_calibration(done: Done) -> dict[str, Any]:
    return {cell["calibration"]: cell for cell in done.document["cells"] if cell["k"] != "f16"}


def test_a_cache_is_measured_with_and_without_calibration_and_f16_without(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", uncalibrated=60)
    done = site.eval(*BOTH, "--json")
    assert [(cell["k"], cell["calibration"]) for cell in done.document["cells"]] == [
        ("turbo4", "off"),
        ("turbo4", "auto"),
        ("f16", "off"),
    ]
    cells = by_calibration(done)
    assert cells["off"]["mean_kld"] == pytest.approx(60 * cells["auto"]["mean_kld"], rel=1e-3)
    (ran,) = cells["auto"]["effective"]["calibrations"]
    assert (ran["on"], ran["layers"], ran["source"]) == (True, 2, "measured on 256 tokens, kept in ab.gguf")
    assert [one["on"] for one in cells["off"]["effective"]["calibrations"]] == [False]
    asked = {one["cell"]: one["calibration"] for one in eval_runs(site.folder)}
    assert (asked["f16/f16/off"], asked["q4_0/q4_0/off"]) == ("off", "off")
    found = done.document["verdicts"]["comparisons"]
    assert {one["verdict"] for one in found if (one["against"], one["quantity"]) == ("uncalibrated", "mean_kld")} == {
        "better"
    }
    assert "turbo4 uncalibrated" in done.stderr
    assert "calibrated with auto: 2 layers, hash 00000000000001b9 (measured on 256 tokens" in done.stderr
    runs = len(eval_runs(site.folder))
    assert by_calibration(site.eval(*BOTH, "--json")) == cells
    assert len(eval_runs(site.folder)) == runs


def test_a_quantized_v_beside_a_k_that_is_not_is_measured_once(site: EvalSite) -> None:
    done = site.eval("--kv", "f16/turbo4", *BOTH[2:], "--json")
    assert [(cell["k"], cell["v"], cell["calibration"]) for cell in done.document["cells"]] == [
        ("f16", "turbo4", "off")
    ]
    runs = [run for run in eval_runs(site.folder) if (run["what"], run["cell"]) == ("cell", "f16/turbo4/off")]
    assert [run["calibration"] for run in runs] == ["off"]
    assert "f16/turbo4 uncalibrated" not in done.stderr


@pytest.mark.parametrize(("tolerated", "word"), [("0.03", "auto"), ("5", "off")])
def test_the_command_that_is_recommended_says_how_the_cache_is_calibrated(
    site: EvalSite, tolerated: str, word: str
) -> None:
    """Of two of the same size the one that loses less, which is here the uncalibrated one if it loses a tenth."""
    words = ("--max-kld", tolerated, "--min-same-top", "0")
    eval_programs(site.folder / "bin", uncalibrated=60 if word == "auto" else 0.1)
    recommended = site.eval(*BOTH, *words, "--json").document["recommendation"]
    assert (recommended["k"], recommended["calibration"]) == ("turbo4", word)
    assert recommended["command"].endswith(f"-ctk turbo4 -ctv turbo4 --kv-calibration {word}")


def test_what_was_measured_before_there_were_calibrations_is_that_without(site: EvalSite) -> None:
    words = (*BOTH[:-2], "--calibration", "off")
    first = site.eval(*words, "--json")
    with sqlite3.connect(site.work / "eval.sqlite") as store:
        for key, value in store.execute("SELECT key, value FROM measured").fetchall():
            fields = json.loads(value)
            del fields["effective"]["calibrations"]
            store.execute("UPDATE measured SET value = ? WHERE key = ?", (json.dumps(fields), key))
    runs = len(eval_runs(site.folder))
    again = site.eval(*words, "--json")
    assert len(eval_runs(site.folder)) == runs
    assert by_calibration(again)["off"]["mean_kld"] == by_calibration(first)["off"]["mean_kld"]
    assert by_calibration(again)["off"]["effective"]["calibrations"] == []


def test_programs_keep_what_they_measure_in_a_folder_that_no_other_build_uses(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(site.folder / "of the user"))
    site.eval(*BOTH, "--quiet")
    (one,) = {run["kept"] for run in eval_runs(site.folder)}
    (site.folder / "bin" / "libggml.so").write_text("another build")
    site.eval(*BOTH, "--quiet")
    (other,) = {run["kept"] for run in eval_runs(site.folder)} - {one}
    assert Path(one).parent == Path(other).parent == site.work / "llama-cache"


def test_a_file_is_measured_by_its_content_and_the_report_names_no_folder(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbotool.evaluation.run.require_files", lambda _: None)
    file, words = site.folder / "x.kvcal.gguf", (*BOTH[:-2], "--json")
    file.write_bytes(b"one")
    first = site.eval(*words, "--calibration", file)
    cell = by_calibration(first)["x.kvcal.gguf"]
    assert cell["calibration_sha256"] == hashlib.sha256(b"one").hexdigest()
    assert "turbo4 with x.kvcal.gguf" in first.stderr
    runs = len(eval_runs(site.folder))
    file.rename(site.folder / "y.gguf")
    assert site.eval(*words, "--calibration", site.folder / "y.gguf").code == 0
    assert len(eval_runs(site.folder)) == runs
    (site.folder / "y.gguf").write_bytes(b"two")
    site.eval(*words, "--calibration", site.folder / "y.gguf", "--report", site.folder / "report")
    assert [run["what"] for run in eval_runs(site.folder)[runs:]] == ["base", "cell"]
    for path in (site.folder / "report").iterdir():
        assert str(site.folder) not in path.read_text(encoding="utf-8")


def test_the_file_beside_the_model_belongs_to_what_auto_is(site: EvalSite) -> None:
    words = (*BOTH[:-2], "--calibration", "auto", "--json")
    assert by_calibration(site.eval(*words))["auto"]["calibration_sha256"] is None
    runs = len(eval_runs(site.folder))
    (site.folder / "model.kvcal.gguf").write_bytes(b"one")
    cell = by_calibration(site.eval(*words))["auto"]
    assert cell["calibration_sha256"] == hashlib.sha256(b"one").hexdigest()
    assert [run["what"] for run in eval_runs(site.folder)[runs:]] == ["base", "cell"]


def test_a_model_that_cannot_be_calibrated_is_told_with_what_to_do(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"turbo4/turbo4/off auto": "unmeasured"})
    done = site.eval(*BOTH, "--json")
    assert done.code == ConfigurationMismatch.exit_code
    failure = by_calibration(done)["auto"]["failure"]
    assert "is not calibrated (not measured), requested auto: use --calibration off for this model" in failure
    assert by_calibration(done)["off"]["failure"] is None


def test_runs_of_one_cache_that_were_calibrated_differently_are_not_set_side_by_side(site: EvalSite) -> None:
    site.eval(*BOTH, "--quiet")
    other = site.folder / "other.txt"
    other.write_text("other " * 5000)
    eval_programs(site.folder / "bin", trouble={"turbo4/turbo4/off auto": "other-hash"})
    done = site.eval(*BOTH, "--corpus", other, "--json")
    assert done.code == ConfigurationMismatch.exit_code
    (failure,) = [cell["failure"] for cell in done.document["cells"] if cell["failure"]]
    assert re.fullmatch(r"turbo4 on other.txt: the hash of its calibration is \w{16}, and \w{16} on text.txt", failure)


def test_programs_that_know_nothing_of_calibrations_are_measured_without(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", stock=True)
    refused = site.eval(*BOTH)
    assert refused.code == ConfigurationMismatch.exit_code
    assert "knows nothing of calibrated caches, requested auto" in refused.stderr
    assert "add --calibration off" in refused.stderr
    assert eval_runs(site.folder) == []
    done = site.eval(*BOTH[:-1], "off", "--max-kld", "1", "--min-same-top", "0", "--json")
    assert done.code == 0
    assert done.document["recommendation"]["command"].endswith("-ctk turbo4 -ctv turbo4")


@pytest.mark.parametrize(
    ("word", "says"),
    [("nowhere.gguf", "nowhere.gguf"), ("model.gguf", "holds no calibration"), ("auto,", "is no name for the file")],
)
def test_a_file_that_is_no_calibration_is_refused_before_anything_runs(
    site: EvalSite, monkeypatch: pytest.MonkeyPatch, word: str, says: str
) -> None:
    monkeypatch.chdir(site.folder)
    done = site.eval(*BOTH[:-1], word)
    assert (done.code, eval_runs(site.folder)) == (ModelError.exit_code, [])
    assert says in done.stderr
