"""The control of the decode path: what is recommended, a chunk at once and token by token, with fake programs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, apart
from eval_site import EvalSite
from fake_eval import eval_programs, eval_runs
from html_page import Page
from known_results import DIVERGENCE

from turbotool.errors import BinaryFailed, ConfigurationMismatch, Interrupted
from turbotool.evaluation.cell import Configuration, Origin
from turbotool.evaluation.store import look_into_store
from turbotool.kv.cachetype import CachePair
from turbotool.programs.agreement import agreement
from turbotool.programs.divergence import Estimate
from turbotool.programs.perplexity import Text

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")
Q8 = ("--kv", "q8_0", "--rotation", "off", "--chunks", "4")
KLD = 0.002 * 1.01  # of the first chunk


def control(done: Done) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = done.document["controls"]["decode_path"]
    return found


def decoded(site: EvalSite) -> list[tuple[str, str]]:
    """Cell and tokens at once of each run of the control."""
    words = [(one["cell"], one["words"]) for one in eval_runs(site.folder) if one["what"] == "decode"]
    return [(cell, said[said.index("-ub") + 1]) for cell, said in words]


def test_what_is_recommended_is_computed_a_chunk_at_once_and_token_by_token(site: EvalSite) -> None:
    done = site.eval("--kv", "q8_0,turbo4", "--rotation", "off", "--chunks", "4", "--json")
    assert decoded(site) == [("q8_0/q8_0/off", "512"), ("q8_0/q8_0/off", "1")]
    found = control(done)
    assert (found["corpus"], found["k"], found["calibration"]) == ("text.txt", "q8_0", "auto")
    assert (found["ok"], found["verdict"], found["difference"], found["failure"]) == (True, "identical", 0, None)
    assert (found["ubatch"], found["chunks"]) == ([512, 1], [1, 1])
    assert found["mean_kld"] == found["max_kld"] == pytest.approx([KLD, KLD], abs=1e-6)
    assert not list(site.work.glob("*.logits"))


def test_each_text_has_its_own_control(site: EvalSite) -> None:
    (site.folder / "other.txt").write_text("other " * 5000)
    done = site.eval(*Q8, "--corpus", site.folder / "other.txt", "--json")
    found = done.document["controls"]["decode_path"]
    assert [(one["corpus"], one["verdict"]) for one in found] == [("text.txt", "identical"), ("other.txt", "identical")]
    assert len(site.measured("decode-base")) == 2
    assert decoded(site) == [("q8_0/q8_0/off", "512"), ("q8_0/q8_0/off", "1")] * 2


def test_small_chunks_are_as_many_as_have_the_tokens_for_statistics(site: EvalSite) -> None:
    done = site.eval("--kv", "q8_0", "--rotation", "off", "--ctx", "64", "--chunks", "8", "--json")
    assert (control(done)["ubatch"], control(done)["chunks"]) == ([64, 1], [4, 4])


def test_another_loss_token_by_token_is_loud(site: EvalSite) -> None:
    """As a noise floor that is not zero it says so everywhere; what was measured stays measured."""
    eval_programs(site.folder / "bin", decode=1.5)
    folder = site.folder / "report"
    done = site.eval(*Q8, "--report", folder)
    line = (
        "decode path of q8_0 on text.txt: NOT THAT OF A BATCH: token by token 0.003030 nats, in a batch 0.002020, "
        "+0.001010 over 1 chunk, at most 0.000424 is rounding"
    )
    assert line in done.stdout
    assert f"model.gguf: {line}" in done.stderr
    for name in ("eval.md", "eval.html"):
        assert line in (folder / name).read_text(encoding="utf-8")
    document = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    (found,) = document["controls"]["decode_path"]
    assert (found["ok"], found["verdict"], found["finding"]) == (False, "apart", line)
    assert found["difference"] == pytest.approx(KLD / 2, abs=2e-6)
    assert (done.code, document["ok"]) == (0, True)


@pytest.mark.parametrize(("times", "verdict", "ok"), [(1.2, "equal", True), (1.22, "apart", False)])
def test_three_standard_errors_of_a_difference_are_the_bound(
    site: EvalSite, times: float, verdict: str, ok: bool
) -> None:
    """The fakes print 0.0001 for each, of a loss of 0.002."""
    eval_programs(site.folder / "bin", decode=times)
    done = site.eval(*Q8, "--json")
    found = control(done)
    assert (found["verdict"], found["ok"]) == (verdict, ok)
    assert found["bound"] == pytest.approx(3 * 2**0.5 * 0.0001)
    assert ("NOT THAT OF A BATCH" in done.stderr) is not ok


@pytest.mark.parametrize(("lost", "verdict"), [(0.009, "equal"), (0.011, "apart")])
def test_f16_may_lose_token_by_token_what_makes_no_difference(site: EvalSite, lost: float, verdict: str) -> None:
    """A batch of f16 is what it is compared with; a perplexity of 1 % is 0.00995 nats."""
    eval_programs(site.folder / "bin", decode=0, decode_f16=lost)
    done = site.eval(*Q8, "--max-kld", "0", "--json")
    assert done.document["recommendation"]["k"] == "f16"
    assert (control(done)["verdict"], control(done)["bound"]) == (verdict, pytest.approx(0.00995, abs=1e-6))


def test_a_crash_token_by_token_fails_the_evaluation(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/q8_0/off ubatch 1": "SIGSEGV"})
    done = site.eval(*Q8, "--json")
    assert done.code == done.document["error"]["code"] == BinaryFailed.exit_code
    assert "1 of 6 runs could not be measured: q8_0 at ubatch 1 on text.txt: llama-perplexity ended" in done.stderr
    found = control(done)
    assert (found["ok"], found["verdict"], found["difference"]) == (False, "not measured", None)
    assert found["failure"] == "llama-perplexity ended with signal SIGSEGV"
    assert found["mean_kld"] == [pytest.approx(KLD, abs=1e-6), None]
    assert done.document["cells"][0]["failure"] is None


def test_base_logits_that_cannot_be_made_again_leave_everything_else(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"decode-base": "SIGABRT"})
    done = site.eval(*Q8, "--json")
    assert done.code == BinaryFailed.exit_code
    assert (control(done)["verdict"], control(done)["mean_kld"]) == ("not measured", [None, None])
    assert done.document["recommendation"]["k"] == "q8_0"


def test_a_run_with_another_calibration_is_no_control(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/q8_0/off ubatch 1": "other-hash"})
    done = site.eval(*Q8, "--json")
    assert done.code == ConfigurationMismatch.exit_code
    assert "the hash of its calibration is" in control(done)["failure"]


def test_a_control_that_was_ended_goes_on_where_it_stopped(site: EvalSite) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/q8_0/off ubatch 1": "interrupt"})
    assert apart(*site.words(*Q8), timeout=60).code == Interrupted.exit_code
    eval_programs(site.folder / "bin")
    done = site.eval(*Q8, "--json")
    assert control(done)["ok"]
    assert decoded(site) == [("q8_0/q8_0/off", "512"), ("q8_0/q8_0/off", "1"), ("q8_0/q8_0/off", "1")]
    site.eval(*Q8)
    assert len(decoded(site)) == 3


def test_a_page_shows_both_runs(site: EvalSite) -> None:
    folder = site.folder / "report"
    site.eval(*Q8, "--report", folder)
    page = Page((folder / "eval.html").read_text(encoding="utf-8"))
    rows = [row for row in page.rows if row[-1:] == ["identical"]]
    assert [row[:3] for row in rows] == [["text.txt", "q8_0", "512"], ["text.txt", "q8_0", "1"]]
    assert all(row[3].startswith("0.00202") for row in rows)
    markdown = (folder / "eval.md").read_text(encoding="utf-8")
    assert all(f"| {' | '.join(row)} |" in markdown for row in rows)


def test_who_chooses_a_cache_to_serve_does_not_find_the_control(site: EvalSite) -> None:
    """A single chunk is no evaluation."""
    done = site.eval(*Q8, "--json")
    with look_into_store(site.work / "eval.sqlite") as store:
        assert store
        found = store.cells(done.document["model"]["sha256"])
    assert {(str(one.configuration), one.origin.chunks) for one in found} == {("q8_0", 4), ("q4_0 uncalibrated", 4)}


def test_tokens_at_once_are_a_part_of_what_is_measured() -> None:
    origin, cell = Origin("b", "m", "c", 512, 1), Configuration(CachePair("q8_0", "q8_0"))
    assert len({origin.key(cell), origin.key(cell, ubatch=512), origin.key(cell, ubatch=1)}) == 3
    # as it was before there was an ubatch: what older versions measured is found
    assert origin.key(cell, ubatch=0) == origin.key(cell)


def test_a_text_says_how_many_tokens_are_computed_at_once() -> None:
    whole, single = Text(Path("t"), 512, 1), Text(Path("t"), 512, 1, ubatch=1)
    assert (whole.flags[-1], single.flags) == ("512", ("-c", "512", "-b", "512", "-ub", "1"))
    assert single.timeout > 5 * whole.timeout
    assert replace(whole, ubatch=512).timeout == whole.timeout


def test_runs_agree_by_every_digit_or_by_the_error_of_their_difference() -> None:
    batch = replace(DIVERGENCE, mean=Estimate(0.01, 0.0003))
    near, far = (replace(batch, mean=Estimate(kld, 0.0004)) for kld in (0.0114, 0.0084))
    assert [agreement(batch, one).ok for one in (batch, near, far)] == [True, True, False]
    assert [agreement(batch, one, exact=True).ok for one in (batch, near)] == [True, False]
    assert agreement(batch, far, floor=0.002).ok
    other = replace(batch, rms_dp=Estimate(batch.rms_dp.value + 0.001))
    assert not agreement(batch, other, exact=True).identical


def test_what_is_not_finite_does_not_agree_with_a_figure() -> None:
    broken = replace(DIVERGENCE, mean=Estimate(float("nan"), float("nan")))
    for pair in ((DIVERGENCE, broken), (broken, DIVERGENCE)):
        assert not agreement(*pair).ok
