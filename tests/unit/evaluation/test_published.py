"""What our verdicts say on published figures, beside what their authors concluded from them.

Only totals were published, so that differences are taken with the errors of both cells as if these were independent.
Those of cells on the same text are not: a paired measurement sees smaller differences, and "unresolved" here is a
statement about the published figures, not about the models. Nothing is called equal: no bound is set.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import tomlkit
from known_results import cell
from recordings import recorded

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge.finding import BETTER, UNRESOLVED, WORSE
from turbotool.evaluation.judge.interval import CONFIDENCE, Interval
from turbotool.evaluation.judge.verdict import (
    BASE,
    BELOW,
    KLD,
    LN_RATIO,
    OFF,
    SAME_TOP,
    Comparison,
    Perplexity,
    judge_perplexity,
)
from turbotool.kv.cachetype import CachePair
from turbotool.programs.divergence import Estimate
from turbotool.programs.perplexity import NOISE_MEAN
from turbotool.programs.questions import PROMPTS

pytest.importorskip("scipy")
DATA = tomlkit.parse(recorded("published.toml")).unwrap()
A4B, DENSE, E2B, QWEN = "gemma-4 26B-A4B Q8", "gemma-4 31B Q8", "gemma-4 E2B Q4_K_L", "Qwen2.5-7B Q8"
USER = "gemma-4 26B-A4B Q6_K_XL"
WIKI, OTHER = "wikitext-2", "wikitext-103"


def rows(kind: str, model: str, text: str, chunks: int) -> list[dict[str, Any]]:
    wanted = (model, text, chunks)
    return [one for one in DATA[kind] if (one["model"], one.get("text", WIKI), one.get("chunks", 32)) == wanted]


def configuration(row: dict[str, Any]) -> Configuration:
    return Configuration(CachePair.parse(row["kv"]), row["rotation"])


def table(model: str, text: str = WIKI, chunks: int = 32) -> dict[str, dict[str, Any]]:
    """The cells of a model on a text, by the names that they were published under: nothing was calibrated then."""
    return {str(configuration(row)).replace(" uncalibrated", ""): row for row in rows("cells", model, text, chunks)}


def ln_ratio(one: list[float], other: list[float]) -> tuple[float, float]:
    """ln of the ratio of two perplexities or KLDs, and its error if theirs are independent."""
    return math.log(one[0] / other[0]), math.hypot(one[1] / one[0], other[1] / other[0])


def said(row: dict[str, Any], against: str, quantity: str, difference: tuple[float, float]) -> str:
    """The verdict on a difference and its standard error, of which totals over many tokens are normal."""
    from scipy import special

    mean, error = difference
    half = float(special.ndtri((1 + CONFIDENCE) / 2)) * error
    interval = Interval(mean, mean - half, mean + half, CONFIDENCE, row.get("chunks", 32))
    return Comparison("text", configuration(row), against, quantity, interval).verdict


def to_off(model: str, quantity: str, pair: str = "q8_0/turbo4", chunks: int = 32) -> dict[str, str]:
    """The verdict on each rotation of a pair against none."""
    cells = table(model, chunks=chunks)
    off, key = cells[pair], {KLD: "kld", SAME_TOP: "same_top", LN_RATIO: "ppl"}[quantity]
    found = {}
    for row in cells.values():
        if row["kv"] == pair and row["rotation"] != "off" and key in row:
            mine, theirs = row[key], off[key]
            plain = (mine[0] - theirs[0], math.hypot(mine[1], theirs[1]))
            found[row["rotation"]] = said(row, OFF, quantity, plain if key == "same_top" else ln_ratio(mine, theirs))
    return found


def judged(model: str, text: str = WIKI, chunks: int = 32, *, only: str = "") -> Perplexity:
    """Whether perplexity may be used. Where no KLD was published, all cells are given the same, which ranks nothing."""
    (base,) = rows("f16", model, text, chunks)
    cells: dict[Configuration, Measured] = {}
    listed = rows("cells", model, text, chunks)
    for row in [row for row in listed if "kld" in row] or listed:
        if only in ("", row["kv"]):
            ratio, error = ln_ratio(row["ppl"], base["ppl"])
            kld = row.get("kld", [1.0, 0.0])
            cells[configuration(row)] = cell(kld[0], ratio, error=error, base=base["ppl"][0], of_kld=kld[1], chunks=1)
    return judge_perplexity(cells, text)


def below(found: Perplexity) -> list[str]:
    """The cells that are accused of scoring below f16."""
    return [
        reason.partition(" scores ")[0].replace(" uncalibrated", "")
        for reason in found.reasons
        if "below f16's" in reason
    ]


def test_a_cache_42_percent_better_than_f16_makes_perplexity_unreliable_on_both_texts() -> None:
    """Concluded: impossible as quality, the same on wikitext-103. Said: so, rotated or not."""
    for text, percent in ((WIKI, "-42.0%"), (OTHER, "-41.2%")):
        found = judged(A4B, text, only="q8_0/turbo4")
        assert not found.reliable
        assert "q8_0/turbo4" in below(found)
        assert any(percent in reason for reason in found.reasons)
    assert len(below(judged(A4B, only="q8_0/turbo4"))) == 3


def test_q8_0_below_f16_is_within_the_published_errors() -> None:
    """Concluded: the artefact is there at q8_0 too (-7.7 % and -6.0 %). Said: not shown.

    The errors of the perplexities are 8 % each, so that these differences are 0.7 and 0.5 standard errors.
    """
    for text in (WIKI, OTHER):
        assert "q8_0" not in below(judged(A4B, text))
        assert judged(A4B, text, only="q8_0").reliable


def test_perplexity_and_kld_rank_the_mixes_of_types_in_opposite_order() -> None:
    """Concluded: KLD follows the bits, perplexity goes against them. Said: so, of q8_0 beside either other mix, in both
    quantities beyond noise. The ranks of nine cells alone would not show it: tau -0.5, which is chance once in 13.
    """
    cells = table(A4B)
    for name in ("q8_0/turbo4", "turbo4"):
        one, other = cells[name], cells["q8_0"]
        assert said(one, "q8_0", KLD, ln_ratio(one["kld"], other["kld"])) == WORSE
        assert said(one, "q8_0", LN_RATIO, ln_ratio(one["ppl"], other["ppl"])) == BETTER
    assert not judged(A4B).reliable
    assert not [reason for reason in judged(A4B).reasons if "opposite order" in reason]


def test_headline_rotation_loses_by_kld_what_it_seems_to_win_by_perplexity() -> None:
    """Concluded: KLD is worse with rotation, at 32 chunks and beyond doubt at 256, and perplexity better. Said: worse
    KLD, and a perplexity that may be chance: -4.4 % and -7.6 % at 256 chunks are 1.0 and 1.9 standard errors.
    """
    for chunks in (32, 256):
        assert to_off(A4B, KLD, chunks=chunks) == {"v": WORSE, "kv": WORSE}
        assert {**to_off(A4B, LN_RATIO, chunks=chunks), "k": UNRESOLVED} == {
            "k": UNRESOLVED,
            "v": UNRESOLVED,
            "kv": UNRESOLVED,
        }
        assert len(below(judged(A4B, chunks=chunks, only="q8_0/turbo4"))) >= 3
    assert to_off(A4B, SAME_TOP) == {"v": UNRESOLVED, "kv": WORSE}


def test_upstreams_rotation_of_q8_0_is_better_by_kld_where_perplexity_says_nothing() -> None:
    """Concluded: rotation lowers KLD by 20 %, and perplexity calls it a loss. Said: better; its perplexity is noise."""
    assert to_off(A4B, KLD, "q8_0") == {"v": BETTER, "kv": BETTER}
    assert to_off(A4B, LN_RATIO, "q8_0") == {"v": UNRESOLVED, "kv": UNRESOLVED}


def test_the_catastrophe_of_turbo4_with_k_rotated_is_one_of_perplexity_alone() -> None:
    """Concluded: +52.7 % of perplexity, and the lowest KLD of its row. Said: worse by perplexity; by KLD, 1.9 standard
    errors below OFF, the same. That both sides rotated is worse by KLD is said by both.
    """
    assert to_off(A4B, LN_RATIO, "turbo4") == {"k": WORSE, "kv": UNRESOLVED}
    assert to_off(A4B, KLD, "turbo4") == {"k": UNRESOLVED, "kv": WORSE}


@pytest.mark.parametrize("model", [QWEN, "Qwen3.5-2B Q8", "Mistral-Small-24B Q4"])
def test_models_that_do_not_care_are_within_noise_and_reliable(model: str) -> None:
    """Concluded: every rotation within the standard error of OFF. Said: the same, and nothing against perplexity."""
    assert to_off(model, LN_RATIO) == dict.fromkeys(("k", "v", "kv"), UNRESOLVED)
    assert judged(model).reliable


def test_the_healthy_control_ranks_too_few_cells_to_call_its_order_opposite() -> None:
    """Concluded: perplexity and KLD rank the four differently, by little, and no decision hangs on it. Said: reliable:
    five of six pairs in opposite order are chance in one of three such tables. V rotated is worse by KLD, by 2.4
    standard errors; the authors, who looked at perplexity, leave it within noise.
    """
    assert judged(QWEN).reliable
    assert to_off(QWEN, KLD) == {"k": UNRESOLVED, "v": WORSE, "kv": UNRESOLVED}
    assert set(to_off(QWEN, SAME_TOP).values()) == {UNRESOLVED}


def test_the_small_gemma_wants_no_rotation_by_kld() -> None:
    """Concluded: OFF is best, V rotated 38 % worse by KLD, and by perplexity 6.7 % worse; perplexity of OFF 6.7 %
    below f16. Said: worse by KLD, reliable; differences of 7 % in perplexity are 0.8 standard errors.
    """
    assert to_off(E2B, KLD) == {"k": UNRESOLVED, "v": WORSE, "kv": WORSE}
    assert to_off(E2B, LN_RATIO) == dict.fromkeys(("k", "v", "kv"), UNRESOLVED)
    assert judged(E2B).reliable


def test_the_dense_gemma_gains_perplexity_by_rotating_v_and_no_kld_tells_whether_it_is_one() -> None:
    """Concluded: V rotated is 43 % better, partly an artefact as on its sister. Said: better, and nothing against
    perplexity: 7 % below f16 is 0.7 standard errors, and KLD was not measured.
    """
    assert to_off(DENSE, LN_RATIO) == {"k": UNRESOLVED, "v": BETTER, "kv": BETTER}
    assert judged(DENSE).reliable
    (base,) = rows("f16", DENSE, WIKI, 32)
    verdicts = {
        row["rotation"]: said(row, BASE, LN_RATIO, ln_ratio(row["ppl"], base["ppl"])) for row in table(DENSE).values()
    }
    assert verdicts == {"off": WORSE, "k": WORSE, "v": UNRESOLVED, "kv": UNRESOLVED}
    (base,) = rows("f16", A4B, WIKI, 32)
    off = table(A4B)["q8_0/turbo4"]
    assert said(off, BASE, LN_RATIO, ln_ratio(off["ppl"], base["ppl"])) == BELOW


def test_a_users_report_in_opposite_order_is_four_cells_without_errors() -> None:
    """Concluded: rotating both sides harms turbo4, which perplexity hides. Said: the order is the opposite throughout
    (tau -1), which among four cells is chance once in twelve; without errors no pair can be told from noise.
    """
    cells = {
        configuration(row): cell(row["kld"][0], math.log(row["ppl"][0]), base=1.0, chunks=1)
        for row in table(USER).values()
    }
    order = sorted(cells, key=lambda one: cells[one].divergence.mean.value)
    assert order == sorted(cells, key=lambda one: -cells[one].divergence.ppl.value)
    assert judge_perplexity(cells, WIKI).reliable
    one_more = {Configuration(CachePair("turbo3", "turbo3")): cell(3.0, math.log(8000.0), base=1.0, chunks=1)}
    assert not judge_perplexity({**cells, **one_more}, WIKI).reliable


def test_a_model_that_crashed_with_v_rotated_has_the_same_perplexity_without() -> None:
    """phi-4: what a crash is in a table of models is tested in test_evalmodels.py."""
    assert to_off("phi-4 Q8", LN_RATIO) == {"k": UNRESOLVED}
    assert judged("phi-4 Q8").reliable


def test_the_noise_floor_is_zero() -> None:
    floor = DATA["noise_floor"]
    assert all(abs(kld) <= NOISE_MEAN for kld in floor["kld"])
    itself = cell(floor["kld"][0], 0.0, error=0.0)
    itself = replace(itself, divergence=replace(itself.divergence, rms_dp=Estimate(floor["rms_dp"])))
    assert itself.is_finite
    assert judge_perplexity({Configuration(CachePair("q8_0", "q8_0")): itself}, WIKI).reliable


def test_the_answers_are_right_under_both_caches() -> None:
    """Concluded: the cache with 42 % less perplexity is not broken: three right answers, as with f16. Said: so."""
    for answers in DATA["completion"].values():
        assert [right(answer) for (_, right), answer in zip(PROMPTS, answers, strict=True)] == [True] * 3
