"""The checks gate, memory, shapes and effective: what keeps the rules passes, what breaks one is named."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fake_verify import verify_programs
from known_model import known_model
from known_results import cell

from turbotool.inputs.synthetic import write_model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED
from turbotool.kv.rotation import OFF
from turbotool.programs.binaries import Binaries
from turbotool.programs.completion import complete
from turbotool.programs.divergence import Divergence
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import Runner
from turbotool.system.output import Output
from turbotool.verify import verification
from turbotool.verify.check import Check, Context
from turbotool.verify.checks import batches, effective, shapes
from turbotool.verify.checks.quality import TURBO4
from turbotool.verify.registry import CHECKS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

GATE, SIZE = "rotation-truth-table", "kv-buffer-size"
HEADS, GRAPH = "head-size-guard", "graph-budget"
SLOTS, COPY = "slot-save-restore", "sequence-copy"
EFFECTIVE = "effective-configuration"


def context_of(folder: Path, trouble: str, *, quick: bool = True) -> Context:
    """On fake programs in `folder` that have this trouble."""
    runner = Runner(Binaries(verify_programs(folder, trouble)), folder, 1, folder / "verify.log")
    return Context(runner, known_model(str(folder / "m.gguf")), Text(folder / "text.txt"), Output(quiet=True), quick)


def checked(name: str, context: Context) -> Check:
    (spec,) = [spec for spec in CHECKS if spec.name == name]
    return verification.run_check(spec, context)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", [GATE, SIZE, HEADS, GRAPH, SLOTS, COPY, EFFECTIVE])
def test_programs_that_keep_the_rules_pass(tmp_path: Path, name: str, quick: bool) -> None:
    found = checked(name, context_of(tmp_path, "", quick=quick))
    assert (found.ok, found.skipped) == (True, False), found.detail
    assert {path.name for path in tmp_path.iterdir() if path.suffix in (".logits", ".gguf")} == set()


@pytest.mark.parametrize(
    ("name", "trouble", "value", "says"),
    [
        (GATE, "leaks", 1, "q8_0/q8_0: rotation K and K+V give the same logits"),
        (GATE, "log-only", 6, "q8_0/q8_0: rotation off and K give the same logits"),
        (GATE, "unlocked", 2, "q8_0/q8_0: DISABLE, K changes the logits"),
        (GATE, "f16-rotates", 1, "an override changes the logits of an f16 cache"),
        (GATE, "any-value", 2, "LLAMA_ATTN_ROT_K_OVERRIDE=maybe was accepted"),
        (GATE, "nameless-error", 2, "LLAMA_ATTN_ROT_V_OVERRIDE=1x: the error does not name the variable"),
        (GATE, "crashes", "signal SIGABRT", "LLAMA_ATTN_ROT_K_OVERRIDE=maybe: signal SIGABRT"),
        (GATE, "silent-gate", "ConfigurationMismatch", "the log says nothing about attn_rot_k"),
        (SIZE, "pads", 4.25 * 60 * 3 * 64 * 2048 / 8 / 2**20, "turbo3 takes"),
        (SIZE, "layers", None, "llama: the log names other caches than the model has"),
        (SIZE, "substitutes", "ConfigurationMismatch", "K cache type is q8_0, requested turbo4"),
        (HEADS, "rotates", 2, "K is rotated, or the log does not say"),
        (HEADS, "silent-gate", 2, "V is rotated, or the log does not say"),
        (HEADS, "other-reason", 2, "K is off for another reason: a whim"),
        (HEADS, "takes-odd", 1, "turbo4: exit status 0, no message"),
        (HEADS, "nameless-error", 1, "no message with 'does not divide n_embd_head_k=96'"),
        (HEADS, "aborts", "signal SIGABRT", "llama-completion ended with signal SIGABRT"),
        (GRAPH, "aborts", "signal SIGABRT", "signal SIGABRT; the rotations were not in force"),
        (GRAPH, "unrotated", "exit status 0", "the rotations were not in force"),
        (SLOTS, "forgets", 1, "saved 18 tokens, restored 9"),
        (SLOTS, "evaluates", 1, "only 0 of 18 restored tokens were used"),
        (SLOTS, "drifts", 1, "token 1 is (0, -1.5), was (0, -0.5)"),
        (SLOTS, "stops", 1, "23 tokens instead of 24"),
        (COPY, "no-copy", 1, "turbo4/turbo4: the sequence was not copied"),
        (COPY, "one-slot", 1, "turbo4/turbo4: the sequence was not copied"),
        (COPY, "copy-drifts", 2, "turbo4/turbo4 slot 1: token 1 is 1, alone 0"),
        (COPY, "copy-rounds", 1, "turbo4/turbo4 copy: token 1 is (0, -1.5), was (0, -0.5)"),
        (EFFECTIVE, "substitutes", "ConfigurationMismatch", "V cache type is q8_0, requested turbo4"),
    ],
)
def test_what_breaks_a_rule_is_named(tmp_path: Path, name: str, trouble: str, value: object, says: str) -> None:
    found = checked(name, context_of(tmp_path, trouble))
    assert (found.ok, found.skipped) == (False, False)
    assert says in found.detail
    assert found.value == (pytest.approx(value, abs=0.006) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("f16-rotates", "a V override changes the logits although V is f16"),
        ("k-needs-v", "a K override does nothing when V is f16"),
    ],
)
def test_the_float_side_of_a_mixed_pair_is_looked_at_in_a_full_run(tmp_path: Path, trouble: str, says: str) -> None:
    found = checked(GATE, context_of(tmp_path, trouble, quick=False))
    assert not found.ok
    assert says in found.detail


def test_a_model_whose_caches_are_not_known_has_no_size_to_compare(tmp_path: Path) -> None:
    context = context_of(tmp_path, "layers")
    model = replace(context.model, kv=replace(context.model.kv, problem="its caches are not known"))
    found = checked(SIZE, replace(context, model=model))
    assert (found.ok, found.skipped, found.detail) == (False, True, "its caches are not known")


def test_a_run_that_was_set_otherwise_is_found_at_the_end(tmp_path: Path) -> None:
    """Whoever made the run may have caught the error that refused it."""
    context = context_of(tmp_path, "")
    ran = complete(context.runner, context.model, CachePair("f16", "f16"), "x", n=1, ctx=256).run
    context.runner.record("llama-cli", CachePair("turbo2", "f16"), OFF, ran.done)
    found = checked(EFFECTIVE, context)
    assert (found.ok, found.value) == (False, 3)
    assert found.detail == "llama-cli turbo2/f16: K cache type is f16, requested turbo2"


def test_a_comparison_that_lets_everything_pass_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effective, "differences", lambda *_: [])
    found = checked(EFFECTIVE, context_of(tmp_path, ""))
    assert not found.ok
    assert found.detail.count("a q8_0/turbo4 run passes for") == 4


@pytest.mark.parametrize(
    ("default", "kld", "ok"),
    [(True, 0.0124, True), (True, 0.0126, False), (False, 0.0199, True), (False, 0.02, False), (True, 0.0, False)],
)
def test_a_calibration_must_gain_as_much_as_it_does_on_the_default_model(
    tmp_path: Path, default: bool, kld: float, ok: bool
) -> None:
    context = context_of(tmp_path, "")
    context = replace(context, model=replace(context.model, is_default=default))
    known = {UNCALIBRATED: cell(0.02, 0.0), AUTO: cell(kld, 0.0)}
    context._divergences = {(TURBO4, OFF, asked): found.divergence for asked, found in known.items()}
    found = checked("calibrated-quality", context)
    assert found.ok is ok
    assert found.value == pytest.approx(kld / 0.02)
    assert "uncalibrated 0.020000" in found.detail


@pytest.mark.parametrize(
    ("calibrated", "plain", "ok"),
    [(0.0149, 0.3, True), (0.0151, 0.3, False), (0.0149, 0.19, False), (0.0, 0.3, False)],
)
def test_biases_of_k_must_break_what_is_not_calibrated_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrated: float, plain: float, ok: bool
) -> None:
    """Against .01 of the model without biases."""
    context = context_of(tmp_path, "", quick=False)
    context = replace(context, model=replace(context.model, is_default=True))
    context._divergences = {(TURBO4, OFF, AUTO): cell(0.01, 0.0).divergence}
    of = {UNCALIBRATED: cell(plain, 0.0).divergence, AUTO: cell(calibrated, 0.0).divergence}
    monkeypatch.setattr(shapes, "write_biased", lambda model, copy, head_dim: write_model(copy, shapes.ODD))
    monkeypatch.setattr(shapes, "save_logits", lambda *_: None)
    monkeypatch.setattr(shapes, "compare", lambda *given: (of[given[-1]], None))
    found = checked("calibrated-biases", context)
    assert (found.ok, found.skipped) == (ok, False)
    assert found.value == pytest.approx(calibrated / 0.01)
    assert f"uncalibrated {plain:.3f}" in found.detail
    assert not list(tmp_path.glob("*.gguf"))


def test_biases_are_added_to_the_default_model_only(tmp_path: Path) -> None:
    found = checked("calibrated-biases", context_of(tmp_path, "", quick=False))
    assert (found.ok, found.skipped) == (False, True)


def loss(kld: float, error: float = 0.0002) -> Divergence:
    return cell(kld, 0.0, of_kld=error).divergence


@dataclass
class Batches:
    """What is compared with f16, by cache and tokens at once: all alike, but for `odd`. Notes what was asked for."""

    odd: dict[tuple[str, int], Divergence]
    asked: list[tuple[str, int, int, int]] = field(default_factory=list)

    def compare(
        self, runner: Runner, _: object, text: Text, pair: CachePair, base: Path, *__: object
    ) -> tuple[Divergence, None]:
        assert base.exists()
        self.asked.append((pair.k, text.ubatch, text.chunks, runner.threads))
        return self.odd.get((pair.k, text.ubatch), loss(0.0 if pair == F16 else 0.01)), None


def batches_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, odd: dict[tuple[str, int], Divergence], machine: str = "x86_64"
) -> tuple[Check, Batches]:
    """The check on made up figures, and on a CPU of that kind."""
    known = Batches(odd)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(batches, "compare", known.compare)
    monkeypatch.setattr(batches, "save_logits", lambda *given: given[4].write_text("logits"))
    context = context_of(folder, "", quick=False)
    context.runner.threads = 8
    return checked("batch-invariance", context), known


def test_each_cache_is_computed_in_a_batch_a_few_tokens_at_once_and_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, known = batches_of(tmp_path, monkeypatch, {})
    assert (found.ok, found.skipped, found.value) == (True, False, 0)
    assert (
        found.detail
        == "turbo4: identical; turbo3 uncalibrated: identical; q8_0 uncalibrated: identical; f16: identical"
    )
    of = [(pair, ubatch) for pair in ("turbo4", "turbo3", "q8_0", "f16") for ubatch in (256, 3, 1)]
    assert known.asked == [(pair, ubatch, 1, 1) for pair, ubatch in of]
    assert not list(tmp_path.glob("*.logits"))


@pytest.mark.parametrize(
    ("odd", "machine", "ok", "says"),
    [
        ({("turbo3", 3): loss(0.010001)}, "x86_64", False, "+0.000001 at ubatch 3, +0.000000 at ubatch 1, at most 0.0"),
        ({("turbo3", 3): loss(0.010001)}, "arm64", True, "at most 0.000849"),
        ({("turbo4", 1): loss(0.0108)}, "arm64", True, "turbo4: +0.000000 at ubatch 3, +0.000800 at ubatch 1"),
        ({("turbo4", 1): loss(0.0109)}, "arm64", False, "turbo4: +0.000000 at ubatch 3, +0.000900 at ubatch 1"),
        ({("q8_0", 1): loss(0.0)}, "arm64", False, "-0.010000 at ubatch 1"),
        ({("f16", 1): loss(0.0035)}, "x86_64", True, "f16: +0.000000 at ubatch 3, +0.003500 at ubatch 1"),
        ({("f16", 1): loss(0.0100)}, "x86_64", False, "at most 0.009950"),
        ({("q8_0", 3): loss(math.nan, math.nan)}, "arm64", False, "+nan at ubatch 3"),
    ],
)
def test_a_cache_that_depends_on_how_many_tokens_are_computed_at_once_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    odd: dict[tuple[str, int], Divergence],
    machine: str,
    ok: bool,
    says: str,
) -> None:
    """By every digit on a CPU whose sums do not depend on it, else by the error of the difference."""
    found, _ = batches_of(tmp_path, monkeypatch, odd, machine)
    assert (found.ok, found.value) == (ok, 0 if ok else 1)
    assert says in found.detail
