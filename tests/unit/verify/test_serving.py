"""What the checks of a server must find, each with a server that breaks the rule."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import fake_server
import pytest
from fake_server import fake_serve
from known_model import known_model

from turbotool.programs.binaries import Binaries
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import Runner
from turbotool.programs.server import Continuation, Prediction
from turbotool.system.output import Output
from turbotool.verify.check import Check, Context
from turbotool.verify.checks import serving, shift
from turbotool.verify.checks.likeness import kld
from turbotool.verify.checks.serving import PASSAGE, cosine, other_text
from turbotool.verify.registry import CHECKS
from turbotool.verify.verification import run_check


@pytest.fixture
def context(tmp_path: Path) -> Context:
    text = Text(tmp_path / "text.txt")
    text.path.write_text(" ".join(f"word{number}" for number in range(9000)))
    model = replace(known_model(), path=tmp_path / "model.gguf")
    model.path.touch()
    return Context(Runner(Binaries(tmp_path), tmp_path, 2), model, text, Output(quiet=True), quick=False)


def checked(
    name: str, context: Context, monkeypatch: pytest.MonkeyPatch, trouble: str = "", noise: float = 0.05
) -> Check:
    serve = fake_serve(context.work, trouble, noise)
    for module in (serving, shift):
        monkeypatch.setattr(module, "serve", serve)
    monkeypatch.setattr(fake_server, "PASSAGE_WORDS", PASSAGE.split())
    return run_check(next(spec for spec in CHECKS if spec.name == name), context)


@pytest.mark.parametrize(
    "name",
    ["measured-at-start", "shared-cells", "killed-and-restored", "draft-model", "embeddings", "middle-edit"],
)
def test_a_server_that_obeys_passes(name: str, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked(name, context, monkeypatch)
    assert (found.ok, found.skipped) == (True, False), found.detail
    assert found.detail


@pytest.mark.parametrize(
    ("name", "trouble", "says"),
    [
        ("measured-at-start", "finds-one", "the first has its calibration from '0123.gguf'"),
        ("measured-at-start", "measures-again", "the second has it from 'measured on 448 tokens'"),
        ("measured-at-start", "measures-nothing", "the first has its calibration from 'nowhere'"),
        ("measured-at-start", "another-hash", "hash 0000000000000001, was 0000000000000000"),
        ("measured-at-start", "continues-otherwise", "it continues with"),
        ("shared-cells", "leaks", "mean KLD: f16"),
        ("shared-cells", "forgets", "tokens were used"),
        ("killed-and-restored", "half", "saved 18 tokens, restored 1"),
        ("killed-and-restored", "forgets", "only 0 of 18 restored tokens were used"),
        ("killed-and-restored", "continues-otherwise", "it continues with"),
        ("killed-and-restored", "reads-anything", "turbo2 reads it, or does not say why not"),
        ("killed-and-restored", "silent", "f16 reads it, or does not say why not"),
        ("killed-and-restored", "dies", "refused"),
        ("draft-model", "guesses-badly", "from turbo4 1 of 12 drafted tokens were accepted"),
        ("draft-model", "another-text", "with a draft from turbo4 token 4 is 4, not 3, which leads by 2.00 nats"),
        ("draft-model", "stops", "there are 47 tokens, not 48"),
        ("embeddings", "turns", "turbo4 mean 0.07"),
        ("embeddings", "nothing", "turbo4 last nan"),
        ("middle-edit", "never-moves", "tokens, not a few"),
        ("middle-edit", "stale", "behind new text, from a prompt computed anew, mean KLD: f16"),
        ("middle-edit", "forgets", "tokens, not a few"),
    ],
)
def test_a_server_that_breaks_a_rule_is_found(
    name: str, trouble: str, says: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checked(name, context, monkeypatch, trouble)
    assert (found.ok, found.skipped) == (False, False)
    assert says in found.detail


def test_a_model_that_holds_its_calibration_measures_none(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = replace(context.model.keys, embedded=True)
    found = checked("measured-at-start", replace(context, model=replace(context.model, keys=keys)), monkeypatch)
    assert (found.ok, found.skipped, found.detail) == (False, True, "the model holds its calibration")


def test_a_moved_part_that_is_too_noisy_is_found(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked("middle-edit", context, monkeypatch, noise=9.0)
    assert not found.ok
    assert "turbo4" in found.detail


def test_texts_that_part_at_a_tie_are_the_same(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked("draft-model", context, monkeypatch, "at-a-tie").ok


def test_texts_are_compared_up_to_where_rounding_may_choose() -> None:
    one = Continuation("", ((1, -0.5), (2, -0.5), (3, -0.5)), 0, 0, (1.0, 0.05, 1.0))
    assert other_text(one, one) == ""
    assert other_text(one, Continuation("", ((1, 0.0), (9, 0.0), (8, 0.0)), 0, 0)) == ""
    assert "token 1 is 9, not 1" in other_text(one, Continuation("", ((9, 0.0), (2, 0.0), (3, 0.0)), 0, 0))


def test_a_cosine_of_nothing_is_no_number() -> None:
    assert cosine((1.0, 1.0), (2.0, 2.0)) == pytest.approx(1.0)
    assert cosine((1.0, 0.0), (0.0, 1.0)) == 0.0
    assert math.isnan(cosine((0.0, 0.0), (1.0, 1.0)))


def test_a_token_that_is_not_listed_counts_as_the_least_likely_one() -> None:
    base = Prediction({1: math.log(0.5), 2: math.log(0.5)}, 0)
    assert kld(base, base) == 0.0
    assert kld(base, Prediction({1: math.log(0.5), 3: math.log(0.25)}, 0)) == pytest.approx(0.5 * math.log(2))
